"""A token in the hand of this process, and until when it is fresh, usable and alive here.

The store tells what its clock said when the token was read; from then on, age is counted here, by
the wall clock and the monotonic clock, and the larger age counts: the one stands still while a
laptop sleeps, the other can be set back.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, Self

from tokenadapter.policy import windows
from tokenadapter.token import Token

__all__ = ["Hand"]


class Hand(NamedTuple):
    """A token and its three ends, each as seconds of remaining life at which it comes."""

    token: Token
    u: float
    """Where in its range the soft window lies (see :mod:`tokenadapter.policy`)."""
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
        left = token.expires_at - now
        return cls(token, u, soft if early else hard, hard, monotonic + left, wall + left)

    def left(self, monotonic: float, wall: float) -> float:
        """For how many more seconds it lives."""
        return min(self.dies_monotonic - monotonic, self.dies_wall - wall)
