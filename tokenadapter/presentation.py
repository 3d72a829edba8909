"""One presentation of one credential: announced, sent, and its outcome saved.

It ends in one of four ways, which :mod:`tokenadapter.record` explains: minted, refused,
unprocessed or unknown.  The caller holds the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from tokenadapter import policy
from tokenadapter.choice import Choice
from tokenadapter.journal import Journal
from tokenadapter.machine import Machine
from tokenadapter.protocols import Answer, Credential, Grant, StoreLock
from tokenadapter.record import Hold, Record, mark
from tokenadapter.slot import Moved, Slot, View
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter.errors import TokenError

__all__ = ["Presenter"]

# Seconds for which nobody asks again as a client, or for a scope, that was refused.
_CONFIG_HOLD: Final = 60.0


class Presenter:
    """Presents credentials of one grant for one slot."""

    def __init__(
        self, slot: Slot, grant: Grant, choice: Choice, machine: Machine, journal: Journal
    ) -> None:
        self._slot = slot
        self._grant = grant
        self._choice = choice
        self._machine = machine
        self._journal = journal

    def present(
        self,
        lock: StoreLock,
        view: View,
        credential: Credential,
        serve_unsaved: Callable[[View], None],
    ) -> View | None:
        """Present *credential* once and save what comes of it.

        :param serve_unsaved: lets this process use a new token that cannot be saved yet.
        :returns: the record with the new token, or ``None`` if the slot has to be looked at
            again: the credential was refused, or somebody else wrote.
        :raises StoreError: if what must be written beforehand cannot be: nothing was sent.
        :raises TokenError: if there is no new token.
        """
        before = view.record
        if credential.single_use:
            view = self._announce(view, credential)
        if not lock.confirm():
            return None
        sent_at, wall = self._slot.now(view), self._machine.wall()
        started = self._machine.monotonic()
        failure: TokenError | None = None
        try:
            answer = self._grant.fetch(credential, before.token)
            token, rotated = _completed(answer, credential, sent_at, wall)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            failure = _as_token_error(error)
        if failure is not None:
            self._tell_all(view, before, credential, failure)
            return None
        self._choice.succeeded()
        spent = mark(credential.secret) if credential.first and rotated else None
        saved = self._save(view, token, credential, spent, serve_unsaved)
        if saved is not None:
            self._journal.tell(
                "Renewed",
                token=token.fingerprint,
                presented=credential.kind,
                seconds=self._machine.monotonic() - started,
            )
        return saved

    def present_alone(self) -> View | None:
        """Obtain a token for this process alone, without the store, by what spends nothing.

        :returns: a view of no slot, or ``None`` if everything that could be presented may be
            spent by it.
        :raises TokenError: if there is no new token.
        """
        credential = next((c for c in self._grant.credentials(None) if not c.single_use), None)
        if credential is None:
            return None
        view = self._slot.nowhere()
        self._choice.raise_if_held(view.record, view.now)
        failure: TokenError | None = None
        try:
            answer = self._grant.fetch(credential, None)
            token, _ = _completed(answer, credential, view.now, view.now)
        except Exception as error:  # noqa: BLE001 - a source may raise anything
            failure = _as_token_error(error)
        if failure is not None:
            self._choice.hold_alone(self._hold(view.record, failure, view.now))
            raise failure
        self._choice.succeeded()
        return view._replace(record=view.record.minted(token, self._grant.asked, None))

    def _announce(self, view: View, credential: Credential) -> View:
        """Write the intent, and make sure that the save after it will succeed."""
        from tokenadapter.errors import StoreError

        before = view.record
        key = self._choice.digest(before, credential)
        view = self._slot.write(view, before.presenting(key, self._slot.now(view)))
        try:
            self._slot.store.prepare()
        except StoreError:
            with suppress(StoreError, Moved):
                self._slot.write(view, before)
            raise
        return view

    def _save(
        self,
        view: View,
        token: Token,
        credential: Credential,
        spent: str | None,
        serve_unsaved: Callable[[View], None],
    ) -> View | None:
        """Save *token*, whatever it takes if a refresh token was spent for it."""
        from tokenadapter.errors import StoreError

        failures = 0
        while True:
            record = view.record.minted(token, self._grant.asked, spent)
            try:
                view = self._slot.write(view, record)
            except Moved as moved:
                # The lock had lapsed.  Our answer still counts if nobody has rotated since.
                if not self._is_still_ours(moved.view.record, credential):
                    return None
                view = moved.view
            except StoreError as error:
                failures += 1
                unsaved = view._replace(record=record)
                lost = self._machine.exiting() and credential.single_use
                if failures == 1 or lost:
                    self._journal.tell(
                        "SaveFailed", token=token.fingerprint, error=str(error), lost=lost
                    )
                if lost or not credential.single_use:
                    return unsaved
                serve_unsaved(unsaved)
                self._machine.sleep(min(0.1 * 2.0 ** min(failures, 6), 5.0))
            else:
                if spent is not None:
                    with suppress(StoreError):
                        self._slot.store.mark(spent)
                return view

    def _is_still_ours(self, record: Record, credential: Credential) -> bool:
        if not credential.single_use:
            return record.token is None
        if record.intent is not None:
            return record.intent.credential == self._choice.digest(record, credential)
        return record.token is not None and record.token.refresh_token == credential.secret

    def _tell_all(
        self, view: View, before: Record, credential: Credential, failure: TokenError
    ) -> None:
        """Write down why there is no new token, for all who share the store.

        :raises TokenError: *failure*, unless it is written and another credential may be left.
        """
        from tokenadapter.errors import ReauthRequired, RefreshTemporarilyFailed, StoreError

        now = self._slot.now(view)
        hold: Hold | None = None
        if isinstance(failure, ReauthRequired):
            record = view.record.refused(
                self._choice.digest(before, credential),
                credential.kind,
                now,
                error=failure.error,
                cause=str(failure),
            )
        else:
            hold = self._hold(before, failure, now)
            if isinstance(failure, RefreshTemporarilyFailed) and failure.processed is None:
                record = view.record.unknown(hold)
            else:
                record = view.record.unprocessed(before, hold)
        try:
            self._slot.write(view, record)
        except Moved:
            return  # somebody else knows better by now
        except StoreError:
            if hold is None:
                self._choice.refuse_alone(credential, failure)
            else:
                self._choice.hold_alone(hold)
        else:
            if hold is None:
                return
        raise failure

    def _hold(self, before: Record, failure: TokenError, now: float) -> Hold:
        from tokenadapter.errors import RefreshConfigError, RefreshTemporarilyFailed

        step = 1 if before.hold is None else before.hold.step + 1
        cause, error = str(failure), getattr(failure, "error", None)
        if isinstance(failure, RefreshConfigError):
            who = self._choice.client(before)
            return Hold(now, _CONFIG_HOLD, step, who, "config", error, cause)
        duration = policy.backoff(step, self._machine.random())
        if isinstance(failure, RefreshTemporarilyFailed):
            if failure.retry_after is not None:
                duration = max(failure.retry_after, 1.0)
            failure.retry_at = self._machine.wall() + duration
        return Hold(now, duration, step, None, "temporary", error, cause)


def _completed(
    answer: Answer, credential: Credential, sent_at: float, wall: float
) -> tuple[Token, bool]:
    """The answer as a token in the store's time, and whether it brought a new refresh token.

    :param sent_at: when the request was about to be sent, by the store's clock.
    :param wall: the same moment by ours.
    """
    if isinstance(answer, str):
        token = Token(answer, issued_at=sent_at)
    elif isinstance(answer, Mapping):
        token = Token.from_response(answer, requested_at=sent_at)
    elif isinstance(answer, Token):
        left = inf if answer.lifetime is None else answer.lifetime
        # A function may hand out a token that it obtained a while ago.
        left -= max(wall - answer.issued_at, 0.0)
        token = answer.replace(
            issued_at=sent_at, expires_at=None if left == inf else sent_at + left
        )
    else:
        raise TypeError(f"a token source must return a token, not {type(answer).__name__}")
    presented = credential.secret if credential.kind == "refresh_token" else None
    rotated = token.refresh_token is not None and token.refresh_token != presented
    if token.refresh_token is None and presented is not None:
        # No new one means: go on with the old one (RFC 6749 section 6).
        token = token.replace(refresh_token=presented)
    return token, rotated


def _as_token_error(error: Exception) -> TokenError:
    from tokenadapter.errors import RefreshTemporarilyFailed, TokenError

    if isinstance(error, TokenError):
        return error
    # Its message may hold anything, secrets too: it is not ours to write down.
    failure = RefreshTemporarilyFailed(
        f"The token source failed with {type(error).__name__}. What the store held is kept."
    )
    failure.__cause__ = error
    return failure
