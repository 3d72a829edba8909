"""One renewal for all processes that share a store: one process renews, the others wait.

The order is always the same: take the lock, **read the slot again**, stop if another process was
faster, write the intent if the credential can be spent, present the credential, **save** the token,
and only then let anyone use it.  Finally release the lock.

A process that does not get the lock watches the record, and tries the lock after each pause.  When
the renewal is done, every process sees the new token at its next look, without queuing for the
lock.  When the holder has died, one of the waiting processes takes over.  A lock that lapses by
itself does not prove that its holder has died.  In that case the intent is respected for as long as
its writer may wait for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.held_token import HeldToken, Outcome, RenewalRequest
from tokenadapter.core.journal import Journal
from tokenadapter.core.presentation import ANSWERED_WITHIN, Presenter
from tokenadapter.core.record import Record
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Account, Credential

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.core.single_flight import Run
    from tokenadapter.protocols import Grant, StoreLock
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["Renewal"]

# Seconds that reading and saving may take, beyond the grant's deadline, before a lease may lapse.
_MARGIN: Final = 10.0
# Seconds between two glimpses, if the store has them.  A glimpse costs the renewing process little.
_GLIMPSE: Final = 0.005
# Seconds between two checks whether the renewing process is alive, if the store has no glimpses.
_CHECK: Final = 0.05


class Renewal:
    """Renews the token of one slot by one grant.

    :param weigh: computes how fresh the token of a view is for this process.
    :param take: lets this process use the token of a view, which it has minted or found.
    :param lock_timeout: how many seconds to wait for the renewal of another thread or process.
    """

    def __init__(
        self,
        slot: Slot,
        grant: Grant,
        runtime: Runtime,
        journal: Journal,
        *,
        weigh: Callable[[View], HeldToken],
        take: Callable[..., None],
        lock_timeout: float,
    ) -> None:
        self._eligibility = Eligibility(slot, grant, runtime)
        self._presenter = Presenter(slot, grant, self._eligibility, runtime, journal)
        self._slot = slot
        self._grant = grant
        self._runtime = runtime
        self._weigh = weigh
        self._take = take
        self._lock_timeout = lock_timeout

    def perform(
        self, request: RenewalRequest, run: Run[Outcome | None], seen: View | None = None
    ) -> Outcome | None:
        """Find or obtain a token that meets *request*.

        :param run: releases the waiting callers early: with a token that cannot be saved yet, or
            with an error while an answer is late.
        :param seen: a recent view of the slot, if there is one.
        :returns: ``None`` if another process renews, and no caller waits or a signal does.
        :raises TokenError: if there is no token.
        """
        try:
            return self._perform(request, run, seen)
        except errors.ReauthRequired:
            if request.rejected is not None and not request.forced:
                self._record_rejection(request.rejected)
            raise
        except errors.StoreError as trouble:
            # Without the store, only credentials that cannot be spent may be presented.
            view = self._presenter.present_without_store(trouble) if request.waits else None
            if view is None:
                raise
            return self._taken(view, is_new=True, minted=True)

    def adopt(
        self, token: Token, account: Account | None = None, *, switch: bool = False
    ) -> Outcome:
        """Save *token* to the slot.

        :param account: whose token it is, if that is known.
        :param switch: whether it may replace the token of another account.
        :raises ReauthRequired: if the stored token is that of another account.
        :raises RefreshConfigError: if the refresh token was already spent.
        :raises TokenNotPersisted: if the token cannot be saved.
        :raises LockTimeout: if another thread or process holds the lock for too long.
        """
        token = self._presenter.fit_for_record(token)
        view: View | None = None
        while view is None:
            try:
                view = self._write_locked(lambda view: self._adopted(view, token, account, switch))
            except errors.LockTimeout:
                # A login is not lost because another process waits for an answer that is late.
                if not self._eligibility.pending_waiters(self._slot.look()):
                    raise
            except errors.StoreError as error:
                raise messages.not_adopted(error) from error
        if token.refresh_token is None:
            self._eligibility.clear_failures()
        else:
            self._eligibility.clear_refusals(token.refresh_token)
        return self._taken(view, is_new=True, minted=True, adopted=True)

    def adopt_refresh_token(self, secret: str, bound: Token) -> Outcome:
        """Present a refresh token that was obtained elsewhere, and save the new token.

        The slot is unchanged until the server has answered.

        :param bound: a token with the key that the refresh token is bound to, if it is.
        :raises ValueError: if the grant presents no refresh token, or *secret* cannot be one.
        :raises TokenError: if there is no new token: the slot keeps the one that it had.
        """
        # The grant may be a function, which presents the refresh token of the previous token.
        now = self._runtime.wall()
        previous = bound.replace(refresh_token=secret, issued_at=now - 2, expires_at=now - 1)
        credential = self._presentable(previous, secret)
        self._eligibility.clear_refusals(secret)
        has_presented = False

        def attempt(lock: StoreLock) -> View | None:
            nonlocal has_presented
            while lock.confirm():
                view = self._slot.look()
                if self._eligibility.is_spent(view, secret):
                    raise messages.already_spent(self._slot.store)
                if not has_presented:
                    # The caller vouches for the refresh token, so an earlier refusal is void.
                    key = self._eligibility.digest(view.record, credential)
                    view = view._replace(record=view.record.without_tombstone(key))
                objection = self._eligibility.objection(view, credential)
                if objection is not None:
                    raise objection
                if self._eligibility.is_answer_pending(view):
                    return None
                has_presented = True
                saved = self._presenter.present(
                    lock, view, credential, previous, lambda unsaved: self._take(unsaved, True)
                )
                if saved is not None:
                    return saved
            return None

        saved = self._under_lock(self._lock_for(), attempt)
        return self._taken(saved, is_new=True, minted=True, adopted=True)

    def _presentable(self, previous: Token, secret: str) -> Credential:
        for credential in self._grant.credentials(previous):
            if credential.kind == "refresh_token" and credential.secret == secret:
                return credential._replace(first=True, adopted=True)
        raise ValueError(
            "the source presents no refresh token: a token response with an access_token is needed"
        )

    def clear_refusals(self) -> Token | None:
        """Clear refusals and backoffs, and return the stored token.

        :raises StoreError: if the slot cannot be written.
        :raises LockTimeout: if another thread or process holds the lock for too long.
        """

        def without_refusals(view: View) -> Record:
            self._raise_if_foreign(view)
            # An empty slot stays empty, so that a process that saw a token there can restore it.
            is_empty = view.tag is None and not view.was_reset
            return view.record if is_empty else view.record.without_refusals()

        view = self._write_locked(without_refusals)
        self._eligibility.clear_refusals(view=view)
        return view.record.token

    def forget(self, revoke: Callable[[Token], object] | None) -> Token | None:
        """Remove the token from the slot.  Spent refresh tokens stay remembered.

        :param revoke: called with the token while the lock is held.  If it raises, nothing is
            changed.
        :returns: the removed token.
        :raises RefreshConfigError: if the token may belong to another user.
        :raises StoreError: if the slot cannot be written.
        :raises LockTimeout: if another thread or process holds the lock for too long.
        """
        found: list[Token | None] = []

        def without_token(view: View) -> Record:
            self._raise_if_foreign(view)
            token = view.record.token
            if token is not None and revoke is not None:
                revoke(token)
            found.append(token)
            if token is None or view.tag is None:
                return view.record  # perhaps with an intent that other processes need
            for spent in view.record.spent:
                self._slot.store.remember_spent(spent, for_good=True)
            return view.record.logged_out(self._slot.stamp(view))

        self._write_locked(without_token, self._lock_for())
        self._slot.forget()
        return found[-1]

    def distrust(self, token: Token) -> Token | None:
        """Record for all processes that *token* was refused when it was new.

        :returns: a token that another process has obtained meanwhile; then nothing is recorded.
        :raises StoreError: if the slot cannot be written.
        :raises LockTimeout: if another thread or process holds the lock for too long.
        """
        u = self._runtime.random()

        def with_distrust(view: View) -> Record:
            if not token.is_same(view.record.token) or self._is_distrusted(view, token):
                return view.record
            return view.record.with_distrust(token, self._slot.stamp(view), u)

        # The API refuses the token to all processes that share it.  One of them records that; the
        # others find the entry without waiting for the lock.
        view = self._write_locked(with_distrust, looks_first=True)
        found = self._matching_token(view)
        if found is None or token.is_same(found):
            return None
        return self._taken(view, is_new=True).token

    def _record_rejection(self, token: Token) -> None:
        """Record for all processes that the API refused *token*, and that nothing can renew it."""
        with suppress(errors.TokenError, Conflict):
            view = self._slot.look()
            if token.is_same(view.record.token):
                if not view.record.is_rejected:
                    # Without the lock: callers that get the final error must not wait for it.
                    rejected = view.record.with_rejection(token, self._slot.stamp(view))
                    view = self._slot.write(view, rejected)
                self._take(view, False)

    # --- the steps -----------------------------------------------------------------------

    def _perform(
        self, request: RenewalRequest, run: Run[Outcome | None], seen: View | None
    ) -> Outcome | None:
        pauses = self._pauses(request.since, request.until)
        view = first = seen or self._slot.look()
        is_news = True
        while True:
            tried = self._runtime.monotonic()
            if is_news:
                outcome = self._settled(view, request, first)
                if outcome is not None and not view.was_reset:
                    return outcome
                with suppress(Conflict):
                    self._raise_if_futile(view)
            lock = self._slot.store.lock()
            try:
                if lock.acquire(self._lock_for()):
                    outcome = self._locked(lock, request, first, run)
                    if outcome is not None:
                        return outcome
            except Conflict:
                pass
            finally:
                lock.release()
            if not request.waits or self._runtime.interrupted():
                return None
            # Pause for at least as long as the store took to answer, so that a busy store has time
            # for the process that renews.
            took = view.took + self._runtime.monotonic() - tried
            is_news, has_died = self._wait_for_news(max(next(pauses), took), view)
            if has_died:
                pauses = self._pauses(
                    request.since, request.until
                )  # another process takes over now
            if is_news:
                known, view = view, self._slot.look()
                is_news = view.tag != known.tag

    def _locked(
        self,
        lock: StoreLock,
        request: RenewalRequest,
        first: View,
        run: Run[Outcome | None],
    ) -> Outcome | None:
        """Renew as the holder of the lock.

        :returns: ``None`` if the lock was lost, or an earlier holder still waits for its answer.
        """
        while lock.confirm():
            # A view from before the lock was taken may be out of date.
            view = self._slot.look()
            outcome = self._settled(view, request, first)
            if outcome is not None:
                if view.was_reset:
                    self._slot.write(view, view.record)
                return outcome
            self._raise_if_futile(view)
            credential = self._eligibility.credential(view)
            if self._eligibility.is_answer_pending(view):
                return None
            saved = self._presenter.present(
                lock,
                view,
                credential,
                view.record.token,
                lambda unsaved: run.settle(self._taken(unsaved, is_new=True, minted=True)),
                request.context,
                run.fail,
            )
            if saved is not None:
                return self._taken(saved, is_new=True, minted=True)
        return None

    def _settled(self, view: View, request: RenewalRequest, first: View) -> Outcome | None:
        """The outcome, if the stored token meets *request*.

        A token that was minted since the first look does so whatever its expiry is: another
        process has just renewed, and clocks differ.
        """
        token = self._matching_token(view)
        if token is None:
            return None
        held = self._weigh(view)
        # Taken in any case: if there is no better token, this one is used until it expires, also by
        # callers that did not reject it.
        outcome = self._taken(view, is_new=not token.is_same(first.record.token))
        if token.is_same(request.rejected):
            is_distrusted = self._is_distrusted(view, token)
            return Outcome(token, is_new=False, distrusted=True) if is_distrusted else None
        least = held.least(fresh=request.fresh, min_validity=request.min_validity)
        is_good = held.left(self._runtime.monotonic(), self._runtime.wall()) > least
        return outcome if outcome.is_new or is_good else None

    def _is_distrusted(self, view: View, token: Token) -> bool:
        distrust = view.record.distrust
        return distrust is not None and distrust.applies_to(token.fingerprint, self._slot.now(view))

    def _matching_token(self, view: View) -> Token | None:
        """The stored token, if it was obtained by the same request as ours, or for a wider scope.

        Another change of the request is accepted once: the token is renewed with the new one.

        :raises RefreshConfigError: if another program has replaced our token by a valid one with
            another request, since the two programs would replace each other's token for ever; or
            if the token may belong to another user.
        """
        record, ours = view.record, self._grant.requested
        if view.is_foreign and record.is_grant_over(self._slot.now(view)):
            return None  # nothing is lost if the configured refresh token replaces it
        self._raise_if_foreign(view)
        if record.satisfies(ours):
            return record.token
        started = view.read_at - view.took - view.monotonic + self._slot.started
        if record.was_replaced_lately(ours, self._slot.now(view), started):
            raise messages.requests_differ(self._slot.store, record.requested, ours)
        return None

    def _raise_if_foreign(self, view: View) -> None:
        if view.is_foreign:
            raise messages.other_first_token(self._slot.store)

    def _raise_if_futile(self, view: View) -> None:
        """Raise at once, without lock and network, if a renewal would certainly fail."""
        self._eligibility.raise_if_backing_off(view.record, self._slot.now(view))
        self._eligibility.credential(view)

    def _taken(
        self, view: View, is_new: bool, minted: bool = False, adopted: bool = False
    ) -> Outcome:
        token = view.record.token
        assert token is not None
        self._take(view, minted, adopted)
        return Outcome(token, is_new, minted)

    def _adopted(self, view: View, token: Token, account: Account | None, switch: bool) -> Record:
        theirs = view.record.account
        if theirs and account and not (switch or account.is_same(theirs)):
            raise messages.another_account(self._slot.store, theirs, account)
        refresh = token.refresh_token
        if refresh is not None and self._eligibility.is_spent(view, refresh):
            raise messages.already_spent(self._slot.store)
        # The earliest possible time, so that no token is taken for younger than it is.
        offset = self._slot.stamp(view) - self._runtime.wall()
        expires_at = None if token.expires_at is None else token.expires_at + offset
        token = token.replace(issued_at=token.issued_at + offset, expires_at=expires_at)
        now, seeds = self._slot.stamp(view), self._slot.seeds(view)
        return view.record.with_adopted_token(token, self._grant.requested, now, seeds, account)

    def _write_locked(
        self,
        change: Callable[[View], Record],
        hold_for: float = _MARGIN,
        *,
        looks_first: bool = False,
    ) -> View:
        """Save the record that *change* returns.

        :param looks_first: whether to call *change* also before each attempt to take the lock.  It
            must have no side effects.  If it changes nothing, the lock is not needed.
        """

        def unchanged() -> View | None:
            view = self._slot.look()
            return view if change(view) is view.record else None

        def attempt(lock: StoreLock) -> View:
            view = self._slot.look()
            record = change(view)
            return view if record is view.record else self._slot.write(view, record)

        if looks_first:
            return self._under_lock(hold_for, attempt, unchanged)
        return self._under_lock(hold_for, attempt)

    def _under_lock(
        self,
        hold_for: float,
        attempt: Callable[[StoreLock], View | None],
        needless: Callable[[], View | None] = lambda: None,
    ) -> View:
        """Call *attempt* with the lock until it returns a view, and return that view.

        :param needless: called before each attempt to take the lock; a view that it returns is
            returned at once.
        :raises LockTimeout: if another thread or process holds the lock for too long.
        """
        pauses = self._pauses()
        while True:
            done = needless()
            if done is not None:
                return done
            lock = self._slot.store.lock()
            try:
                if lock.acquire(hold_for):
                    done = attempt(lock)
                    if done is not None:
                        return done
            except Conflict:
                pass
            finally:
                lock.release()
            self._runtime.sleep(next(pauses))

    def _lock_for(self) -> float:
        # After a refused refresh token, a password may be presented.
        deadline = self._grant.deadline
        longest = deadline if self._grant.grace else max(deadline, ANSWERED_WITHIN)
        return deadline + longest + _MARGIN

    def _pauses(self, since: float | None = None, until: float | None = None) -> Iterator[float]:
        """Seconds between two attempts: short at first, then longer, with jitter.

        :param since: when the caller began to wait, if that was earlier.
        :param until: when the caller stops waiting, if that is earlier.
        :raises LockTimeout: when the time to wait is over.
        """
        runtime = self._runtime
        began = runtime.monotonic() if since is None else since
        pause, longest = self._slot.store.poll
        end = min(began + self._lock_timeout, inf if until is None else until)
        while runtime.monotonic() < end and not runtime.exiting():
            yield pause * (0.5 + runtime.random() / 2)
            pause = min(pause * 1.5, longest)
        raise messages.lock_timed_out(self._slot.store, runtime.monotonic() - began)

    def _wait_for_news(self, seconds: float, view: View) -> tuple[bool, bool]:
        """Sleep, but no longer than until the slot was written since *view*, if the store has
        glimpses, or else until a process that renews has died.

        :returns: whether the slot may have been written, and whether such a process has died.
        """
        runtime = self._runtime
        end = runtime.monotonic() + seconds
        if view.glimpse is not None:
            while (left := end - runtime.monotonic()) > 0:
                runtime.sleep(min(left, _GLIMPSE))
                if self._slot.has_changed(view):
                    return True, False
            return False, False
        renewing = len(self._eligibility.pending_waiters(view))
        if not renewing:
            runtime.sleep(seconds)
            return True, False
        while (left := end - runtime.monotonic()) > 0:
            runtime.sleep(min(left, _CHECK))
            if len(self._eligibility.pending_waiters(view)) < renewing:
                return True, True
        return True, False
