"""One renewal as the processes that share a store see it: at most one of them does it.

The order never varies: take the lock, **look again**, leave if somebody was faster, write the
intent if what will be presented can be spent, present it, **save**, and only then let anyone use
the token; at last let the lock go.

Who does not get the lock watches the record, and tries the lock at each pause: when the renewal is
done, all see it at their next look and nobody queues for the lock; when the holder has died, one of
them takes its place.  A lock that lapses by itself does not prove that its holder has died: then
the intent is believed for as long as its writer may await an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tokenadapter.core.eligibility import Eligibility
from tokenadapter.core.held_token import HeldToken, Outcome, RenewalRequest
from tokenadapter.core.journal import Journal
from tokenadapter.core.presentation import Presenter
from tokenadapter.core.record import Record
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import Conflict, Slot, View
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Credential

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.protocols import Grant, StoreLock
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["Renewal"]

# Seconds that looking and saving may take beyond the grant's own deadline before a lease on the
# lock may lapse.
_MARGIN: Final = 10.0
# Seconds between two glimpses, where the store has such: each takes little from whoever renews.
_GLIMPSE: Final = 0.005


class Renewal:
    """Renews the token of one slot by one grant.

    :param weigh: how fresh this process deems the token of a view.
    :param take: lets this process use the token of a view; is also told whether it minted it.
    :param lock_timeout: for how many seconds to wait for another's renewal.
    """

    def __init__(
        self,
        slot: Slot,
        grant: Grant,
        runtime: Runtime,
        journal: Journal,
        *,
        weigh: Callable[[View], HeldToken],
        take: Callable[[View, bool], None],
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
        self, request: RenewalRequest, serve: Callable[[Outcome], None], seen: View | None = None
    ) -> Outcome | None:
        """See to it that there is a token that meets *request*.

        :param serve: lets the waiters go before the work is over: a token that cannot be saved
            yet is good for this process.
        :param seen: what was in the slot just now, if somebody has looked.
        :returns: ``None`` if nobody waits for it, and others see to it.
        :raises TokenError: if there is none.
        """
        try:
            return self._perform(request, serve, seen)
        except errors.StoreError as trouble:
            # Without the store nothing can be spent.  What spends nothing goes on.
            view = self._presenter.present_without_store(trouble) if request.waits else None
            if view is None:
                raise
            return self._taken(view, is_new=True, minted=True)

    def adopt(self, token: Token) -> Outcome:
        """Put *token* into the slot, whatever is there.

        :raises RefreshConfigError: if its refresh token was spent before.
        :raises TokenNotPersisted: if it cannot be saved.
        :raises LockTimeout: if others hold the lock for too long.
        """
        token = self._presenter.fit_for_record(token)
        try:
            view = self._write_locked(lambda view: self._adopted(view, token))
        except errors.StoreError as error:
            raise messages.not_adopted(error) from error
        if token.refresh_token is None:
            self._eligibility.clear_failures()
        else:
            self._eligibility.clear_refusals(token.refresh_token)
        return self._taken(view, is_new=True, minted=True)

    def adopt_refresh_token(self, secret: str) -> Outcome:
        """Present a refresh token from elsewhere, and put what it brings into the slot.

        Until there is an answer, what is in the slot stays there.

        :raises ValueError: if the grant presents no refresh token, or *secret* cannot be one.
        :raises TokenError: if there is no new token: then the slot has the one that it had.
        """
        # The grant may be a function, which presents what it finds in the token before.
        now = self._runtime.wall()
        previous = Token("none", refresh_token=secret, issued_at=now - 2, expires_at=now - 1)
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
                    # Somebody vouches for it: what was refused once may be tried again.
                    key = self._eligibility.digest(view.record, credential)
                    view = view._replace(record=view.record.without_tombstone(key))
                objection = self._eligibility.objection(view, credential)
                if objection is not None:
                    raise objection
                if self._eligibility.is_answer_pending(view, credential):
                    return None
                has_presented = True
                saved = self._presenter.present(
                    lock, view, credential, previous, lambda unsaved: self._take(unsaved, True)
                )
                if saved is not None:
                    return saved
            return None

        saved = self._under_lock(self._lock_for(), attempt)
        return self._taken(saved, is_new=True, minted=True)

    def _presentable(self, previous: Token, secret: str) -> Credential:
        for credential in self._grant.credentials(previous):
            if credential.kind == "refresh_token" and credential.secret == secret:
                return credential._replace(first=True, adopted=True)
        raise ValueError(
            "the source presents no refresh token: a token response with an access_token is needed"
        )

    def clear_refusals(self) -> Token | None:
        """Forget what was refused and what is held, and tell which token there is.

        :raises StoreError: if that cannot be written.
        :raises LockTimeout: if others hold the lock for too long.
        """

        def without_refusals(view: View) -> Record:
            self._raise_if_foreign(view)
            # An empty slot stays empty: others may have seen a token there, and bring it back.
            is_empty = view.tag is None and not view.was_reset
            return view.record if is_empty else view.record.without_refusals()

        view = self._write_locked(without_refusals)
        self._eligibility.clear_refusals(view=view)
        return view.record.token

    def forget(self, revoke: Callable[[Token], object] | None) -> Token | None:
        """Empty the slot.  What was spent or refused stays remembered.

        :param revoke: called with the token while nobody can renew it.  If it raises, nothing is
            changed.
        :returns: the token that was there.
        :raises RefreshConfigError: if it may be another user's.
        :raises StoreError: if the slot cannot be written.
        :raises LockTimeout: if others hold the lock for too long.
        """
        found: list[Token | None] = []

        def without_token(view: View) -> Record:
            self._raise_if_foreign(view)
            token = view.record.token
            if token is not None and revoke is not None:
                revoke(token)
            found.append(token)
            if token is None or view.tag is None:
                return view.record  # with an intent, perhaps, that others have to know of
            return view.record.without_token(self._slot.stamp(view))

        self._write_locked(without_token, self._lock_for())
        self._slot.forget()
        return found[-1]

    def distrust(self, token: Token) -> Token | None:
        """Note for all that *token* was refused when it was new.

        :returns: the token that others have obtained meanwhile: then there is nothing to note.
        :raises StoreError: if that cannot be written.
        :raises LockTimeout: if others hold the lock for too long.
        """
        u = self._runtime.random()

        def with_distrust(view: View) -> Record:
            if not token.is_same(view.record.token) or self._is_distrusted(view, token):
                return view.record
            return view.record.with_distrust(token, self._slot.stamp(view), u)

        # The API refuses the token to all who share it: one of them notes that, and the others see
        # it without waiting for the lock in turn.
        view = self._write_locked(with_distrust, looks_first=True)
        found = self._matching_token(view)
        if found is None or token.is_same(found):
            return None
        return self._taken(view, is_new=True).token

    # --- the steps -----------------------------------------------------------------------

    def _perform(
        self, request: RenewalRequest, serve: Callable[[Outcome], None], seen: View | None
    ) -> Outcome | None:
        pauses = self._pauses(request.since)
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
                    outcome = self._locked(lock, request, first, serve)
                    if outcome is not None:
                        return outcome
            except Conflict:
                pass
            finally:
                lock.release()
            if not request.waits:
                return None
            # At least for as long as it took to ask: a store that many ask at once has to come to
            # the questions of whoever renews.
            took = view.took + self._runtime.monotonic() - tried
            if is_news := self._wait_for_news(max(next(pauses), took), view):
                known, view = view, self._slot.look()
                is_news = view.tag != known.tag

    def _locked(
        self,
        lock: StoreLock,
        request: RenewalRequest,
        first: View,
        serve: Callable[[Outcome], None],
    ) -> Outcome | None:
        """What the holder of the lock does.

        :returns: ``None`` if the lock was lost, or an earlier holder still awaits its answer.
        """
        while lock.confirm():
            # What was read before the lock was had may be long out of date.
            view = self._slot.look()
            outcome = self._settled(view, request, first)
            if outcome is not None:
                if view.was_reset:
                    self._slot.write(view, view.record)
                return outcome
            self._raise_if_futile(view)
            credential = self._eligibility.credential(view)
            if self._eligibility.is_answer_pending(view, credential):
                return None
            saved = self._presenter.present(
                lock,
                view,
                credential,
                view.record.token,
                lambda unsaved: serve(self._taken(unsaved, is_new=True, minted=True)),
            )
            if saved is not None:
                return self._taken(saved, is_new=True, minted=True)
        return None

    def _settled(self, view: View, request: RenewalRequest, first: View) -> Outcome | None:
        """The outcome, if what the slot holds meets *request*.

        A token that was minted since the first look does, whatever its expiry says: somebody
        renewed for us, and clocks differ.
        """
        token = self._matching_token(view)
        if token is None:
            return None
        if token.is_same(request.rejected):
            is_distrusted = self._is_distrusted(view, token)
            return Outcome(token, is_new=False, distrusted=True) if is_distrusted else None
        is_new = not token.is_same(first.record.token)
        held = self._weigh(view)
        least = held.least(fresh=request.fresh, min_validity=request.min_validity)
        is_good = held.left(self._runtime.monotonic(), self._runtime.wall()) > least
        # Taken in any case: if no better one can be had, it is used to its end.
        outcome = self._taken(view, is_new)
        return outcome if is_new or is_good else None

    def _is_distrusted(self, view: View, token: Token) -> bool:
        distrust = view.record.distrust
        return distrust is not None and distrust.binds(token.fingerprint, self._slot.now(view))

    def _matching_token(self, view: View) -> Token | None:
        """The token of the slot, if it was asked for as we ask.

        A change of scope or resource is accepted once: then the token is renewed as now asked.

        :raises RefreshConfigError: if ours was replaced by another's while its token lives: the
            programs would renew each other to death; or if the token may be another user's.
        """
        record, ours = view.record, self._grant.requested
        if view.is_foreign and record.is_grant_over(self._slot.now(view)):
            return None  # nothing is lost if the configured refresh token takes its place
        self._raise_if_foreign(view)
        if dict(record.requested) == dict(ours):
            return record.token
        if record.was_replaced_lately(ours, self._slot.now(view)):
            raise messages.requests_differ(self._slot.store, record.requested, ours)
        return None

    def _raise_if_foreign(self, view: View) -> None:
        if view.is_foreign:
            raise messages.other_first_token(self._slot.store)

    def _raise_if_futile(self, view: View) -> None:
        """Fail at once, without lock and network, where a renewal could only fail."""
        self._eligibility.raise_if_backing_off(view.record, self._slot.now(view))
        self._eligibility.credential(view)

    def _taken(self, view: View, is_new: bool, minted: bool = False) -> Outcome:
        token = view.record.token
        assert token is not None
        self._take(view, minted)
        return Outcome(token, is_new, minted)

    def _adopted(self, view: View, token: Token) -> Record:
        refresh = token.refresh_token
        if refresh is not None and self._eligibility.is_spent(view, refresh):
            raise messages.already_spent(self._slot.store)
        # By the earlier of the times that it may be: no token is taken for younger than it is.
        offset = self._slot.stamp(view) - self._runtime.wall()
        expires_at = None if token.expires_at is None else token.expires_at + offset
        token = token.replace(issued_at=token.issued_at + offset, expires_at=expires_at)
        now, seeds = self._slot.stamp(view), self._slot.seeds(view)
        return view.record.with_adopted_token(token, self._grant.requested, now, seeds)

    def _write_locked(
        self,
        change: Callable[[View], Record],
        hold_for: float = _MARGIN,
        *,
        looks_first: bool = False,
    ) -> View:
        """Write what *change* makes of the record.

        :param looks_first: whether *change* is asked before each attempt at the lock as well: it
            has no other effect, and the lock is needless if it changes nothing.
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
        """What *attempt* gives in the end, which is called with the lock until it gives something.

        :param needless: called before each try for the lock; what it gives ends that, too.
        :raises LockTimeout: if others hold the lock for too long.
        """
        pauses = self._pauses(None)
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
        # A refused refresh token may be followed by a password.
        return self._grant.deadline * 2 + _MARGIN

    def _pauses(self, since: float | None) -> Iterator[float]:
        """Seconds between two attempts: few at first, then more, and never in step with others.

        :param since: since when somebody waits, if that was before.
        :raises LockTimeout: when the time to wait is over.
        """
        runtime = self._runtime
        began = runtime.monotonic() if since is None else since
        pause, longest = self._slot.store.poll
        while runtime.monotonic() < began + self._lock_timeout and not runtime.exiting():
            yield pause * (0.5 + runtime.random() / 2)
            pause = min(pause * 1.5, longest)
        raise messages.lock_timed_out(self._slot.store, runtime.monotonic() - began)

    def _wait_for_news(self, seconds: float, view: View) -> bool:
        """Sleep, and tell whether there may be news of the slot since *view*: at once, if that can
        be told by a glimpse."""
        runtime = self._runtime
        end = runtime.monotonic() + seconds
        while (left := end - runtime.monotonic()) > 0:
            runtime.sleep(left if view.glimpse is None else min(left, _GLIMPSE))
            if self._slot.has_changed(view):
                return True
        return False
