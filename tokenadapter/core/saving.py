"""Save the outcome of a presentation: a token, or a failure.

The lock may be lost meanwhile, and another process may write.  Each write is a compare-and-swap.
What follows a conflict depends on what the other process wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenadapter.core import policy
from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.journal import Journal
from tokenadapter.core.record import Backoff, Intent, Record, Waiter, spent_hash
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import Credential, Grant, StoreLock
else:
    errors = late("tokenadapter.errors")

__all__ = ["Minted", "Presented", "Saver", "may_be_spent"]

# Seconds to back off after the server refused the client or the requested scope.
_CONFIG_BACKOFF: Final = 60.0
# Seconds to back off if another keeper cannot renew a refused credential, and does not say when.
_UNKNOWN_OUTAGE: Final = 5.0
# Seconds for which an exiting interpreter, or a caller that renews, goes on trying to save.
_SAVES_AT_EXIT: Final = 5.0
_SAVES_INLINE: Final = 30.0
# Seconds after which to try again to record that a wait is over.
_LOOKS_AGAIN: Final = 0.5
# Characters of an error that are saved in the record.
_LONGEST_CAUSE: Final = 2000


class Minted(NamedTuple):
    """A new token, and whether the server also issued a new refresh token."""

    token: Token
    rotated: bool


class Presented(NamedTuple):
    """A credential that was presented, and how the slot stood."""

    credential: Credential
    lock: StoreLock
    found: View
    """Before the intent."""
    view: View
    """With the intent."""
    waiter: Waiter | None
    """This process, in the intent; ``None`` if none was written."""
    refused: tuple[Credential, ...] = ()
    """The replaceable credentials that the server refused, to which a failure is limited."""


class Saver:
    """Saves the outcomes of presentations for one slot."""

    def __init__(
        self, slot: Slot, grant: Grant, eligibility: Eligibility, runtime: Runtime, journal: Journal
    ) -> None:
        self._slot = slot
        self._grant = grant
        self._eligibility = eligibility
        self._runtime = runtime
        self._journal = journal
        # The waits of this process that are over, but not in the record yet; and for each, whether
        # the outcome is unknown.
        self._ended: dict[Waiter, bool] = {}
        # The process whose thread records them; empty if there is none.
        self._recorder = ""

    # --- a token -------------------------------------------------------------------------

    def save(
        self, presented: Presented, minted: Minted, serve_unsaved: Callable[[View], None]
    ) -> View | None:
        """Save the token.  If a refresh token was spent for it, retry until the save succeeds.

        :param serve_unsaved: lets this process use a token that cannot be saved yet.
        :returns: the record with the token; ``None`` if what another process wrote stays.
        """
        credential, before = presented.credential, presented.found.record
        is_spent = minted.rotated and (credential.single_use or credential.opaque)
        spent = spent_hash(credential.secret) if is_spent else None
        # The configuration, a function or another call of adopt() may provide it again.
        for_good = credential.first or credential.opaque or spent == before.origin
        remembered = spent if spent is None or for_good else before.placed(spent)
        view = presented.view
        renewed = self._record_maker(presented, minted, spent if for_good else None)
        # As often as waiting processes look, so that none of them reaches the store first.
        longest = 5.0 if self._slot.lock_ends_with_holder else self._slot.store.poll[1]
        retries = _Retries(self._runtime, self._journal, minted.token, longest)
        tag = self._slot.new_tag(view)
        while True:
            record = renewed(view)
            try:
                view = self._slot.write(view, record, tag)
                break
            except Conflict as conflict:
                view = conflict.view
                if minted.token.is_same(view.record.token):
                    break  # it was saved, the answer was lost, and another process added to it
                # The lock lapsed.
                if not self._is_worth_saving(view, presented, minted):
                    self._remember_spent(remembered, for_good)
                    # Another process may have kept the intent beside its token for this one.
                    self.stop_waiting(presented.waiter, is_unknown=minted.rotated)
                    return None
                tag = self._slot.new_tag(view)
            except Exception as error:  # noqa: BLE001 - no error may lose a token that cost one
                unsaved = view._replace(record=record)
                if not (credential.single_use or is_spent):
                    self._journal.emit_once("StoreFailed", error=str(error))
                    return unsaved
                pause = retries.pause_after(error)
                if pause is None:
                    return unsaved
                serve_unsaved(unsaved)
                self._runtime.sleep(pause)
                # Keeps a lease alive while the save is retried.
                presented.lock.confirm()
        self._remember_spent(remembered, for_good)
        return view

    def _record_maker(
        self, presented: Presented, minted: Minted, spent_for_good: str | None
    ) -> Callable[[View], Record]:
        """The function that puts the token into what the slot holds."""
        credential, found = presented.credential, presented.found
        # Even if the save is late, tokens that other processes obtained meanwhile are newer.
        obtained = self._slot.stamp(presented.view)
        stored = found.record.token
        begins = stored is None or stored.refresh_token != credential.secret
        origin: str | None = None
        seeds: tuple[str, ...] = ()
        if begins and credential.first:
            origin, seeds = spent_hash(credential.secret), self._slot.seeds(found)

        def renewed(view: View) -> Record:
            record = view.record
            if record.token is None and view.tag is None and not begins:
                # Only this process knows how the grant began, in a slot that was emptied.
                record = found.record
            return record.with_new_token(
                minted.token,
                self._grant.requested,
                obtained,
                spent_for_good,
                intent=None if minted.rotated else self._remaining_intent(view, credential),
                begins=begins,
                origin=origin,
                seeds=seeds,
            )

        return renewed

    def _remaining_intent(self, view: View, credential: Credential) -> Intent | None:
        """The intent that stays after an answer that did not spend *credential*.

        Another process that held the lock later, or earlier, may also wait for an answer.  Its
        request may still spend the credential.
        """
        intent, mine = view.record.intent, self._runtime.process()
        if not credential.single_use or intent is None or self._slot.lock_ends_with_holder:
            return None
        others = tuple(
            one for one in self._eligibility.pending_waiters(view) if one.process != mine
        )
        if not others or intent.credential != self._eligibility.digest(view.record, credential):
            return None
        return intent._replace(attempt=len(others), awaited=others)

    def _remember_spent(self, spent: str | None, for_good: bool) -> None:
        """Remember the spent refresh token, if there is one, in case the record is lost."""
        try:
            if spent is not None:
                self._slot.store.remember_spent(spent, for_good=for_good)
        except errors.StoreError as error:
            self._journal.emit_once("StoreFailed", error=str(error))

    def _is_worth_saving(self, view: View, presented: Presented, minted: Minted) -> bool:
        """Whether the new token may replace the content of a slot that was written meanwhile."""
        found, credential = presented.found, presented.credential
        token, before = view.record.token, found.record
        if minted.rotated and token is not None and token.refresh_token == credential.secret:
            return True  # a server that rotates only sometimes has spent the stored refresh token
        if credential.adopted:
            # Other processes renewed another grant.  A login or logout must not be undone.  The
            # record of a slot that was emptied is the last one that this process remembers.
            since = max(before.begun, found.read_at) if view.was_reset else before.begun
            return view.record.begun <= since
        return self._is_unrenewed(view, presented)

    def _is_unrenewed(self, view: View, presented: Presented) -> bool:
        """Whether no other process has renewed, in a slot that was written meanwhile."""
        record, before, credential = view.record, presented.found.record, presented.credential
        if view.tag is None:
            return True  # the slot was emptied
        if record.token is not None and not record.token.is_same(before.token):
            return False  # even with the same refresh token, from a server that keeps it
        if not credential.single_use:
            return True
        if record.intent is not None:
            key = self._eligibility.digest(record, credential)
            if record.intent.credential != key:
                # Another credential is being presented: adopted, or used because ours was refused.
                if record.tombstone(key) is not None:
                    return False
                if record.token is None:
                    return before.token is None
                return record.token.refresh_token == credential.secret
            return True
        return record.token is not None or before.token is None

    # --- a failure -----------------------------------------------------------------------

    def record_failure(self, presented: Presented, failure: TokenError) -> None:
        """Save the failure for all processes that share the store.

        :raises TokenError: *failure*, unless it is a refusal: another credential may be left.
        """
        view, before, credential = presented.view, presented.found.record, presented.credential
        is_final = _is_final(failure, credential)
        while True:
            # Computed for each view, which may be of another record, with its own salt.
            backoff = None if is_final else self._new_backoff(view, failure, presented.refused)
            try:
                self._slot.write(view, self._failed_record(view, presented, failure, backoff))
                break
            except Conflict as moved:
                # After the loss of the lock, leave the record to its holder.
                view = moved.view
                if presented.lock.confirm() and self._is_unrenewed(view, presented):
                    continue
                # A backoff applies to this process while the token stays; a refusal always.
                record = before if backoff else view.record
                self._remember(record, credential, failure, backoff, presented.refused)
                if presented.waiter is not None and not may_be_spent(failure):
                    # Another process may have kept the intent beside its token for this one.
                    self.withdraw_intent(presented.view, before)
                if credential.adopted and not is_final:
                    # A renewal by another process does not answer the caller of adopt().
                    raise failure from failure.__cause__
                return
            except errors.StoreError:
                self._remember(before, credential, failure, backoff, presented.refused)
                self.stop_waiting(presented.waiter, is_unknown=may_be_spent(failure))
                raise failure from failure.__cause__
        if not is_final:
            raise failure

    def _failed_record(
        self, view: View, presented: Presented, failure: TokenError, backoff: Backoff | None
    ) -> Record:
        """The record after *failure*."""
        if backoff is None:
            credential = presented.credential
            return view.record.with_refusal(
                self._eligibility.digest(view.record, credential),
                credential.kind,
                self._slot.stamp(view),
                error=getattr(failure, "error", None),
                cause=_cause(failure),
            )
        if may_be_spent(failure):
            return view.record.with_unknown_outcome(backoff, presented.waiter)
        return view.record.with_intent_withdrawn(presented.found.record, backoff)

    def remember_failure(
        self,
        view: View,
        credential: Credential,
        failure: TokenError,
        refused: tuple[Credential, ...],
    ) -> None:
        """Remember in this process a failure, where there is no slot to save it in.

        :param refused: the credentials to which it is limited.
        """
        is_final = _is_final(failure, credential)
        backoff = None if is_final else self._new_backoff(view, failure, refused)
        self._remember(view.record, credential, failure, backoff, refused)

    def _remember(
        self,
        record: Record,
        credential: Credential,
        failure: TokenError,
        backoff: Backoff | None,
        refused: tuple[Credential, ...],
    ) -> None:
        """Remember in this process a failure that cannot be saved."""
        if backoff is None:
            self._eligibility.remember_refusal(record, credential, failure)
        else:
            self._eligibility.remember_backoff(record, backoff, refused)

    def _new_backoff(
        self, view: View, failure: TokenError, refused: tuple[Credential, ...]
    ) -> Backoff:
        """The pause after *failure*, which is limited to the credentials in *refused*, if any."""
        record, now = view.record, self._slot.stamp(view)
        step = self._eligibility.next_step(record)
        cause, error = _cause(failure), getattr(failure, "error", None)
        bound_to: str | None = None
        if refused or not isinstance(failure, errors.RefreshTemporarilyFailed):
            bound_to = self._eligibility.backoff_target(record, refused, now)
        if not isinstance(failure, errors.RefreshTemporarilyFailed):
            kind = "refused" if isinstance(failure, errors.ReauthRequired) else "config"
            return Backoff(now, _CONFIG_BACKOFF, step, bound_to, kind, error, cause)
        wall = self._runtime.wall()
        duration = policy.backoff_duration(step, self._runtime.random())
        if refused:
            # Another keeper could not renew a refused credential, and has a backoff of its own.
            retry_at = failure.retry_at
            left = _UNKNOWN_OUTAGE if retry_at is None else retry_at - wall
            duration = min(max(left, 1.0), _CONFIG_BACKOFF)
        elif failure.retry_after is not None:
            duration = min(max(failure.retry_after, 1.0), policy.RETRY_AFTER_LIMIT)
        if failure.processed is None and record.intent is not None:
            # A lost answer can still be obtained by a request that ends within the server's grace.
            spare = record.intent.first_sent + self._grant.grace - now - self._grant.deadline
            if spare > 0:
                duration = min(duration, spare / 2)
        failure.retry_at = wall + duration
        return Backoff(now, duration, step, bound_to, "temporary", error, cause)

    # --- nothing was sent ----------------------------------------------------------------

    def withdraw_intent(self, announced: View, before: Record) -> None:
        """Record that nothing was sent.

        If another process held the lock in the meantime, its changes stay, its intent included.
        """
        intent = announced.record.intent
        assert intent is not None
        try:
            self._slot.write(announced, before)
        except (errors.StoreError, Conflict):
            self.stop_waiting(intent.awaited[-1], is_unknown=False)

    def stop_waiting(self, waiter: Waiter | None, *, is_unknown: bool) -> None:
        """Record that this process no longer waits: now, or as soon as the store allows it.

        Until then other processes believe that it may still save a token.

        :param is_unknown: whether its request may have been processed.
        """
        if waiter is None:
            return
        self._ended[waiter] = is_unknown
        if not self._record_ended() and self._recorder != self._runtime.process():
            self._recorder = self._runtime.process()
            if not self._runtime.start(self._record_later):
                self._recorder = ""

    def _record_later(self) -> None:
        while not (self._runtime.exiting() or self._record_ended()):
            self._runtime.sleep(_LOOKS_AGAIN)
        self._recorder = ""

    def _record_ended(self) -> bool:
        """Whether the record says by now that the waits of this process are over."""
        with suppress(errors.TokenError, Conflict):
            ended, view = self._ended.copy(), self._slot.look()
            intent = view.record.intent
            for waiter, is_unknown in ended.items():
                if intent is not None and waiter in intent.awaited:
                    intent = intent.without(waiter, is_unknown=is_unknown)
            if intent != view.record.intent:
                self._slot.write(view, view.record._replace(intent=intent))
            for waiter in ended:
                self._ended.pop(waiter, None)
        return not self._ended


class _Retries:
    """The attempts to save one token.

    :param longest: the longest pause between two of them, in seconds.
    """

    def __init__(self, runtime: Runtime, journal: Journal, token: Token, longest: float) -> None:
        self._runtime = runtime
        self._longest = longest
        self._journal = journal
        self._token = token
        self._failed = 0
        self._last_try = inf

    def pause_after(self, error: Exception) -> float | None:
        """Seconds until the next attempt, after *error*; ``None`` if there is none."""
        self._failed += 1
        now = self._runtime.monotonic()
        if self._runtime.exiting():
            self._last_try = min(self._last_try, now + _SAVES_AT_EXIT)
        elif not self._runtime.is_helper():
            self._last_try = min(self._last_try, now + _SAVES_INLINE)
        is_lost = now > self._last_try
        if self._failed == 1 or is_lost:
            self._journal.emit(
                "SaveFailed", token=self._token.fingerprint, error=str(error), lost=is_lost
            )
        return None if is_lost else min(0.1 * 2.0 ** min(self._failed, 6), self._longest)


def _cause(failure: TokenError) -> str:
    """The text of *failure* for the record; a custom source may raise a text of any length."""
    return BaseException.__str__(failure)[:_LONGEST_CAUSE]  # without the advice for this program


def may_be_spent(failure: TokenError) -> bool:
    """Whether the server may have spent the credential."""
    return getattr(failure, "processed", False) is None


def _is_final(failure: TokenError, credential: Credential) -> bool:
    """Whether the server refused *credential* for good."""
    return isinstance(failure, errors.ReauthRequired) and credential.refusal_is_final
