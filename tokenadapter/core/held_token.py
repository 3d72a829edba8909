"""The token that this process holds, and until when it is fresh, usable and alive here.

The store tells what its clock said when the token was read; from then on, age is counted here, by
the wall clock and the monotonic clock, and the larger age counts: the one stands still while a
laptop sleeps, the other can be set back.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Self

from tokenadapter.core.policy import windows
from tokenadapter.core.record import Record
from tokenadapter.core.runtime import Runtime
from tokenadapter.core.slot import View
from tokenadapter.token import Token
from tokenadapter.values import Value

if TYPE_CHECKING:
    from contextvars import Context

__all__ = ["HeldToken", "Outcome", "RenewalRequest", "TokenHolder"]


class HeldToken(Value):
    """A token and its three ends, each given as the seconds of life that are left then."""

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

        :param early: whether it may be renewed before any caller has to wait.
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
        """How many more seconds the token must live to be good enough.

        :param fresh: whether a stale token is not good enough.
        :param min_validity: how many seconds the caller needs.  If no token of this lifetime lives
            that long, the caller gets one that is not stale: else each call would renew.
        """
        if min_validity > 0 and self.token.expires_at is not None:
            if min_validity < self.token.expires_at - self.token.issued_at:
                return max(self.soft if fresh else self.hard, min_validity)
            fresh = True
        return self.soft if fresh else self.hard

    def left(self, monotonic: float, wall: float) -> float:
        """How many more seconds the token lives."""
        return min(self.dies_monotonic - monotonic, self.dies_wall - wall)


class RenewalRequest(Value):
    """What a caller needs a renewal for."""

    rejected: Token | None = None
    """A token that the API refused; ``None`` if the held token is only old."""
    fresh: bool = False
    """Whether a stale token is not good enough."""
    min_validity: float = 0.0
    """How many more seconds the token must live (see :meth:`HeldToken.least`)."""
    forced: bool = False
    """Whether to renew *rejected* although the API did not refuse it."""
    waits: bool = True
    """Whether a caller waits for it.  If none does, renewals of other processes are left to
    them."""
    since: float | None = None
    """Since when the caller waits, by the monotonic clock, if that was before the renewal."""
    until: float | None = None
    """Until when the caller waits for other processes, by the monotonic clock, if it renews
    itself."""
    context: Context | None = None
    """The context of the caller that waits: the source is called in it, so that traces and
    structured logs of the token request belong to the request that needs the token."""


class Outcome(Value):
    """A token that a caller gets, and how it was obtained."""

    token: Token
    is_new: bool
    """Whether this process or another minted it after the renewal began: if it is refused, the next
    one would be refused too."""
    minted: bool = False
    """Whether this very process minted it."""
    distrusted: bool = False
    """Whether it was refused when it was new: for a while, no refusal makes anyone renew it."""


class TokenHolder:
    """Holds the newest token that this process knows.

    :param requested: what this program requests.  A token with a wider scope is renewed by the
        program that obtained it, if that one still runs: this one renews it only once it has
        expired.
    :param early: whether a token may be renewed before any caller has to wait for it.
    """

    def __init__(self, runtime: Runtime, requested: Mapping[str, str], *, early: bool) -> None:
        self._runtime = runtime
        self._requested = requested
        self._monotonic, self._wall = runtime.monotonic, runtime.wall
        self._early = early
        self._held: HeldToken | None = None
        # Of the held token, what every request asks for.
        self._ready: tuple[Token | None, float, float] = (None, 0.0, 0.0)
        # When the held token was read or written, by our monotonic clock, and of which record.
        self._taken_at = -inf
        self._taken_of: Record | None = None

    @property
    def held(self) -> HeldToken | None:
        """The held token, in whatever state."""
        return self._held

    def fresh(self) -> Token | None:
        """The held token if it is fresh: no lock, no I/O, two looks at the clock."""
        token, monotonic, wall = self._ready
        if self._monotonic() < monotonic and self._wall() < wall:
            return token
        return None

    def left(self) -> float:
        """How many more seconds the held token lives; 0 if there is none."""
        held = self._held
        return 0.0 if held is None else self.left_of(held)

    def left_of(self, held: HeldToken) -> float:
        """How many more seconds the token of *held* lives."""
        return held.left(self._monotonic(), self._wall())

    def alive(self, rejected: Token | None) -> HeldToken | None:
        """The held token, if it lives and is not *rejected*: a caller may do without a new one."""
        held = self._held
        is_alive = held is not None and self.left_of(held) > 0 and not held.token.is_same(rejected)
        return held if is_alive else None

    def weigh(self, view: View) -> HeldToken:
        """The token of a view as a held token."""
        token, mine = view.record.token, self._held
        assert token is not None
        known = mine if mine is not None and mine.token.is_same(token) else None
        is_ours = dict(view.record.requested) == dict(self._requested)
        held = HeldToken.take(
            token,
            u=self._runtime.random() if known is None else known.u,
            early=self._early and is_ours,
            now=view.read_at,
            monotonic=view.monotonic,
            wall=view.wall,
        )
        if view.record.is_rejected:
            return held._replace(dies_monotonic=-inf, dies_wall=-inf)
        if known is None:
            return held
        # A clock that was set back makes nothing younger.
        return held._replace(dies_monotonic=min(held.dies_monotonic, known.dies_monotonic))

    def take(self, view: View, *, adopted: bool = False) -> Token | None:
        """Hold the token of a view, unless the held token is newer, or is the only one alive.

        :param adopted: whether the token begins another login: then the held token is replaced,
            even if it is the only one alive.
        :returns: the token that was held before, if it was another one and is replaced.
        """
        if view.monotonic < self._taken_at and not self.is_behind(view.record):
            return None  # it was read before the held token was written
        held, mine = self.weigh(view), self._held
        replaced = None
        if mine is not None and not mine.token.is_same(held.token):
            is_over = held.left(self._monotonic(), self._wall()) <= 0
            if is_over and self.left() > 0 and not adopted:
                return None
            replaced = mine.token
        self._taken_at, self._taken_of = max(view.monotonic, self._taken_at), view.record
        self._hold(held)
        return replaced

    def is_behind(self, record: Record) -> bool:
        """Whether *record* certainly came after the held token, whichever look began first."""
        last = self._taken_of
        return last is not None and last.precedes(record)

    def is_ahead_of(self, record: Record) -> bool:
        """Whether the held token lives, and came after *record*: it cannot be saved yet."""
        last = self._taken_of
        return last is not None and record.precedes(last) and self.left() > 0

    def drop(self) -> None:
        """Hold no token: it was given up."""
        self._hold(None)

    def redraw(self) -> None:
        """Draw again where the soft window lies: this process was forked from another."""
        if self._held is not None:
            self._hold(self._held.redrawn(self._runtime.random()))

    def _hold(self, held: HeldToken | None) -> None:
        """Hold a token, and have :meth:`fresh` ready for it, also if another thread changes it."""
        self._held = held
        while True:
            held = self._held
            self._ready = (
                (None, 0.0, 0.0)
                if held is None
                else (held.token, held.dies_monotonic - held.soft, held.dies_wall - held.soft)
            )
            if self._held is held:
                return
