"""One renewal as the processes that share a store see it: at most one of them does it.

The order never varies: take the lock, **look again**, leave if somebody was faster, write the
intent if what will be presented can be spent, present it, **save**, and only then let anyone use
the token; at last let the lock go.

Who does not get the lock watches the record, and tries the lock each time it looks: when the
renewal is done, all see it at their next look and nobody queues for the lock; when the holder has
died, one of them takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from tokenadapter.choice import Choice
from tokenadapter.hand import Hand
from tokenadapter.journal import Journal
from tokenadapter.machine import Machine
from tokenadapter.presentation import Presenter
from tokenadapter.protocols import Grant, StoreLock
from tokenadapter.record import Record
from tokenadapter.slot import Moved, Slot, View
from tokenadapter.token import Token

__all__ = ["Need", "Outcome", "Renewal"]

# Seconds that looking and saving may take beyond the grant's own deadline before a lease on the
# lock may lapse.
_MARGIN: Final = 10.0


class Need(NamedTuple):
    """What a renewal is for."""

    rejected: Token | None = None
    """A token that the API refused; ``None`` where the one in hand is only old."""
    was_good: bool = False
    """Whether the API took *rejected* before, so that it was not refused for being new."""
    fresh: bool = False
    """Whether a token that is stale will not do."""
    waits: bool = True
    """Whether somebody waits for it: if not, others' renewals are left to them."""


