"""The token in the hand of this process, and until when it is fresh, usable and alive here.

The store tells what its clock said when the token was read; from then on, age is counted here, by
the wall clock and the monotonic clock, and the larger age counts: the one stands still while a
laptop sleeps, the other can be set back.
"""

from __future__ import annotations

from math import inf
from typing import Self

from tokenadapter.core.policy import windows
from tokenadapter.core.record import Record
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import View
from tokenadapter.token import Token
from tokenadapter.values import Value

__all__ = ["HeldToken", "Outcome", "RenewalRequest", "TokenHolder"]


class HeldToken(Value):
    """A token and its three ends, each as seconds of remaining life at which it comes."""

    token: Token
    u: float
    """Where in its range the soft window lies (see :mod:`tokenadapter.core.policy`)."""
    soft: float
    hard: float
    dies_monotonic: float
    dies_wall: float

    @classmethod
    def take(
        cls, token: Token, *, u: float, early: bool, now: float, monotonic: float, wall: float
    ) -> Self:
        """Take *token* when the store's clock says *now* and ours say *monotonic* and *wall*.

        :param early: whether it may be renewed before anyone has to wait.
        """
        if token.expires_at is None:
            return cls(token, u, 0.0, 0.0, inf, inf)
        soft, hard = windows(token.expires_at - token.issued_at, u)
        # By a clock that was set back, it would seem to come from the future.
        left = min(token.expires_at - now, token.expires_at - token.issued_at)
        return cls(token, u, soft if early else hard, hard, monotonic + left, wall + left)

    def redrawn(self, u: float) -> Self:
        """The same token in another process, which draws for itself."""
        if self.token.expires_at is None or self.soft == self.hard:
            return self
        soft, _ = windows(self.token.expires_at - self.token.issued_at, u)
        return self._replace(u=u, soft=soft)

    def least(self, *, fresh: bool, min_validity: float) -> float:
        """For how many more seconds it must live to do.

        :param fresh: whether a stale one does not.
        :param min_validity: for how long somebody needs it.  If no token of its lifetime could do,
            they get one that is not stale: they would renew each time that they come.
        """
        if min_validity > 0 and self.token.expires_at is not None:
            if min_validity < self.token.expires_at - self.token.issued_at:
                return max(self.soft if fresh else self.hard, min_validity)
            fresh = True
        return self.soft if fresh else self.hard

    def left(self, monotonic: float, wall: float) -> float:
        """For how many more seconds it lives."""
        return min(self.dies_monotonic - monotonic, self.dies_wall - wall)


class Outcome(Value):
    """A token that somebody gets, and how it came to them."""

    token: Token
    is_new: bool
    """Whether it was minted since the renewal was begun, by this process or another: if it is
    refused, the next one would be refused too."""
    minted: bool = False
    """Whether this very process minted it."""
    distrusted: bool = False
    """Whether it was refused when it was new: for a while, nobody renews it for a refusal."""


