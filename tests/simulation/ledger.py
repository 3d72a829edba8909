"""What the witness writes down: presentations, and what it knows of each process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulation.process import Process, Task
from simulation.store import SimulatedLock
from tokenadapter.protocols import Credential


class Presentation:
    """One credential, presented once.

    :ivar outcome: ``open``, until the process is told; then ``minted``, ``refused``,
        ``unprocessed`` or ``unknown``.
    :ivar ended_at: when the process was told.
    :ivar access: the access token that it brought.
    :ivar recorded: which write of the slot told the outcome to all; ``None``: none did.
    :ivar excused: whether none need do so.
    """

    def __init__(
        self, process: Process, lock: SimulatedLock | None, credential: Credential
    ) -> None:
        self.process = process
        self.lock = lock
        self.credential = credential
        self.outcome = "open"
        self.ended_at = 0.0
        self.access: str | None = None
        self.recorded: int | None = None
        self.excused = False

    def has_lost_its_lock(self) -> bool:
        """Whether others may present something by now."""
        return not self.process.alive or self.lock is None or not self.lock.is_held()


class Account:
    """What the witness knows of one process.

    :ivar presentation: the last one that it made.
    :ivar newest: the age of the newest token that it has seen.
    :ivar seen: the generation and the salt of the record in which it saw that, and when that token
        was issued, as the record says.
    :ivar knows: of each of its threads, the number of the last write of the slot that it has made
        or seen.
    :ivar slowest_look: the longest that a look at the slot took, in seconds.
    :ivar requests: how often its users made a request.
    :ivar mints: how many tokens it obtained.
    """

    def __init__(self) -> None:
        self.presentation: Presentation | None = None
        self.newest = (0, 0)
        self.seen: tuple[int, str, float] | None = None
        self.knows: dict[Task, int] = {}
        self.store_failures = 0
        self.store_failed_at = 0.0
        self.slowest_look = 0.0
        self.requests = 0
        self.mints = 0


class Mint:
    """One token that a process was given for a credential.

    :ivar told: whether the program was told of it.
    """

    def __init__(self, process: Process, at: float) -> None:
        self.process = process
        self.at = at
        self.told = False


def digest(salt: str, kind: str, secret: str) -> str:
    """In place of the hash by which a record knows a credential: quick, and can be read."""
    return f"{salt}:{kind}:{secret}"


def named(item: Mapping[str, Any]) -> str:
    """The secret that an intent or a tombstone is about."""
    return str(item["credential"]).rpartition(":")[2]
