"""The state of a world, and the invariants."""

from __future__ import annotations

from typing import Any, NamedTuple

# [invariants]
NOT_REVOKED = "The server revokes no living grant for reuse, unless an answer was lost."
NOT_TWICE = "No refresh token is presented twice, unless the first answer was lost."
ONE_AT_A_TIME = "No process begins a presentation while the holder of the lock presents."
SAVED_FIRST = "No process uses a token that is not saved."
NOT_UNDONE = "No process undoes a renewal, a login or a logout that was saved."
TRUTHFUL = "No tombstone names a refresh token that is valid."
LIVELY = "When nothing more goes wrong, everyone can get a good token or a truthful refusal."
# [end]


class Record(NamedTuple):
    """The content of the store.

    A token is named by its login and its generation: ``A0`` came with the first login, and ``A1``
    is what the server gave for ``A0``.
    """

    login: int
    """The number of the login, or of the logout, in the order of time."""
    generation: int
    intent: str = ""
    """The process that presents the refresh token, and may still get an answer."""
    status: str = "alive"
    """``alive``; ``dead`` if there is a tombstone; ``empty`` after a logout."""

    @property
    def token(self) -> tuple[int, int]:
        return self[:2]

    def quiet(self) -> Record:
        return self._replace(intent="")

    def __str__(self) -> str:
        name = f"{'ABCD'[self.login]}{self.generation}"
        return name if self.status == "alive" else f"{name} ({self.status})"


FIRST = Record(0, 0)
NOTHING = Record(-1, 0, status="empty")


class Grant(NamedTuple):
    """The grant of one login at the server."""

    current: int
    """The generation of the refresh token that it accepts."""
    alive: bool = True
    in_grace: bool = False
    """Whether it accepts the one before as well, and repeats its answer."""


class Process(NamedTuple):
    name: str
    memory: Record = FIRST
    """The record that it uses; during a renewal, the record that it last read or wrote."""
    phase: str = "idle"
    answer: str = ""


class State(NamedTuple):
    processes: tuple[Process, ...]
    faults: int
    """The number of faults that may still happen."""
    record: Record = FIRST
    previous: Record = FIRST
    """The record before the last write, which the store may lose."""
    spent: frozenset[tuple[int, int]] = frozenset()
    """The refresh tokens that a rotation has used up, remembered beside the record."""
    lock: str | None = None
    grants: tuple[Grant, ...] = (Grant(0),)
    given_up: frozenset[str] = frozenset()
    """The processes whose deadline is over: others no longer believe their intents."""

    # For the invariants only.
    presented: frozenset[tuple[int, int]] = frozenset()
    """The refresh tokens that were presented, without those whose answer was lost."""
    saved: frozenset[tuple[int, int]] = frozenset({FIRST.token})
    wrong: str = ""
    """The invariant that was violated."""

    def put(self, process: Process, **changes: Any) -> State:
        """This state, with *changes* to one process."""
        changed = process._replace(**changes)
        return self._replace(
            processes=tuple(
                changed if other.name == process.name else other for other in self.processes
            )
        )

    def write(self, record: Record) -> State:
        return self._replace(
            record=record,
            previous=self.record if self.faults else record,
            saved=self.saved | {record.token},
            wrong=NOT_UNDONE if record.token < self.record.token else self.wrong,
        )

    def leave(self, process: Process, uses: Record) -> State:
        """The process uses the record *uses*, and releases the lock."""
        idle = self.put(process, memory=uses.quiet(), phase="idle", answer="")
        return idle._replace(
            lock=None if self.lock == process.name else self.lock,
            wrong=self.wrong if uses.token in self.saved else SAVED_FIRST,
        )

    def grant(self, login: int, grant: Grant) -> State:
        return self._replace(grants=(*self.grants[:login], grant, *self.grants[login + 1 :]))

    def lose(self, process: Process) -> State:
        """The answer that the process awaits is lost or late."""
        lost = {process.memory.token} if process.phase == "sent" else set()
        return self._replace(presented=self.presented - lost)
