"""The open decisions of a schedule: random, or enumerated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """Decides which thread continues, and what fails."""

    def pick(self, options: int) -> int:
        """Which of so many threads goes on; number 0 is the one that ran last, if it can."""

    def chance(self, probability: float) -> bool:
        """Whether an event happens."""

    def between(self, low: float, high: float) -> float:
        """A number from a range."""

    def one_of(self, things: Sequence[T]) -> T:
        """One of several."""

    def clock_reads(self) -> int:
        """After how many clock reads another thread may continue."""


class Dice:
    """Decides by a seeded random number generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.between = self._random.uniform
        self.one_of = self._random.choice
        # Some schedules let a thread run far, some switch all the time.
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
    """Decides every way in turn: all schedules with few detours and few disturbances.

    A thread goes on until it has to wait, and then the oldest that can go on does; whenever
    another one goes on instead, that is a detour.

    Depth first: a path is the list of decisions taken so far, and the next path differs from it
    in the last decision that had another option left.

    :param detours: how many of them there are at most.
    :param disturbances: how many of the things that may happen do happen at most.
    """

    def __init__(self, detours: int, disturbances: int) -> None:
        self._detours = detours
        self._disturbances = disturbances
        self.path: list[int] = []
        self._options: list[int] = []

    def each(self) -> Iterator[Enumeration]:
        """Itself, once for each schedule."""
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
        """Make the same decisions again."""
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
        # Clocks are read between any two other points: these are points enough.
        return 1 << 30

    def _decide(self, options: int) -> int:
        if options == 1:
            return 0
        depth, self._depth = self._depth, self._depth + 1
        if depth == len(self.path):
            self.path.append(0)
            self._options.append(options)
        return self.path[depth]
