"""Present one credential: write the intent, send the request, have the outcome saved.

The four outcomes (minted, refused, unprocessed, unknown) are explained in
:mod:`tokenadapter.core.record`.  The caller holds the lock.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.journal import Journal
from tokenadapter.core.record import Waiter
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.saving import Minted, Presented, Saver, may_be_spent
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import never

if TYPE_CHECKING:
    from contextvars import Context

    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.errors import TokenError
    from tokenadapter.protocols import Answer, Credential, Grant, Replacing, StoreLock
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["ANSWERED_WITHIN", "Presenter"]

T = TypeVar("T")

ANSWERED_WITHIN: Final = 60.0
"""Seconds in which the answer to a request that was sent may still come."""

# Seconds between the intent and the request, if the store is fast.
_SENDS_WITHIN: Final = 1.0
# Seconds after the deadline in which a late answer may come while the program ends.
_ANSWERED_AT_EXIT: Final = 10.0
# Seconds by which the clocks of processes that read the intent may differ.
_CLOCK_SKEW: Final = 1.0
# Characters of JSON.  Some stores could not save a larger token.
_LARGEST_TOKEN: Final = 1 << 18
# What a source of this library adds to the extras begins with this: without its client, a refresh
# token is worth nothing.
_OURS: Final = "tokenadapter_"
# Characters of the scope and the type of a token whose JSON is too large.
_LONGEST_FIELD: Final = 4096


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
        self._saver = Saver(slot, grant, eligibility, runtime, journal)

    def present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        previous: Token | None,
        serve_unsaved: Callable[[View], None],
        context: Context | None = None,
        fail: Callable[[Exception], None] = lambda error: None,
    ) -> View | None:
        """Present *credential* once and save the outcome.

        :param previous: the previous token, for the grant.
        :param serve_unsaved: lets this process use a new token that cannot be saved yet.
        :param context: the context in which to call the grant.
        :param fail: releases the waiting callers with an error, while this thread goes on waiting
            for an answer that is late.
        :returns: the record with the new token, or ``None`` if the caller must read the slot again:
            the credential was refused, or another process wrote.
        :raises StoreError: if the intent cannot be written: nothing was sent.
        :raises TokenError: if there is no new token.
        """
        # Before anything is sent: looking up the configured refresh token may fail.
        if not credential.first and self._slot.began_otherwise(view.record):
            self._journal.emit_once("FirstTokenUnused")
        # Before the lock is confirmed: a listener may take its time.
        self._journal.count("RenewalStarted", presented=credential.kind)
        if not credential.single_use:
            return self._present(lock, view, credential, previous, serve_unsaved, context, fail)
        # The key comes first: for it, the grant may have to read metadata, and both the wait for
        # this presentation and the intent last for a limited time.
        key = self._new_key(previous)
        with self._runtime.presenting(self._grant.deadline) as may_begin:
            if not may_begin:
                raise messages.process_ending()
            return self._present(
                lock, view, credential, previous, serve_unsaved, context, fail, key
            )

    def _present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        previous: Token | None,
        serve_unsaved: Callable[[View], None],
        context: Context | None,
        fail: Callable[[Exception], None],
        key: str | None = None,
    ) -> View | None:
        found, waiter, sent, store = view, None, credential, self._slot.store
        started = self._runtime.monotonic()

        def keep_waiting() -> bool:
            nonlocal view, waiter
            waited = self._runtime.monotonic() - started
            if self._runtime.is_helper():  # else the caller itself waits for the answer
                fail(messages.answer_late(store, self._grant.owner, waited, ANSWERED_WITHIN))
            view, waiter = self._extended(view, waiter)
            at_exit = min(ANSWERED_WITHIN, self._grant.deadline + _ANSWERED_AT_EXIT)
            return waited < (at_exit if self._runtime.exiting() else ANSWERED_WITHIN)

        if credential.single_use:
            waiter = self._new_waiter(view)
            announced = self._write_intent(lock, view, credential, waiter, key)
            if announced is None:
                return None
            view, intent = announced, announced.record.intent
            # Within a grace period, the request must end before it is repeated.
            sent = credential._replace(
                keep_waiting=never if self._grant.grace else keep_waiting,
                key=intent and intent.key,
            )
        elif not lock.confirm():
            return None
        refused, answer = self._fetch_or_replace(view, sent, previous, context)
        presented = Presented(credential, lock, found, view, waiter, refused)
        if waiter is not None:
            self._eligibility.end_wait(waiter)
        if not isinstance(answer, Minted):
            if _is_local(answer) and not refused:
                # Without a backoff: it must not keep other processes from trying.
                self._saver.stop_waiting(waiter, is_unknown=may_be_spent(answer))
                raise answer
            self._saver.record_failure(presented, answer)
            return None
        self._eligibility.clear_failures()
        self._compare_scope(answer.token)
        saved = self._saver.save(presented, answer, serve_unsaved)
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
        refusal = self._eligibility.backing_off(view.record, view.read_at, credential)
        if refusal is not None:
            raise refusal
        refused, answer = self._fetch_or_replace(view, credential, None)
        if not isinstance(answer, Minted):
            if refused or not _is_local(answer):
                self._saver.remember_failure(view, credential, answer, refused)
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
        try:
            announced = self._slot.write(view, intent)
        except errors.StoreError:
            # It may have been written all the same.
            self._eligibility.end_wait(waiter)
            self._saver.stop_waiting(waiter, is_unknown=False)
            raise
        is_ready = False
        try:
            self._slot.store.prepare()
            # The last step before the request is sent.
            is_ready = lock.confirm() and (
                self._slot.lock_ends_with_holder or self._is_in_time(view, waiter)
            )
        finally:
            if not is_ready:
                # Nothing is sent, so undo the intent.
                self._eligibility.end_wait(waiter)
                self._saver.withdraw_intent(announced, before)
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

    def _extended(self, view: View, waiter: Waiter | None) -> tuple[View, Waiter | None]:
        """Tell processes that rely on the intent that this one still waits for the answer.

        :returns: the record and the waiter in it, unchanged if they need no change or cannot be
            written.
        """
        until = self._slot.now(view) + ANSWERED_WITHIN
        intent = view.record.intent
        if waiter is None or intent is None or waiter.until > until - ANSWERED_WITHIN / 2:
            return view, waiter
        longer = waiter._replace(until=until)
        awaited = tuple(longer if one == waiter else one for one in intent.awaited)
        record = view.record._replace(intent=intent._replace(awaited=awaited))
        with suppress(errors.StoreError, Conflict):
            return self._slot.write(view, record), longer
        return view, waiter

    def _fetch_or_replace(
        self,
        view: View,
        credential: Credential,
        previous: Token | None,
        context: Context | None = None,
    ) -> tuple[tuple[Credential, ...], Minted | TokenError]:
        """Present *credential*, and if the server refuses it, once what the grant has in its place.

        :returns: the credentials to which a failure is limited, since the server refused them; and
            the new token or the error.
        :raises TokenError: if what is in its place was refused before.
        """
        answer = self._fetch(view, credential, previous, context)
        if not (credential.replaceable and isinstance(answer, errors.ReauthRequired)):
            return (), answer
        try:
            grant = cast("Replacing", self._grant)
            other = _call(context, grant.replacement, credential, answer)
        except _failures() as error:
            return (credential,), self._as_failure(error)
        if other is None:
            return (credential,), answer
        objection = self._eligibility.objection(view, other)
        if objection is not None:
            raise objection  # another process has presented it
        answer = self._fetch(view, other, previous, context)
        is_refused = isinstance(answer, errors.ReauthRequired)
        return (credential, other) if is_refused else (), answer

    def _fetch(
        self,
        view: View,
        credential: Credential,
        previous: Token | None,
        context: Context | None = None,
    ) -> Minted | TokenError:
        """Present *credential*, and return the new token or the error."""
        sent_at, wall = self._slot.stamp(view), self._runtime.wall()
        intent = view.record.intent
        if credential.single_use and intent is not None:
            # The answer may be the token of the first presentation, which is older than its
            # expires_in says.
            sent_at = min(sent_at, intent.first_sent)
        try:
            answer = _call(context, self._grant.fetch, credential, previous)
        except _failures() as error:
            return self._as_failure(error)
        try:
            minted = _as_token(answer, credential, sent_at, wall)
            return minted._replace(token=self.fit_for_record(minted.token))
        except (TypeError, ValueError) as error:
            return messages.source_returned(error)

    def _as_failure(self, error: BaseException) -> TokenError:
        """What *error*, which the grant raised, means."""
        if isinstance(error, _known_errors()):
            return error
        self._journal.trace("the token source raised", error)
        # An event loop that needs a thread for its work gets none when the program ends: from when
        # the interpreter begins to wait for the threads of executors, before it waits for helpers.
        is_ending = self._runtime.exiting() or getattr(threading, "_SHUTTING_DOWN", False)
        if (is_ending and isinstance(error, RuntimeError)) or isinstance(error, _cancellations()):
            failure: TokenError = messages.source_interrupted(error)
        else:
            failure = messages.source_raised(error)
        failure.__cause__ = error
        return failure


def _call(context: Context | None, function: Callable[..., T], *args: Any) -> T:
    """Call *function* in *context*, if there is one."""
    return function(*args) if context is None else context.run(function, *args)


def _fits(token: Token) -> bool:
    """Whether every store can save *token*."""
    try:
        return len(json.dumps(token.to_dict(), indent=2)) <= _LARGEST_TOKEN
    except (TypeError, ValueError, RecursionError):
        return False  # not JSON, or nested too deeply


def _known_errors() -> tuple[type[TokenError], ...]:
    """The errors by which a source reports the outcome of its request."""
    return errors.ReauthRequired, errors.RefreshConfigError, errors.RefreshTemporarilyFailed


def _failures() -> tuple[type[BaseException], ...]:
    """What a source may raise, other than exceptions that end its thread."""
    return Exception, *_cancellations()


def _cancellations() -> tuple[type[BaseException], ...]:
    """What a cancelled source raises: an error of asyncio, or of a future."""
    # A program that has not imported these modules cannot have raised their errors.
    modules = map(sys.modules.get, ("asyncio", "concurrent.futures"))
    found = (getattr(module, "CancelledError", None) for module in modules)
    return tuple(kind for kind in found if kind is not None)


def _sending_time(view: View) -> float:
    """Seconds between intent and request.  A store that is slow to read is slow to write."""
    return _SENDS_WITHIN + 4 * view.took


def _is_local(failure: TokenError) -> bool:
    """Whether this program or its configuration caused *failure*."""
    return getattr(failure, "is_local", False)


def _as_token(answer: Answer, credential: Credential, sent_at: float, wall: float) -> Minted:
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
    return Minted(token, rotated)
