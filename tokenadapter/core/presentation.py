"""One presentation of one credential: announced, sent, and its outcome saved.

It ends in one of four ways, which :mod:`tokenadapter.core.record` explains: minted, refused,
unprocessed or unknown.  The caller holds the lock.
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
    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import Answer, Credential, Grant, StoreLock
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["Presenter"]

# Seconds within which a request follows its announcement, if the store is quick, ...
_SENDING: Final = 1.0
# ... and by which the clocks of those who read the announcement may differ.
_CLOCKS: Final = 1.0
# Seconds for which nobody asks again as a client, or for a scope, that was refused.
_CONFIG_HOLD: Final = 60.0
# Seconds for which a caller, or an interpreter that exits, is kept waiting for a save that fails.
_LAST_TRIES: Final = 5.0
# Characters of JSON: a token that takes more could not be saved to every store.
_LARGEST_TOKEN: Final = 1 << 18
# Characters of what else a server says of a token, if all of it is too large.
_LONGEST_TEXT: Final = 4096
# Characters of an error that are written down.
_LONGEST_CAUSE: Final = 2000


class _Minted(NamedTuple):
    """A token from an answer, and whether a new refresh token came with it."""

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
    ) -> View | None:
        """Present *credential* once and save what comes of it.

        :param previous: the token that the grant is told of as the one before.
        :param serve_unsaved: lets this process use a new token that cannot be saved yet.
        :returns: the record with the new token, or ``None`` if the slot has to be looked at
            again: the credential was refused, or somebody else wrote.
        :raises StoreError: if what must be written beforehand cannot be: nothing was sent.
        :raises TokenError: if there is no new token.
        """
        # Before anything is sent: looking up the configured refresh token may fail.
        if not credential.first and self._slot.began_otherwise(view.record):
            self._journal.emit_once("FirstTokenUnused", store=repr(self._slot.store))
        if not credential.single_use:
            return self._present(lock, view, credential, previous, serve_unsaved)
        with self._runtime.presenting(self._grant.deadline) as may_begin:
            if not may_begin:
                raise messages.ending()
            return self._present(lock, view, credential, previous, serve_unsaved)

    def _present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        previous: Token | None,
        serve_unsaved: Callable[[View], None],
    ) -> View | None:
        found, waiter, sent = view, None, credential
        before = view.record
        if credential.single_use:
            waiter = self._waiter(view)
            announced = self._announce(lock, view, credential, waiter)
            if announced is None:
                return None
            view = announced
            sent = credential._replace(may_be_sent=self._may_be_sent(lock, view))
        elif not lock.confirm():
            return None
        self._journal.count("RenewalStarted", presented=credential.kind)
        started = self._runtime.monotonic()
        answer = self._ask(view, sent, previous)
        if waiter is not None:
            self._eligibility.awaits_no_more(waiter)
        if not isinstance(answer, _Minted):
            if getattr(answer, "processed", None) is False and not sent.may_be_sent():
                self._withdraw(view, before)
                return None
            if _is_local(answer):
                if waiter is not None:
                    self._end_intent(view, before, answer, waiter)
                raise answer
            self._tell_all(lock, view, before, credential, answer, waiter)
            return None
        self._eligibility.begin_anew()
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
            raise messages.spent_before(self._slot.store)
        return saved

    def present_alone(self, trouble: Exception) -> View | None:
        """Obtain a token for this process alone, by what spends nothing, since the store fails.

        :param trouble: what the store raised.
        :returns: a view of no slot, or ``None`` if everything that could be presented may be
            spent by it.
        :raises TokenError: if there is no new token.
        """
        credential = self._eligibility.credential_that_spends_nothing()
        if credential is None:
            return None
        self._journal.emit_once("StoreFailed", error=str(trouble))
        view = self._slot.nowhere()
        self._eligibility.raise_if_backing_off(view.record, view.read_at)
        answer = self._ask(view, credential, None)
        if not isinstance(answer, _Minted):
            if not _is_local(answer):
                backoff = None if _is_final(answer, credential) else self._backoff(view, answer)
                self._keep(view.record, credential, answer, backoff)
            raise answer
        self._eligibility.begin_anew()
        self._compare_scope(answer.token)
        record = view.record.minted(answer.token, self._grant.requested, view.read_at)
        return view._replace(record=record)

    def storable(self, token: Token) -> Token:
        """*token* as a record can hold it: what came with it must not keep it from being saved."""
        try:
            if len(json.dumps(token.to_dict(), indent=2)) <= _LARGEST_TOKEN:
                return token
        except (TypeError, ValueError, RecursionError):
            pass  # no JSON, or nested too deeply
        self._journal.emit("ExtrasDropped", token=token.fingerprint)
        return token.replace(
            extras=None,
            scope=token.scope and token.scope[:_LONGEST_TEXT],
            token_type=token.token_type[:_LONGEST_TEXT],
        )

    def _compare_scope(self, token: Token) -> None:
        """Say so if less was granted than was asked for."""
        # Without a scope in the answer, all was granted (RFC 6749 section 5.1).
        granted = (token.scope or "").replace(",", " ").split()
        missing = set(self._grant.requested.get("scope", "").split()).difference(granted)
        if granted and missing:
            self._journal.emit_once("ScopeNarrowed", missing=" ".join(sorted(missing)))

    def _waiter(self, view: View) -> Waiter:
        """This process, which is about to await an answer."""
        waits = _sending(view) + self._grant.deadline + _CLOCKS
        return Waiter(self._runtime.process(), self._slot.now(view) + waits)

    def _announce(
        self, lock: StoreLock, view: View, credential: Credential, waiter: Waiter
    ) -> View | None:
        """Write the intent, and make sure that nothing stands in the way of the save after it.

        :returns: ``None`` if the lock was lost meanwhile, or it took too long: others believe the
            announcement for a while only.
        :raises StoreError: if something stands in the way.
        """
        before = view.record
        key = self._eligibility.digest(before, credential)
        intent = before.presenting(key, self._slot.stamp(view), waiter)
        announced = self._slot.write(view, intent)
        is_ready = False
        try:
            self._slot.store.prepare()
            # The last thing before the request is sent.
            is_ready = (
                lock.confirm()
                and (self._slot.lock_ends_with_holder or self._is_in_time(view, waiter))
                and self._may_be_sent(lock, announced)()
            )
        finally:
            if not is_ready:
                # Nothing is sent: let it be as if nothing had been announced.
                self._eligibility.awaits_no_more(waiter)
                self._withdraw(announced, before)
        return announced if is_ready else None

    def _is_in_time(self, view: View, waiter: Waiter) -> bool:
        """Whether *waiter* is believed for as long as the answer may take from now on."""
        return self._slot.now(view) < waiter.until - self._grant.deadline - _CLOCKS

    def _may_be_sent(self, lock: StoreLock, view: View) -> Callable[[], bool]:
        """What to ask in the last moment before the request is sent, which may be some time after
        the lock was confirmed: it takes time to connect.

        While a declared grace lasts, the next holder of the lock does not wait for the answers that
        others await: so a request is sent by the holder, or not at all.  Otherwise the next holder
        waits for longer than the deadline of a request.
        """
        if self._slot.lock_ends_with_holder or not self._grant.grace:
            return always
        is_certain: Callable[[], bool] = getattr(lock, "is_certain", always)
        is_alone = len(self._eligibility.waiters(view)) <= 1
        return lambda: is_certain() and (is_alone or self._eligibility.grace_left(view) > 0)

    def _withdraw(self, announced: View, before: Record) -> None:
        """Write down that nothing was sent after all.

        If another process that had the lock meanwhile changed something else, its change stays.
        """
        view, record = announced, before
        with suppress(errors.StoreError):
            while True:
                try:
                    self._slot.write(view, record)
                except Conflict as moved:
                    view = moved.view
                    if view.record.intent != announced.record.intent:
                        return
                    record = view.record._replace(intent=before.intent)
                else:
                    return

    def _try_to_write(self, view: View, record: Record) -> None:
        with suppress(errors.StoreError, Conflict):
            self._slot.write(view, record)

    def _ask(
        self, view: View, credential: Credential, previous: Token | None
    ) -> _Minted | TokenError:
        """Present *credential*, and understand what comes of it."""
        sent_at, wall = self._slot.stamp(view), self._runtime.wall()
        intent = view.record.intent
        if credential.single_use and intent is not None:
            # Presented again, it may be answered with the token of the first time, which is older
            # than its expires_in says.
            sent_at = min(sent_at, intent.first_sent)
        try:
            answer = self._grant.fetch(credential, previous)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            if isinstance(error, _known_errors()):
                return error
            self._journal.trace("the token source raised", error)
            failure = messages.source_raised(error)
            failure.__cause__ = error
            return failure
        try:
            minted = _completed(answer, credential, sent_at, wall)
            return minted._replace(token=self.storable(minted.token))
        except (TypeError, ValueError) as error:
            return messages.source_returned(error)

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
        """Save the token, whatever it takes if a refresh token was spent for it.

        :param found: what was in the slot before the announcement.
        """
        before = found.record
        is_spent = minted.rotated and (credential.single_use or credential.opaque)
        note = spent_hash(credential.secret) if is_spent else None
        # It may be shown to us again: by the configuration, a function, or who adopts it once more.
        for_good = credential.first or credential.opaque or note == before.origin
        begins = before.token is None or before.token.refresh_token != credential.secret
        origin: str | None = None
        seeds: tuple[str, ...] = ()
        if begins and credential.first:
            origin, seeds = spent_hash(credential.secret), self._slot.seeds(found)
        tag, attempts, last_try = self._slot.new_tag(view), 0, inf
        # However late it is saved: what others obtained meanwhile is newer.
        obtained = self._slot.stamp(view)
        while True:
            record = view.record.minted(
                minted.token,
                self._grant.requested,
                obtained,
                note if for_good else None,
                intent=None if minted.rotated else self._left(view, credential),
                begins=begins,
                origin=origin,
                seeds=seeds,
            )
            try:
                view = self._slot.write(view, record, tag)
            except Conflict as moved:
                view = moved.view
                if minted.token.is_same(view.record.token):
                    break  # it was written, the answer got lost, and somebody has added to it
                # The lock had lapsed.
                if not self._still_counts(view, before, credential, minted):
                    self._note(note, for_good)
                    intent = view.record.intent
                    if waiter is not None and intent is not None and waiter in intent.awaited:
                        # Others kept the intent beside their token for us alone.
                        self._try_to_write(view, view.record.unknown(view.record.backoff, waiter))
                    return None
                tag = self._slot.new_tag(view)
            except Exception as error:  # noqa: BLE001 - a spent token is lost by nothing
                attempts += 1
                unsaved = view._replace(record=record)
                if not (credential.single_use or is_spent):
                    self._journal.emit_once("StoreFailed", error=str(error))
                    return unsaved
                if self._runtime.exiting() or not self._runtime.is_helper():
                    last_try = min(last_try, self._runtime.monotonic() + _LAST_TRIES)
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
                # A lease is kept alive for as long as this goes on.
                lock.confirm()
            else:
                break
        self._note(note, for_good)
        return view

    def _left(self, view: View, credential: Credential) -> Intent | None:
        """What is left of the intent when this process has an answer, and *credential* is still
        good.

        Another that had the lock later, or earlier, may await an answer, too: by that, the server
        may spend it yet.
        """
        intent, mine = view.record.intent, self._runtime.process()
        if not credential.single_use or intent is None or self._slot.lock_ends_with_holder:
            return None
        others = tuple(one for one in self._eligibility.waiters(view) if one.process != mine)
        if not others or intent.credential != self._eligibility.digest(view.record, credential):
            return None
        return intent._replace(attempt=len(others), awaited=others)

    def _note(self, note: str | None, for_good: bool) -> None:
        """Remember what was spent, if anything was, for when the record is lost."""
        try:
            if note is not None:
                self._slot.store.remember_spent(note, for_good=for_good)
        except errors.StoreError as error:
            self._journal.emit_once("StoreFailed", error=str(error))

    def _still_counts(
        self, view: View, before: Record, credential: Credential, minted: _Minted
    ) -> bool:
        """Whether an answer is worth something in a slot that was written meanwhile."""
        token = view.record.token
        if minted.rotated and token is not None and token.refresh_token == credential.secret:
            return True  # a server that rotates now and then has spent what is there
        if credential.adopted:
            # What others have renewed is of another grant; a login or a logout is not undone.
            return view.record.begun <= before.begun
        return self._is_still_ours(view, before, credential)

    def _is_still_ours(self, view: View, before: Record, credential: Credential) -> bool:
        """Whether nobody has renewed since we began, in a slot that was written meanwhile."""
        record = view.record
        if view.tag is None:
            return True  # it was emptied
        if record.token is not None and not record.token.is_same(before.token):
            return False  # also if that has the same refresh token, from a server that keeps it
        if not credential.single_use:
            return True
        if record.intent is not None:
            key = self._eligibility.digest(record, credential)
            if record.intent.credential != key:
                # Another one is presented, by somebody who hands it in or since ours was refused.
                if record.tombstone(key) is not None:
                    return False
                if record.token is None:
                    return before.token is None
                return record.token.refresh_token == credential.secret
            return True
        return record.token is not None or before.token is None

    def _end_intent(self, view: View, before: Record, failure: TokenError, waiter: Waiter) -> None:
        """Write down that *waiter* awaits no answer any more, and no hold: a failure of this
        program keeps nobody from trying again."""
        if _is_unknown(failure):
            # Of a mistake in code nobody knows whether the request was sent before.
            self._try_to_write(view, view.record.unknown(before.backoff, waiter))
        else:
            self._withdraw(view, before)

    def _tell_all(
        self,
        lock: StoreLock,
        view: View,
        before: Record,
        credential: Credential,
        failure: TokenError,
        waiter: Waiter | None,
    ) -> None:
        """Write down why there is no new token, for all who share the store.

        :raises TokenError: *failure*, unless it was a refusal: then another credential may be left.
        """
        is_final = _is_final(failure, credential)
        while True:
            # Anew for each view: it may be of another record, with a salt of its own.
            backoff = None if is_final else self._backoff(view, failure)
            try:
                failed = self._failed(view, before, credential, failure, backoff, waiter)
                self._slot.write(view, failed)
                break
            except Conflict as moved:
                # Who has lost the lock leaves the record to those who have it.
                view = moved.view
                if lock.confirm() and self._is_still_ours(view, before, credential):
                    continue
                # A hold binds us as long as the token that we saw is there, a refusal in any case.
                self._keep(before if backoff else view.record, credential, failure, backoff)
                if credential.adopted and not is_final:
                    # What others have renewed meanwhile is no answer to whoever adopts this.
                    raise failure from failure.__cause__
                return
            except errors.StoreError:
                self._keep(before, credential, failure, backoff)
                raise failure from failure.__cause__
        if not is_final:
            raise failure

    def _failed(
        self,
        view: View,
        before: Record,
        credential: Credential,
        failure: TokenError,
        backoff: Backoff | None,
        waiter: Waiter | None,
    ) -> Record:
        """What becomes of the record."""
        if backoff is None:
            return view.record.refused(
                self._eligibility.digest(view.record, credential),
                credential.kind,
                self._slot.stamp(view),
                error=getattr(failure, "error", None),
                cause=_cause(failure),
            )
        if _is_unknown(failure):
            return view.record.unknown(backoff, waiter)
        return view.record.unprocessed(before, backoff)

    def _keep(
        self, record: Record, credential: Credential, failure: TokenError, backoff: Backoff | None
    ) -> None:
        """Remember in this process a failure that cannot be written down."""
        if backoff is None:
            self._eligibility.refuse_alone(record, credential, failure)
        else:
            self._eligibility.back_off_alone(record, backoff)

    def _backoff(self, view: View, failure: TokenError) -> Backoff:
        record, now = view.record, self._slot.stamp(view)
        step = self._eligibility.step_after(record)
        cause, error = _cause(failure), getattr(failure, "error", None)
        if not isinstance(failure, errors.RefreshTemporarilyFailed):
            kind = "refused" if isinstance(failure, errors.ReauthRequired) else "config"
            return Backoff(
                now, _CONFIG_HOLD, step, self._eligibility.client(record), kind, error, cause
            )
        duration = policy.backoff_duration(step, self._runtime.random())
        if failure.retry_after is not None:
            duration = min(max(failure.retry_after, 1.0), policy.RETRY_AFTER_LIMIT)
        if failure.processed is None and record.intent is not None:
            # Within the server's grace period, the answer that may be lost can still be had.
            grace_left = record.intent.first_sent + self._grant.grace - now
            if grace_left > 1:
                duration = min(duration, grace_left / 2)
        failure.retry_at = self._runtime.wall() + duration
        return Backoff(now, duration, step, None, "temporary", error, cause)


def _known_errors() -> tuple[type[TokenError], ...]:
    """What a source raises to tell what became of its request."""
    return errors.ReauthRequired, errors.RefreshConfigError, errors.RefreshTemporarilyFailed


def _cause(failure: TokenError) -> str:
    """What is written down of a failure, which a source of the program may tell at any length."""
    return str(failure)[:_LONGEST_CAUSE]


def _sending(view: View) -> float:
    """Seconds within which a request follows its announcement: a store that is slow to tell what it
    holds is slow to write, too."""
    return _SENDING + 4 * view.took


def _is_local(failure: TokenError) -> bool:
    """Whether *failure* is one of this program or its configuration."""
    return isinstance(failure, errors.RefreshConfigError) and failure.is_local


def _is_unknown(failure: TokenError) -> bool:
    """Whether the server may have spent what was presented."""
    return getattr(failure, "processed", False) is None


def _is_final(failure: TokenError, credential: Credential) -> bool:
    """Whether the server refused *credential* for good."""
    return isinstance(failure, errors.ReauthRequired) and credential.refusal_is_final


def _completed(answer: Answer, credential: Credential, sent_at: float, wall: float) -> _Minted:
    """The answer as a token in the store's time.

    :param sent_at: when the request was about to be sent, by the store's clock.
    :param wall: the same moment by ours.
    """
    if isinstance(answer, str):
        answer = Token(answer, issued_at=wall)
    elif isinstance(answer, Mapping):
        answer = Token.from_dict(answer, now=wall)
    elif not isinstance(answer, Token):
        raise TypeError(f"it returned {type(answer).__name__}")
    left = inf if answer.lifetime is None else answer.lifetime
    # A function may hand out a token that it obtained a while ago.
    left -= max(wall - answer.issued_at, 0.0)
    token = answer.replace(issued_at=sent_at, expires_at=None if left == inf else sent_at + left)
    presented = credential.secret if credential.kind == "refresh_token" else None
    rotated = token.refresh_token is not None and token.refresh_token != presented
    if token.refresh_token is None and presented is not None:
        # No new one means: go on with the old one (RFC 6749 section 6).
        token = token.replace(refresh_token=presented)
    return _Minted(token, rotated)
