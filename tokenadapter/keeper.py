"""The heart: keeps the token of one slot usable, for every thread of this process.

Most calls find a fresh token in hand and leave at once.  All others go the same way: join the
one renewal of this process (:mod:`tokenadapter.flight`), which joins the one renewal of all
processes (:mod:`tokenadapter.renewal`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from tokenadapter.flight import Flight, Run
from tokenadapter.hand import Hand
from tokenadapter.journal import Journal
from tokenadapter.machine import MACHINE, Machine
from tokenadapter.protocols import Grant, TokenSource, TokenStore, as_grant
from tokenadapter.renewal import Need, Outcome, Renewal
from tokenadapter.slot import Slot, View
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter.events import Event

__all__ = ["TokenKeeper"]

# In the soft window, whoever lost the race looks again this often in its span.
_LOOKS_PER_WINDOW: Final = 20


class TokenKeeper:
    """Keeps one slot's token usable: one renewal per expiry, for all who share the store.

    :param source: how a token is obtained: a grant such as
        :class:`~tokenadapter.ClientCredentials`, or a function of the previous token.
    :param store: where the token lives; without one, in the memory of this keeper.
    :param on_refresh: called with the new token once per renewal, by the process that did it,
        after the token is saved and before any request uses it.  It runs in the helper thread;
        what it raises is logged, and costs no request.
    :param on_event: called with each event of :mod:`tokenadapter.events`.
    :param renew_early: whether to renew in the background before the token expires.  Turn it off
        for a server that kills the old token when it issues a new one.
    :param lock_timeout: for how many seconds to wait for a renewal that another thread or process
        has under way.
    :param whose: whose tokens a plain function obtains, as names and texts; a record that names
        another is refused.
    """

    def __init__(
        self,
        source: Grant | TokenSource,
        store: TokenStore | None = None,
        *,
        on_refresh: Callable[[Token], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        renew_early: bool = True,
        lock_timeout: float = 30.0,
        whose: Mapping[str, str] | None = None,
        machine: Machine = MACHINE,
    ) -> None:
        if store is None:
            from tokenadapter.stores.memory import MemoryStore

            store = MemoryStore()
        self.source = source
        self.store = store
        self.grant = as_grant(source, whose or {})
        self.journal = Journal(on_event)
        self.on_refresh = on_refresh
        self.renew_early = renew_early
        self.lock_timeout = lock_timeout
        self._whose = whose
        self._machine = machine
        self._monotonic, self._wall = machine.monotonic, machine.wall
        self._begin(has_private_copy=False)
        _KEEPERS.add(self)

    def _begin(self, *, has_private_copy: bool) -> None:
        self._slot = Slot(self.store, self.grant, self._machine)
        self._flight: Flight[Outcome | None] = Flight(self._machine)
        self._renewal = Renewal(
            self._slot,
            self.grant,
            self._machine,
            self.journal,
            weigh=self._weigh,
            take=self._take,
            lock_timeout=self.lock_timeout,
        )
        self._renewal.choice.has_private_copy = has_private_copy
        self._hand: Hand | None = None
        self._ready: tuple[Token | None, float, float] = (None, 0.0, 0.0)
        self._look_again = 0.0
        self._told: type[BaseException] | None = None
        #: The last token that the API took, as far as faces tell: if it is refused later, it was
        #: not refused for being new.
        self.accepted: Token | None = None

    # --- what faces and programs call ----------------------------------------------------

    def fresh(self) -> Token | None:
        """The token in hand if it is fresh: no lock, no I/O, two looks at the clock."""
        token, monotonic, wall = self._ready
        if self._monotonic() < monotonic and self._wall() < wall:
            return token
        return None

    def current(self, *, timeout: float | None = None) -> Token:
        """A token that can be used now; renewed first if it has expired.

        While the token is stale, a renewal goes on in the background and nobody waits for it.

        :param timeout: for how many seconds to wait at most; ``lock_timeout`` holds besides.
        :raises TokenError: if there is no usable token and none can be obtained.
        """
        return self.fresh() or self.obtain(timeout=timeout).token

    def renew(self, rejected: Token, *, timeout: float | None = None) -> Token:
        """Another token than *rejected*, which the API refused.

        If somebody has renewed meanwhile, it is theirs; nobody asks for a second one.  If
        *rejected* itself comes back, a renewal would not help: it was refused when it was new.

        :param timeout: as for :meth:`current`.
        :raises TokenError: if no other token can be obtained.
        """
        return self.obtain(rejected, timeout=timeout).token

    def obtain(
        self,
        rejected: Token | None = None,
        *,
        timeout: float | None = None,
        patient: bool = False,
    ) -> Outcome:
        """What :meth:`current` and :meth:`renew` do, told with its circumstances.

        :param patient: wait for the renewal of a token that is only stale, too.
        """
        outcome = self._in_hand(rejected, patient)
        if outcome is not None:
            return outcome
        started = self._monotonic()
        end = started + min(self.lock_timeout, inf if timeout is None else timeout)
        try:
            was_good = rejected is not None and rejected.is_same(self.accepted)
            outcome = self._join(Need(rejected, was_good, fresh=patient), end)
        except Exception:
            hand = self._hand
            if hand is None or self._left(hand) <= 0 or hand.token.is_same(rejected):
                raise
            # It is old, but it lives: whatever failed, this caller need not notice.
            return Outcome(hand.token, is_new=False)
        if outcome.is_new:
            self.journal.tell("Waited", seconds=self._monotonic() - started)
        return outcome

    def adopt(self, token: Token | Mapping[str, Any]) -> Token:
        """Put a token that was obtained elsewhere into the store: a new beginning.

        This is the way back after :class:`~tokenadapter.ReauthRequired`, for every process that
        shares the store, and the way in from another library's cache.

        :param token: a token, or a mapping with the keys of a token response, and perhaps
            ``expires_at`` (POSIX timestamp in seconds).
        :returns: the token as it is stored.
        :raises ValueError: if the mapping has no usable ``access_token``.
        :raises TokenNotPersisted: if it cannot be saved; then it is not used either.
        :raises LockTimeout: if a renewal is under way for too long.
        """
        if not isinstance(token, Token):
            token = Token.from_dict(token)
        run = self._flight.under_way()
        if run is not None and run.is_mine():
            raise self._reentered()
        return self._renewal.adopt(token)

    def distrust(self, token: Token) -> None:
        """Note that the API refused *token* although it was new.

        For a while it is not renewed on a refusal, by nobody who shares the store: what refuses a
        new token refuses the next one too, and each costs a renewal.
        """
        if not token.is_same(self.accepted):
            self._renewal.distrust(token)

    @property
    def stats(self) -> Mapping[str, int]:
        """How often each event of :mod:`tokenadapter.events` happened in this process."""
        return self.journal.counts

    # --- the way to a token --------------------------------------------------------------

    def _in_hand(self, rejected: Token | None, patient: bool) -> Outcome | None:
        hand = self._hand
        if hand is None or hand.token.is_same(rejected):
            return None
        left = self._left(hand)
        if left <= hand.hard:
            return None
        if rejected is None and left <= hand.soft:
            if patient:
                return None
            self._renew_in_background(hand)
        return Outcome(hand.token, is_new=False)

    def _renew_in_background(self, hand: Hand) -> None:
        now = self._monotonic()
        if now >= self._look_again:
            self._look_again = now + (hand.soft - hand.hard) / _LOOKS_PER_WINDOW
            self._flight.join(partial(self._work, Need(fresh=True, waits=False)))

    def _join(self, need: Need, end: float) -> Outcome:
        from_now = self._monotonic()
        while True:
            run = self._flight.join(partial(self._work, need))
            if run.is_mine():
                raise self._reentered()
            if not run.wait(end - self._monotonic()):
                raise self._too_slow(end - from_now)
            outcome = run.result()
            if outcome is not None and (
                outcome.distrusted or not outcome.token.is_same(need.rejected)
            ):
                return outcome
            if self._flight.under_way() is run:
                raise self._unsaved()

    def _work(self, need: Need, run: Run[Outcome | None]) -> Outcome | None:
        """What the helper thread does."""
        try:
            outcome = self._renewal.perform(need, run.settle)
        except Exception as error:
            self._tell_failure(error)
            if need.waits:
                raise
            return None
        self._told = None
        if outcome is not None and outcome.minted and self.on_refresh is not None:
            try:
                self.on_refresh(outcome.token)
            except Exception as error:  # noqa: BLE001 - it is the program's, and told
                self.journal.tell_trouble("RefreshCallbackFailed", error)
        return outcome

    # --- the token in hand ---------------------------------------------------------------

    def _left(self, hand: Hand) -> float:
        return hand.left(self._monotonic(), self._wall())

    def _weigh(self, view: View) -> Hand:
        token, mine = view.record.token, self._hand
        assert token is not None
        known = mine is not None and mine.token.is_same(token)
        hand = Hand.take(
            token,
            u=mine.u if mine is not None and known else self._machine.random(),
            early=self.renew_early,
            now=view.now,
            monotonic=view.monotonic,
            wall=view.wall,
        )
        if mine is not None and known:
            # A clock that was set back makes nothing younger.
            return hand._replace(dies_monotonic=min(hand.dies_monotonic, mine.dies_monotonic))
        return hand

    def _take(self, view: View, minted: bool) -> None:
        hand, mine = self._weigh(view), self._hand
        if mine is not None and not mine.token.is_same(hand.token):
            if self._left(hand) <= 0 < self._left(mine):
                return
            self._look_again = 0.0
            if not minted:
                self.journal.tell("Adopted", token=hand.token.fingerprint)
        self._hand = hand
        self._ready = (
            hand.token,
            hand.dies_monotonic - hand.soft,
            hand.dies_wall - hand.soft,
        )

    # --- what is said --------------------------------------------------------------------

    def _tell_failure(self, error: Exception) -> None:
        if type(error) is self._told:
            return  # once is enough: during an outage every request comes here
        self._told = type(error)
        reason = getattr(error, "reason", None)
        if reason is not None:
            self.journal.tell("ReauthNeeded", reason=reason, error=str(error))
        else:
            retry_at = getattr(error, "retry_at", None)
            self.journal.tell("RenewalFailed", error=str(error), retry_at=retry_at)

    def _too_slow(self, waited: float) -> Exception:
        from tokenadapter.errors import LockTimeout

        return LockTimeout(
            f"The renewal of the token in {self.store!r} has not ended within {waited:.1f} s. It "
            "goes on, and what it obtains will be saved: try again, or allow more time by "
            "lock_timeout and by the time-out of the request."
        )

    def _reentered(self) -> Exception:
        from tokenadapter.errors import TokenError

        return TokenError(
            "A token was asked for, or adopted, from within the renewal that is under way: by the "
            "token source, on_refresh or on_event. There is none yet: use another session there."
        )

    def _unsaved(self) -> Exception:
        from tokenadapter.errors import TokenNotPersisted

        return TokenNotPersisted(
            f"The API refuses the newest token, which could not be saved to {self.store!r} yet. "
            "No other is obtained until it is: see to the store."
        )

    # --- copies of this process ----------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {
            "on_refresh": self.on_refresh,
            "on_event": self.journal.listener,
            "renew_early": self.renew_early,
            "lock_timeout": self.lock_timeout,
            "whose": self._whose,
        }
        return _rebuild, (self.source, self.store, settings)

    def _after_fork(self) -> None:
        self._flight.reset()
        self._slot.forget()
        self.journal.reset()
        self._renewal.choice.has_private_copy = True


def _rebuild(
    source: Grant | TokenSource, store: TokenStore, settings: Mapping[str, Any]
) -> TokenKeeper:
    keeper = TokenKeeper(source, store, **settings)
    keeper._begin(has_private_copy=True)
    return keeper


def _after_fork() -> None:
    for keeper in list(_KEEPERS):
        keeper._after_fork()


_KEEPERS: WeakSet[TokenKeeper] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