class TokenHolder:
    """Holds the newest token that this process knows.

    :param early: whether a token may be renewed before anyone has to wait for it.
    :param notice: whether :meth:`fresh` gives notice of the first renewal, see :meth:`heed`.
    """

    def __init__(self, runtime: Runtime, *, early: bool, notice: bool = False) -> None:
        self._runtime = runtime
        self._monotonic, self._wall = runtime.monotonic, runtime.wall
        self._early = early
        self._gives_notice = notice
        self._hand: HeldToken | None = None
        # Of the hand, what every request asks for.
        self._ready: tuple[Token | None, float, float] = (None, 0.0, 0.0)
        # When what is in hand was read or written, by our monotonic clock, and of which record.
        self._taken_at = -inf
        self._taken_of: Record | None = None

    @property
    def held(self) -> HeldToken | None:
        """What is in hand, in whatever state."""
        return self._hand

    def fresh(self) -> Token | None:
        """The token in hand if it is fresh: no lock, no I/O, two looks at the clock."""
        token, monotonic, wall = self._ready
        if self._monotonic() < monotonic and self._wall() < wall:
            return token
        return None

    def should_preload(self) -> bool:
        """Whether a token that is fresh was not given out, once, as notice of the first renewal.

        That is in the third quarter of its fresh time; those who share it draw when.
        """
        if not self._gives_notice or self._hand is None or self.fresh() is not None:
            return False
        self._gives_notice = False
        self._prime()
        return True

    def left(self) -> float:
        """For how many more seconds the token in hand lives; 0 if there is none."""
        held = self._hand
        return 0.0 if held is None else self.left_of(held)

    def left_of(self, held: HeldToken) -> float:
        """For how many more seconds the token of *hand* lives."""
        return held.left(self._monotonic(), self._wall())

    def weigh(self, view: View) -> HeldToken:
        """What the token of a view would be in hand."""
        token, mine = view.record.token, self._hand
        assert token is not None
        known = mine if mine is not None and mine.token.is_same(token) else None
        held = HeldToken.take(
            token,
            u=self._runtime.random() if known is None else known.u,
            early=self._early,
            now=view.read_at,
            monotonic=view.monotonic,
            wall=view.wall,
        )
        if known is None:
            return held
        # A clock that was set back makes nothing younger.
        return held._replace(dies_monotonic=min(held.dies_monotonic, known.dies_monotonic))

    def take(self, view: View) -> Token | None:
        """Take the token of a view, unless what is in hand is newer, or alone alive.

        :returns: what was in hand before, if that was another token and is now replaced.
        """
        if view.monotonic < self._taken_at and not self._is_later(view.record):
            return None  # it was read before what is in hand was written
        held, mine = self.weigh(view), self._hand
        replaced = None
        if mine is not None and not mine.token.is_same(held.token):
            if held.left(self._monotonic(), self._wall()) <= 0 < self.left():
                return None
            replaced = mine.token
        self._taken_at, self._taken_of = max(view.monotonic, self._taken_at), view.record
        self._backoff(held)
        return replaced

    def _is_later(self, record: Record) -> bool:
        """Whether *record* came after what is in hand for certain, whichever look began first."""
        last = self._taken_of
        return last is not None and last.precedes(record)

    def is_ahead_of(self, record: Record) -> bool:
        """Whether what is in hand lives, and came after *record*: it cannot be saved yet."""
        last = self._taken_of
        return last is not None and record.precedes(last) and self.left() > 0

    def drop(self) -> None:
        """Have nothing in hand: the token was given up."""
        self._hand = None
        self._prime()

    def redraw(self) -> None:
        """Draw anew where the soft window lies: this process was forked from another."""
        if self._hand is not None:
            self._backoff(self._hand.redrawn(self._runtime.random()))

    def _backoff(self, held: HeldToken) -> None:
        self._hand = held
        self._prime()

    def _prime(self) -> None:
        """Have :meth:`fresh` ready for what is in hand, also if another thread changes that."""
        while True:
            held = self._hand
            self._ready = (None, 0.0, 0.0) if held is None else self._ends(held)
            if self._hand is held:
                return

    def _ends(self, held: HeldToken) -> tuple[Token, float, float]:
        soft = held.soft
        if self._gives_notice and held.token.expires_at is not None:
            fresh = max(held.left(self._monotonic(), self._wall()) - soft, 0.0)
            soft += fresh * (1 + held.u) / 4
        return held.token, held.dies_monotonic - soft, held.dies_wall - soft


class RenewalRequest(Value):
    """What a renewal is for."""

    rejected: Token | None = None
    """A token that the API refused; ``None`` where the one in hand is only old."""
    fresh: bool = False
    """Whether a token that is stale will not do."""
    min_validity: float = 0.0
    """For how many more seconds it shall live, if tokens like it do (see :class:`HeldToken`)."""
    waits: bool = True
    """Whether somebody waits for it: if not, others' renewals are left to them."""
    since: float | None = None
    """Since when they wait, by the monotonic clock, if that was before the renewal."""
