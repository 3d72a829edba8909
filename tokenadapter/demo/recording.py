"""What happened in a run: the scenario records it, timeline and summary read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tokenadapter.testing import Stats

Kind = Literal["ok", "failed", "renewed", "replayed"]


class Setting(NamedTuple):
    """The options of a run; ``seconds`` is its length, ``lifetime`` that of a token, in seconds."""

    processes: int
    seconds: float
    lifetime: float


USUAL = Setting(processes=8, seconds=10.0, lifetime=2.0)
QUICK = Setting(processes=4, seconds=3.0, lifetime=1.0)


class Moment(NamedTuple):
    """Something that happened to one process.

    :ivar at: when it ended, in seconds from the start of the run.
    :ivar seconds: how long it had taken.
    """

    at: float
    kind: Kind
    seconds: float = 0.0


class Incident(NamedTuple):
    """Something that was done to the server.

    :ivar at: when it began, in seconds from the start of the run.
    :ivar seconds: how long it took.
    """

    at: float
    what: Literal["revoked", "delayed"]
    seconds: float = 0.0


class Demand(NamedTuple):
    """How many token requests reached the server since the last look."""

    at: float
    requests: int


@dataclass
class Run:
    """One run: a lane of moments for each process, and what the server saw."""

    title: str
    setting: Setting
    lanes: list[list[Moment]]
    stats: Stats
    incidents: list[Incident] = field(default_factory=list)
    demand: list[Demand] = field(default_factory=list)
    crashed: int = 0
    """How many processes did not end as they should."""

    def count(self, *kinds: Kind) -> int:
        """How many moments were of these kinds, in all processes."""
        return sum(moment.kind in kinds for lane in self.lanes for moment in lane)
