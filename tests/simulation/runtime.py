"""The runtime of a keeper, controlled by the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tokenadapter.core.runtime import Runtime

if TYPE_CHECKING:
    from simulation.process import Process, Task
    from simulation.world import World


# Seconds for which an ending process waits for a save, beyond the deadline of a request.
_SAVES_WITHIN = 10.0


class SimulatedEvent:
    """The counterpart of :class:`threading.Event`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiting: list[Task] = []

    def __deepcopy__(self, memo: object) -> SimulatedEvent:
        """The copy of a forked child, without the waiting threads of the parent."""
        copied = SimulatedEvent(self._world)
        copied._is_set = self._is_set
        return copied

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for task in self._waiting:
            task.wakes = max(self._world.now, task.process.stalled_until)

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            task = self._world.running
            self._waiting.append(task)
            try:
                self._world.sleep(timeout)
            finally:
                self._waiting.remove(task)
        return self._is_set


class SimulatedRuntime(Runtime):
    """The runtime of one simulated process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._computer = process.computer
        self._world = process.world

    def wall(self) -> float:
        return self._world.now + self._computer.ahead

    def monotonic(self) -> float:
        world = self._world
        # While its keeper is made, nothing of the process runs that could be interrupted.
        world.clock_reads -= bool(self._process.tasks)
        if world.clock_reads < 0:
            world.clock_reads = world.choices.clock_reads()
            world.point("clock")
        return world.now - self._computer.asleep - 900_000.0

    def random(self) -> float:
        return self._world.choices.between(0.0, 1.0)

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def nonce(self) -> str:
        self._world.nonces += 1
        return f"n{self._world.nonces}"

    def process(self) -> str:
        return self._process.name

    def has_died(self, process: str) -> bool:
        return self._process.sees_death_of(self._world.processes[process])

    def may_save(self, process: str) -> bool:
        other = self._world.processes[process]
        if other is self._process:
            return bool(other.presenting)
        return self._process.sees_life_of(other)

    def ends_abruptly(self) -> bool:
        return self._process.ends_abruptly

    def is_elsewhere(self, process: str) -> bool:
        return False

    def thread_id(self) -> int:
        return id(self._world.running)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self._world)

    def start(self, work: Callable[[], None]) -> bool:
        if self._process.is_exiting and not self._process.starts_threads_at_exit:
            return False
        self._process.start(work, helps=True)
        return True

    def is_helper(self) -> bool:
        return self._world.running.helps

    def guard(self) -> bool:
        return True

    @contextmanager
    def presenting(self, seconds: float) -> Iterator[bool]:
        process, task = self._process, self._world.running
        process.presenting[task] = self._world.now + seconds + _SAVES_WITHIN
        try:
            yield not process.is_ending
        finally:
            del process.presenting[task]

    def exiting(self) -> bool:
        """Whether the process was terminated, or its main thread has ended and only helper threads
        and exit handlers still run."""
        process = self._process
        return process.is_ending or (
            process.is_exiting and all(task.helps or task is process.main for task in process.tasks)
        )