class Outcome(NamedTuple):
    """What came of a renewal."""

    token: Token
    is_new: bool
    """Whether it was minted since the renewal was begun."""
    minted: bool = False
    """Whether this very process minted it."""
    distrusted: bool = False
    """Whether it was refused when it was new: for a while, nobody renews it for a refusal."""


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
        machine: Machine,
        journal: Journal,
        *,
        weigh: Callable[[View], Hand],
        take: Callable[[View, bool], None],
        lock_timeout: float,
    ) -> None:
        self.choice = Choice(slot, grant, machine)
        self._presenter = Presenter(slot, grant, self.choice, machine, journal)
        self._slot = slot
        self._grant = grant
        self._machine = machine
        self._weigh = weigh
        self._take = take
        self._lock_timeout = lock_timeout

    def perform(self, need: Need, serve: Callable[[Outcome], None]) -> Outcome | None:
        """See to it that there is a token that meets *need*.

        :param serve: lets the waiters go before the work is over: a token that cannot be saved
            yet is good for this process.
        :returns: ``None`` if nobody waits for it, and others see to it.
        :raises TokenError: if there is none.
        """
        from tokenadapter.errors import StoreError

        try:
            return self._perform(need, serve)
        except StoreError:
            # Without the store nothing can be spent.  What spends nothing goes on.
            if not need.waits:
                raise
            view = self._presenter.present_alone()
            if view is None:
                raise
            return self._taken(view, is_new=True, minted=True)

    def _perform(self, need: Need, serve: Callable[[Outcome], None]) -> Outcome | None:
        pauses = self._pauses()
        first: View | None = None
        while True:
            view = self._slot.look()
            first = first or view
            outcome = self._settled(view, need, first)
            if outcome is not None and view.tag is not None:
                return outcome
            self._raise_if_hopeless(view)
            lock = self._slot.store.lock()
            if lock.acquire(self._grant.deadline * 2 + _MARGIN):
                try:
                    outcome = self._locked(lock, need, first, serve)
                except Moved:
                    outcome = None
                finally:
                    lock.release()
                if outcome is not None:
                    return outcome
            if not need.waits:
                return None
            next(pauses)

    def adopt(self, token: Token) -> Token:
        """Put *token* into the slot, whatever is there.

        :raises TokenNotPersisted: if it cannot be saved.
        :raises LockTimeout: if others hold the lock for too long.
        """
        from tokenadapter.errors import StoreError, TokenNotPersisted

        pauses = self._pauses()
        while True:
            try:
                view = self._write_locked(lambda view: self._adopted(view, token))
            except StoreError as error:
                raise TokenNotPersisted(
                    f"The token could not be saved, and is not used: {error} Call adopt() again."
                ) from error
            if view is not None:
                self.choice.succeeded()
                return self._taken(view, is_new=True, minted=True).token
            next(pauses)

    def distrust(self, token: Token) -> None:
        """Note for all that *token* was refused when it was new.  It matters little if that
        fails: whoever does not know renews once more."""
        from tokenadapter.errors import StoreError

        u = self._machine.random()
        with suppress(StoreError):
            self._write_locked(
                lambda view: (
                    view.record.distrusting(token, self._slot.now(view), u)
                    if token.is_same(view.record.token)
                    else None
                )
            )

    def _write_locked(self, change: Callable[[View], Record | None]) -> View | None:
        """Write what *change* makes of the record, unless it is ``None``.

        :returns: ``None`` if nothing was written: the lock could not be had, or was lost.
        """
        lock = self._slot.store.lock()
        if not lock.acquire(_MARGIN):
            return None
        try:
            view = self._slot.look()
            record = change(view)
            return None if record is None else self._slot.write(view, record)
        except Moved:
            return None
        finally:
            lock.release()

    def _adopted(self, view: View, token: Token) -> Record:
        offset = self._slot.now(view) - self._machine.wall()
        expires_at = None if token.expires_at is None else token.expires_at + offset
        token = token.replace(issued_at=token.issued_at + offset, expires_at=expires_at)
        return view.record.adopted(token, self._grant.asked)

    def _pauses(self) -> Iterator[None]:
        """Sleeps between two looks: short at first, then longer, and never in step with others.

        :raises LockTimeout: when the time to wait is over.
        """
        machine = self._machine
        end = machine.monotonic() + self._lock_timeout
        pause, longest = self._slot.store.poll
        while machine.monotonic() < end and not machine.exiting():
            machine.sleep(pause * (0.5 + machine.random() / 2))
            pause = min(pause * 1.5, longest)
            yield
        from tokenadapter.errors import LockTimeout

        raise LockTimeout(
            f"Others have held the lock of {self._slot.store!r} for {self._lock_timeout:g} s. "
            "Nothing was sent and nothing changed: try again, or raise lock_timeout if the token "
            "endpoint takes that long."
        )

    def _locked(
        self, lock: StoreLock, need: Need, first: View, serve: Callable[[Outcome], None]
    ) -> Outcome | None:
        """What the holder of the lock does.

        :returns: ``None`` if the lock was lost.
        """
        while lock.confirm():
            # What was read before the lock was had may be long out of date.
            view = self._slot.look()
            outcome = self._settled(view, need, first)
            if outcome is not None:
                if view.tag is None:
                    self._slot.write(view, view.record)  # the slot was emptied
                return outcome
            self._raise_if_hopeless(view)
            credential = self.choice.credential(view)
            saved = self._presenter.present(
                lock,
                view,
                credential,
                lambda unsaved: serve(self._taken(unsaved, is_new=True, minted=True)),
            )
            if saved is not None:
                return self._taken(saved, is_new=True, minted=True)
        return None

    def _settled(self, view: View, need: Need, first: View) -> Outcome | None:
        """The outcome, if what the slot holds meets *need*.

        A token that was minted since the first look does, whatever its expiry says: somebody
        renewed for us, and clocks differ.
        """
        token = self._own_token(view)
        if token is None:
            return None
        if token.is_same(need.rejected):
            distrust = view.record.distrust
            if (
                distrust is not None
                and not need.was_good
                and distrust.binds(token.fingerprint, self._slot.now(view))
            ):
                return Outcome(token, is_new=False, distrusted=True)
            return None
        is_new = not token.is_same(first.record.token)
        hand = self._weigh(view)
        least = hand.soft if need.fresh else hand.hard
        is_good = hand.left(self._machine.monotonic(), self._machine.wall()) > least
        taken = self._taken(view, is_new)
        return taken if is_new or is_good else None

    def _own_token(self, view: View) -> Token | None:
        """The token of the slot, if it was asked for as we ask.

        A change of scope or resource is accepted once: then the token is renewed as now asked.

        :raises RefreshConfigError: if ours was replaced by another's while its token lives: two
            programs would renew each other to death.
        """
        record, ours = view.record, dict(self._grant.asked)
        if dict(record.asked) == ours:
            return record.token
        if (
            record.replaced is not None
            and dict(record.replaced) == ours
            and not record.is_expired(self._slot.now(view))
        ):
            from tokenadapter.errors import RefreshConfigError

            raise RefreshConfigError(
                f"Two programs share {self._slot.store!r} but ask for different things: "
                f"{ours or 'nothing in particular'} here, "
                f"{dict(record.asked) or 'nothing in particular'} there. The token there is kept: "
                "let both ask for everything that either needs, or give each its own store."
            )
        return None

    def _raise_if_hopeless(self, view: View) -> None:
        """Fail at once, without lock and network, where a renewal could only fail."""
        self.choice.raise_if_held(view.record, self._slot.now(view))
        self.choice.credential(view)

    def _taken(self, view: View, is_new: bool, minted: bool = False) -> Outcome:
        token = view.record.token
        assert token is not None
        self._take(view, minted)
        return Outcome(token, is_new, minted)
