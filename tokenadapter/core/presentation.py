"""Present one credential: write the intent, send the request, save the outcome.

The four outcomes (minted, refused, unprocessed, unknown) are explained in
:mod:`tokenadapter.core.record`.  The caller holds the lock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from tokenadapter.values import always

if TYPE_CHECKING:
    from contextvars import Context

    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import Answer, Credential, Grant, StoreLock
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["Presenter"]

# Seconds between the intent and the request, if the store is fast.
_SENDS_WITHIN: Final = 1.0
# Seconds by which the clocks of processes that read the intent may differ.
_CLOCK_SKEW: Final = 1.0
# Seconds to back off after the server refused the client or the requested scope.
_CONFIG_BACKOFF: Final = 60.0
# Seconds for which a caller, or an exiting interpreter, waits while a save keeps failing.
_SAVE_ATTEMPTS_FOR: Final = 5.0
# Characters of JSON.  Some stores could not save a larger token.
_LARGEST_TOKEN: Final = 1 << 18
# What a source of this library adds to the extras begins with this: without its client, a refresh
# token is worth nothing.
_OURS: Final = "tokenadapter_"
# Characters of the scope and the type of a token whose JSON is too large.
_LONGEST_FIELD: Final = 4096
# How often a withdrawal is tried while other processes write.
_WITHDRAWALS: Final = 3
# Characters of an error that are saved in the record.
_LONGEST_CAUSE: Final = 2000


class _Minted(NamedTuple):
    """A new token, and whether the server also issued a new refresh token."""

    token: Token
    rotated: bool


class Presenter:
    """Presents credentials of one grant for one slot."""

    def __init__(
        self, slot: Slot, grant: Grant, eligibility: Eligibility, runtime: Runtime, journal: Journal
    ) -> None:
        self._slot = slot
        self._grant = grant
        self._eligibility = eligibility
        self._runtime = runtime
        self._journal = journal

    def present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        previous: Token | None,
        serve_unsaved: Callable[[View], None],
        context: Context | None = None,
    ) -> View | None:
        """Present *credential* once and save the outcome.

        :param previous: the previous token, for the grant.
        :param serve_unsaved: lets this process use a new token that cannot be saved yet.
        :param context: the context in which to call the grant.
        :returns: the record with the new token, or ``None`` if the caller must read the slot again:
            the credential was refused, or another process wrote.
        :raises StoreError: if the intent cannot be written: nothing was sent.
        :raises TokenError: if there is no new token.
        """
        # Before anything is sent: looking up the configured refresh token may fail.
        if not credential.first and self._slot.began_otherwise(view.record):
            self._journal.emit_once("FirstTokenUnused", store=repr(self._slot.store))
        # Before the lock is confirmed: a listener may take its time.
        self._journal.count("RenewalStarted", presented=credential.kind)
        if not credential.single_use:
            return self._present(lock, view, credential, previous, serve_unsaved, context)
        # The key comes first: for it, the grant may have to read metadata, and both the wait for
        # this presentation and the intent last for a limited time.
        key = self._new_key(previous)
        with self._runtime.presenting(self._grant.deadline) as may_begin:
            if not may_begin:
                raise messages.process_ending()
            return self._present(lock, view, credential, previous, serve_unsaved, context, key)

    def _present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        previous: Token | None,
        serve_unsaved: Callable[[View], None],
        context: Context | None,
        key: str | None = None,
    ) -> View | None:
        found, waiter, sent = view, None, credential
        before = view.record
        if credential.single_use:
            waiter = self._new_waiter(view)
            announced = self._write_intent(lock, view, credential, waiter, key)
            if announced is None:
                return None
            view, intent = announced, announced.record.intent
            sent = credential._replace(
                may_be_sent=self._may_be_sent(lock, view), key=intent and intent.key
            )
        elif not lock.confirm():
            return None
        started = self._runtime.monotonic()
        answer = self._fetch(view, sent, previous, context)
        if waiter is not None:
            self._eligibility.end_wait(waiter)
        if not isinstance(answer, _Minted):
            if getattr(answer, "processed", None) is False and not sent.may_be_sent():
                self._withdraw_intent(view, before)
                return None
            if _is_local(answer):
                if waiter is not None:
                    self._end_wait(view, before, answer, waiter)
                raise answer
            self._record_failure(lock, view, before, credential, answer, waiter)
            return None
        self._eligibility.clear_failures()
        self._compare_scope(answer.token)
        saved = self._save(lock, view, found, answer, credential, waiter, serve_unsaved)
        if saved is not None:
            self._journal.count(
                "Renewed",
                token=answer.token.fingerprint,
                presented=credential.kind,
                seconds=self._runtime.monotonic() - started,
            )
        elif credential.adopted:
            raise messages.already_spent(self._slot.store)
        return saved

    def present_without_store(self, trouble: Exception) -> View | None:
        """Obtain a token for this process alone while the store fails.

        Only credentials that cannot be spent are presented.

        :param trouble: the error that the store raised.
        :returns: a view without a slot, or ``None`` if every credential may be spent.
        :raises TokenError: if there is no new token.
        """
        credential = self._eligibility.harmless_credential()
        if credential is None:
            return None
        self._journal.emit_once("StoreFailed", error=str(trouble))
        view = self._slot.empty_view()
        self._eligibility.raise_if_backing_off(view.record, view.read_at)
        answer = self._fetch(view, credential, None)
        if not isinstance(answer, _Minted):
            if not _is_local(answer):
                backoff = None if _is_final(answer, credential) else self._new_backoff(view, answer)
                self._remember_failure(view.record, credential, answer, backoff)
            raise answer
        self._eligibility.clear_failures()
        self._compare_scope(answer.token)
        record = view.record.with_new_token(answer.token, self._grant.requested, view.read_at)
        return view._replace(record=record)

    def fit_for_record(self, token: Token) -> Token:
        """*token* without fields that would make it impossible to save."""
        if _fits(token):
            return token
        self._journal.emit("ExtrasDropped", token=token.fingerprint)
        small = token.replace(
            extras={name: value for name, value in token.extras.items() if name.startswith(_OURS)},
            scope=token.scope and token.scope[:_LONGEST_FIELD],
            token_type=token.token_type[:_LONGEST_FIELD],
        )
        return small if _fits(small) else small.replace(extras=None)

    def _compare_scope(self, token: Token) -> None:
        """Log once if the server granted less than the requested scope."""
        # A response without a scope grants everything (RFC 6749 section 5.1).
        granted = (token.scope or "").replace(",", " ").split()
        missing = set(self._grant.requested.get("scope", "").split()).difference(granted)
        if granted and missing:
            self._journal.emit_once("ScopeNarrowed", missing=" ".join(sorted(missing)))

    def _new_waiter(self, view: View) -> Waiter:
        """This process, as the one that is about to wait for an answer."""
        waits = _sending_time(view) + self._grant.deadline + _CLOCK_SKEW
        return Waiter(self._runtime.process(), self._slot.now(view) + waits)

    def _write_intent(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        waiter: Waiter,
        key: str | None,
    ) -> View | None:
        """Write the intent, and prepare the save that follows the request.

        :param key: a new key to bind tokens to.
        :returns: ``None`` if the lock was lost, or if this took so long that other processes may
            no longer respect the intent.
        :raises StoreError: if the intent cannot be written, or the save cannot be prepared.
        """
        before = view.record
        presented = self._eligibility.digest(before, credential)
        intent = before.with_intent(presented, self._slot.stamp(view), waiter, key)
        announced = self._slot.write(view, intent)
        is_ready = False
        try:
            self._slot.store.prepare()
            # The last step before the request is sent.
            is_ready = (
                lock.confirm()
                and (self._slot.lock_ends_with_holder or self._is_in_time(view, waiter))
                and self._may_be_sent(lock, announced)()
            )
        finally:
            if not is_ready:
                # Nothing is sent, so undo the intent.
                self._eligibility.end_wait(waiter)
                self._withdraw_intent(announced, before)
        return announced if is_ready else None

    def _new_key(self, previous: Token | None) -> str | None:
        """The key that the server is about to bind tokens to, if the record has none yet.

        It is saved before it is used: if the answer gets lost, another process may have to present
        the credential again, with the same key.

        :raises TokenError: if no key can be made.
        """
        new_key: Callable[[Token | None], str | None] | None = getattr(self._grant, "new_key", None)
        if new_key is None or (previous is not None and previous.key is not None):
            return None
        try:
            return new_key(previous)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            failure = self._as_failure(error)
        raise failure from failure.__cause__

    def _is_in_time(self, view: View, waiter: Waiter) -> bool:
        """Whether other processes respect the intent for as long as the answer may take."""
        return self._slot.now(view) < waiter.until - self._grant.deadline - _CLOCK_SKEW

    def _may_be_sent(self, lock: StoreLock, view: View) -> Callable[[], bool]:
        """The check to make right before the request is sent.

        Connecting takes time, so the lock may have been lost since it was confirmed.  Within a
        declared grace, the next holder of the lock does not wait for the answers of earlier
        holders.  So only the holder may send a request.  Without a grace, the next holder waits for
        longer than the deadline of a request.
        """
        if self._slot.lock_ends_with_holder or not self._grant.grace:
            return always
        is_certain: Callable[[], bool] = getattr(lock, "is_certain", always)
        is_alone = len(self._eligibility.pending_waiters(view)) <= 1
        return lambda: is_certain() and (is_alone or self._eligibility.grace_left(view) > 0)

    def _withdraw_intent(self, announced: View, before: Record) -> None:
        """Record that nothing was sent.

        If another process held the lock in the meantime, its changes stay, its intent included.
        """
        view, record, mine = announced, before, announced.record.intent
        with suppress(errors.StoreError):
            for _ in range(_WITHDRAWALS):
                try:
                    self._slot.write(view, record)
                except Conflict as conflict:
                    view = conflict.view
                    found = view.record.intent
                    if found is None or mine is None or mine.awaited[-1] not in found.awaited:
                        return
                    left = before.intent if found == mine else found.without(mine.awaited[-1])
                    record = view.record._replace(intent=left)
                else:
                    return

    def _try_to_write(self, view: View, record: Record) -> None:
        with suppress(errors.StoreError, Conflict):
            self._slot.write(view, record)

    def _fetch(
        self,
        view: View,
        credential: Credential,
        previous: Token | None,
        context: Context | None = None,
    ) -> _Minted | TokenError:
        """Present *credential*, and return the new token or the error."""
        sent_at, wall = self._slot.stamp(view), self._runtime.wall()
        intent = view.record.intent
        if credential.single_use and intent is not None:
            # The answer may be the token of the first presentation, which is older than its
            # expires_in says.
            sent_at = min(sent_at, intent.first_sent)
        try:
            if context is None:
                answer = self._grant.fetch(credential, previous)
            else:
                answer = context.run(self._grant.fetch, credential, previous)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            return self._as_failure(error)
        try:
            minted = _as_token(answer, credential, sent_at, wall)
            return minted._replace(token=self.fit_for_record(minted.token))
        except (TypeError, ValueError) as error:
            return messages.source_returned(error)

    def _as_failure(self, error: Exception) -> TokenError:
        """What *error*, which the grant raised, means."""
        if isinstance(error, _known_errors()):
            return error
        self._journal.trace("the token source raised", error)
        failure = messages.source_raised(error)
        failure.__cause__ = error
        return failure

    def _save(
        self,
        lock: StoreLock,
        view: View,
        found: View,
        minted: _Minted,
        credential: Credential,
        waiter: Waiter | None,
        serve_unsaved: Callable[[View], None],
    ) -> View | None:
        """Save the token.  If a refresh token was spent for it, retry until the save succeeds.

        :param found: the content of the slot before the intent.
        """
        before = found.record
        is_spent = minted.rotated and (credential.single_use or credential.opaque)
        spent = spent_hash(credential.secret) if is_spent else None
        # The configuration, a function or another call of adopt() may provide it again.
        for_good = credential.first or credential.opaque or spent == before.origin
        begins = before.token is None or before.token.refresh_token != credential.secret
        origin: str | None = None
        seeds: tuple[str, ...] = ()
        if begins and credential.first:
            origin, seeds = spent_hash(credential.secret), self._slot.seeds(found)
        tag, attempts, last_try = self._slot.new_tag(view), 0, inf
        # Even if the save is late, tokens that other processes obtained meanwhile are newer.
        obtained = self._slot.stamp(view)
        while True:
            record = view.record.with_new_token(
                minted.token,
                self._grant.requested,
                obtained,
                spent if for_good else None,
                intent=None if minted.rotated else self._remaining_intent(view, credential),
                begins=begins,
                origin=origin,
                seeds=seeds,
            )
            try:
                view = self._slot.write(view, record, tag)
            except Conflict as conflict:
                view = conflict.view
                if minted.token.is_same(view.record.token):
                    break  # it was saved, the answer was lost, and another process added to it
                # The lock lapsed.
                if not self._is_worth_saving(view, found, credential, minted):
                    self._remember_spent(spent, for_good)
                    intent = view.record.intent
                    if waiter is not None and intent is not None and waiter in intent.awaited:
                        # Other processes kept the intent beside their token for us.
                        record = view.record.with_unknown_outcome(view.record.backoff, waiter)
                        if not minted.rotated:  # then this answer spent nothing
                            left = self._remaining_intent(view, credential)
                            record = record._replace(intent=left)
                        self._try_to_write(view, record)
                    return None
                tag = self._slot.new_tag(view)
            except Exception as error:  # noqa: BLE001 - no error may lose a token that cost one
                attempts += 1
                unsaved = view._replace(record=record)
                if not (credential.single_use or is_spent):
                    self._journal.emit_once("StoreFailed", error=str(error))
                    return unsaved
                if self._runtime.exiting() or not self._runtime.is_helper():
                    last_try = min(last_try, self._runtime.monotonic() + _SAVE_ATTEMPTS_FOR)
                is_lost = self._runtime.monotonic() > last_try
                if attempts == 1 or is_lost:
                    self._journal.emit(
                        "SaveFailed",
                        token=minted.token.fingerprint,
                        error=str(error),
                        lost=is_lost,
                    )
                if is_lost:
                    return unsaved
                serve_unsaved(unsaved)
                self._runtime.sleep(min(0.1 * 2.0 ** min(attempts, 6), 5.0))
                # Keeps a lease alive while the save is retried.
                lock.confirm()
            else:
                break
        self._remember_spent(spent, for_good)
        return view

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

    def _is_worth_saving(
        self, view: View, found: View, credential: Credential, minted: _Minted
    ) -> bool:
        """Whether the new token may replace the content of a slot that was written since
        *found*."""
        token, before = view.record.token, found.record
        if minted.rotated and token is not None and token.refresh_token == credential.secret:
            return True  # a server that rotates only sometimes has spent the stored refresh token
        if credential.adopted:
            # Other processes renewed another grant.  A login or logout must not be undone.  The
            # record of a slot that was emptied is the last one that this process remembers.
            since = max(before.begun, found.read_at) if view.was_reset else before.begun
            return view.record.begun <= since
        return self._is_unrenewed(view, before, credential)

    def _is_unrenewed(self, view: View, before: Record, credential: Credential) -> bool:
        """Whether no other process has renewed, in a slot that was written meanwhile."""
        record = view.record
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

    def _end_wait(self, view: View, before: Record, failure: TokenError, waiter: Waiter) -> None:
        """Record that *waiter* no longer waits, without a backoff: a failure of this program must
        not keep other processes from trying."""
        if _is_unknown(failure):
            # A bug may show before or after the request is sent.
            self._try_to_write(view, view.record.with_unknown_outcome(before.backoff, waiter))
        else:
            self._withdraw_intent(view, before)

    def _record_failure(
        self,
        lock: StoreLock,
        view: View,
        before: Record,
        credential: Credential,
        failure: TokenError,
        waiter: Waiter | None,
    ) -> None:
        """Save the failure for all processes that share the store.

        :raises TokenError: *failure*, unless it is a refusal: another credential may be left.
        """
        is_final = _is_final(failure, credential)
        while True:
            # Computed for each view, which may be of another record, with its own salt.
            backoff = None if is_final else self._new_backoff(view, failure)
            try:
                failed = self._failed_record(view, before, credential, failure, backoff, waiter)
                self._slot.write(view, failed)
                break
            except Conflict as moved:
                # After the loss of the lock, leave the record to its holder.
                view = moved.view
                if lock.confirm() and self._is_unrenewed(view, before, credential):
                    continue
                # A backoff applies to this process while the token stays; a refusal always.
                self._remember_failure(
                    before if backoff else view.record, credential, failure, backoff
                )
                if credential.adopted and not is_final:
                    # A renewal by another process does not answer the caller of adopt().
                    raise failure from failure.__cause__
                return
            except errors.StoreError:
                self._remember_failure(before, credential, failure, backoff)
                raise failure from failure.__cause__
        if not is_final:
            raise failure

    def _failed_record(
        self,
        view: View,
        before: Record,
        credential: Credential,
        failure: TokenError,
        backoff: Backoff | None,
        waiter: Waiter | None,
    ) -> Record:
        """The record after *failure*."""
        if backoff is None:
            return view.record.with_refusal(
                self._eligibility.digest(view.record, credential),
                credential.kind,
                self._slot.stamp(view),
                error=getattr(failure, "error", None),
                cause=_cause(failure),
            )
        if _is_unknown(failure):
            return view.record.with_unknown_outcome(backoff, waiter)
        return view.record.with_intent_withdrawn(before, backoff)

    def _remember_failure(
        self, record: Record, credential: Credential, failure: TokenError, backoff: Backoff | None
    ) -> None:
        """Remember in this process a failure that cannot be saved."""
        if backoff is None:
            self._eligibility.remember_refusal(record, credential, failure)
        else:
            self._eligibility.remember_backoff(record, backoff)

    def _new_backoff(self, view: View, failure: TokenError) -> Backoff:
        record, now = view.record, self._slot.stamp(view)
        step = self._eligibility.next_step(record)
        cause, error = _cause(failure), getattr(failure, "error", None)
        if not isinstance(failure, errors.RefreshTemporarilyFailed):
            kind = "refused" if isinstance(failure, errors.ReauthRequired) else "config"
            return Backoff(
                now,
                _CONFIG_BACKOFF,
                step,
                self._eligibility.client_hash(record),
                kind,
                error,
                cause,
            )
        duration = policy.backoff_duration(step, self._runtime.random())
        if failure.retry_after is not None:
            duration = min(max(failure.retry_after, 1.0), policy.RETRY_AFTER_LIMIT)
        if failure.processed is None and record.intent is not None:
            # Within the server's grace period, a lost answer can still be obtained.
            grace_left = record.intent.first_sent + self._grant.grace - now
            if grace_left > 1:
                duration = min(duration, grace_left / 2)
        failure.retry_at = self._runtime.wall() + duration
        return Backoff(now, duration, step, None, "temporary", error, cause)


def _fits(token: Token) -> bool:
    """Whether every store can save *token*."""
    try:
        return len(json.dumps(token.to_dict(), indent=2)) <= _LARGEST_TOKEN
    except (TypeError, ValueError, RecursionError):
        return False  # not JSON, or nested too deeply


def _known_errors() -> tuple[type[TokenError], ...]:
    """The errors by which a source reports the outcome of its request."""
    return errors.ReauthRequired, errors.RefreshConfigError, errors.RefreshTemporarilyFailed


def _cause(failure: TokenError) -> str:
    """The text of *failure* for the record; a custom source may raise a text of any length."""
    return str(failure)[:_LONGEST_CAUSE]


def _sending_time(view: View) -> float:
    """Seconds between intent and request.  A store that is slow to read is slow to write."""
    return _SENDS_WITHIN + 4 * view.took


def _is_local(failure: TokenError) -> bool:
    """Whether this program or its configuration caused *failure*."""
    return isinstance(failure, errors.RefreshConfigError) and failure.is_local


def _is_unknown(failure: TokenError) -> bool:
    """Whether the server may have spent the credential."""
    return getattr(failure, "processed", False) is None


def _is_final(failure: TokenError, credential: Credential) -> bool:
    """Whether the server refused *credential* for good."""
    return isinstance(failure, errors.ReauthRequired) and credential.refusal_is_final


def _as_token(answer: Answer, credential: Credential, sent_at: float, wall: float) -> _Minted:
    """The answer as a token, with times by the store's clock.

    :param sent_at: when the request was about to be sent, by the store's clock.
    :param wall: the same moment by the clock of this machine.
    """
    if isinstance(answer, str):
        answer = Token(answer, issued_at=wall)
    elif isinstance(answer, Mapping):
        answer = Token.from_dict(answer, now=wall)
    elif not isinstance(answer, Token):
        raise TypeError(f"it returned {type(answer).__name__}")
    left = inf if answer.lifetime is None else answer.lifetime
    # A function may return a token that it obtained a while ago.
    left -= max(wall - answer.issued_at, 0.0)
    token = answer.replace(issued_at=sent_at, expires_at=None if left == inf else sent_at + left)
    presented = credential.secret if credential.kind == "refresh_token" else None
    rotated = token.refresh_token is not None and token.refresh_token != presented
    if token.refresh_token is None and presented is not None:
        # Without a new refresh token, the old one stays valid (RFC 6749 section 6).
        token = token.replace(refresh_token=presented)
    return _Minted(token, rotated)
