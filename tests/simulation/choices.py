"""The open decisions of a schedule: random, or enumerated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """Decides which thread continues, and what fails."""

    def pick(self, options: int) -> int:
        """The number of the thread that continues; 0 is the last one that ran, if it can run."""

    def chance(self, probability: float) -> bool:
        """Whether an event happens."""

    def between(self, low: float, high: float) -> float:
        """A number from a range."""

    def one_of(self, things: Sequence[T]) -> T:
        """One of several."""

    def clock_reads(self) -> int:
        """The number of clock reads before another thread may run."""


class Dice:
    """Decides by a seeded random number generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.between = self._random.uniform
        self.one_of = self._random.choice
        # Some schedules switch threads rarely, others at nearly every point.
        self._persistence = self._random.choice((0.2, 0.5, 0.8, 0.95))

    def pick(self, options: int) -> int:
        throw = self._random.random()
        if throw < self._persistence:
            return 0
        return int((throw - self._persistence) / (1 - self._persistence) * options)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def clock_reads(self) -> int:
        return self._random.randrange(1, 60)


class Enumeration:
    """Enumerates all schedules with few detours and few disturbances.

    By default, a thread runs until it has to wait, and then the oldest thread that can run
    continues.  Each deviation from this order is a detour.

    The enumeration is depth first: a path is the list of the decisions so far, and the next path
    differs in the last decision that had another option left.

    :param detours: the maximal number of detours.
    :param disturbances: the maximal number of disturbances.
    """

    def __init__(self, detours: int, disturbances: int) -> None:
        self._detours = detours
        self._disturbances = disturbances
        self.path: list[int] = []
        self._options: list[int] = []

    def each(self) -> Iterator[Enumeration]:
        """This enumeration, once for each schedule."""
        while True:
            self.rewind()
            yield self
            del self.path[self._depth :], self._options[self._depth :]
            while self.path and self.path[-1] + 1 >= self._options[-1]:
                self.path.pop()
                self._options.pop()
            if not self.path:
                return
            self.path[-1] += 1

    def rewind(self) -> None:
        """Start again, to repeat the decisions of the current path."""
        self._depth = 0
        self._detours_left = self._detours
        self._disturbances_left = self._disturbances

    def pick(self, options: int) -> int:
        if not self._detours_left:
            return 0
        choice = self._decide(options)
        self._detours_left -= choice > 0
        return choice

    def chance(self, probability: float) -> bool:
        if probability <= 0 or not self._disturbances_left:
            return False
        happens = bool(self._decide(2))
        self._disturbances_left -= happens
        return happens

    def between(self, low: float, high: float) -> float:
        return (low + high) / 2

    def one_of(self, things: Sequence[T]) -> T:
        return things[self._decide(len(things))]

    def clock_reads(self) -> int:
        # A clock is read between any two other points: clock reads would add nothing.
        return 1 << 30

    def _decide(self, options: int) -> int:
        if options == 1:
            return 0
        depth, self._depth = self._depth, self._depth + 1
        if depth == len(self.path):
            self.path.append(0)
            self._options.append(options)
        return self.path[depth]
