"""Processes, their threads, and their computers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from greenlet import greenlet

from simulation.runtime import SimulatedRuntime

if TYPE_CHECKING:
    from simulation.world import World


# Seconds between two checks of an ending process for its presentations.
_CHECKS_EVERY = 0.01


class Computer:
    """A computer with its clocks.

    :ivar ahead: the seconds by which its wall clock is fast.
    :ivar asleep: the seconds for which its monotonic clock has stopped.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        self.asleep = 0.0


class Process:
    """A process with threads, which can end at any point.

    :param parent: the process that it was forked from.
    :ivar is_exiting: whether its main thread has ended and it waits for the others.
    :ivar is_ending: whether it was terminated and waits for its presentations.
    :ivar ends_abruptly: whether it may end by ``os._exit()``, or be frozen, after a request.
    :ivar requesting: the number of its threads that wait for a token.
    :ivar presenting: the threads that present a credential, each with the deadline of the wait.
    :ivar slept_from: the number of writes of the slot when it was last stopped.
    :ivar stalled: the seconds for which it has been stopped so far.
    """

    def __init__(
        self, world: World, name: str, computer: Computer, parent: Process | None = None
    ) -> None:
        self.world = world
        self.name = name
        self.computer = computer
        self.parent = parent
        self.runtime = SimulatedRuntime(self)
        self.began = world.now
        self.alive = True
        self.was_killed = False
        self.is_exiting = False
        self.is_ending = False
        self.ends_abruptly = False
        self.requesting = 0
        self.presenting: dict[Task, float] = {}
        self.starts_threads_at_exit = True
        self.tasks: list[Task] = []
        self.main: Task = None  # type: ignore[assignment]
        self.stalled = 0.0
        self.stalled_until = 0.0
        self.slept_from = 0
        self.on_order: Callable[[Process], None] = lambda process: None
        self.on_end: Callable[[Process], None] = lambda process: None
        world.processes[name] = self

    def __repr__(self) -> str:
        return self.name

    def is_or_was_forked_from(self, other: Process, time: float) -> bool:
        """Whether this process is *other*, or was forked from it after *time*."""
        if self is other or self.parent is None:
            return self is other
        return time <= self.began and self.parent.is_or_was_forked_from(other, time)

    def sees_death_of(self, other: Process) -> bool:
        """Whether *other* has ended on the same computer."""
        return not other.alive and other.computer is self.computer

    def sees_life_of(self, other: Process) -> bool:
        """Whether *other* lives on the same computer."""
        return other.alive and other.computer is self.computer

    def start(self, work: Callable[[], None], *, helps: bool = False) -> Task:
        """Start a thread."""
        task = Task(self, work, helps)
        self.tasks.append(task)
        self.world.tasks.append(task)
        return task

    def has_ended(self, task: Task) -> None:
        """Remove a thread that has ended."""
        self.tasks.remove(task)
        self.world.tasks.remove(task)
        if not self.tasks:
            self._end()

    def kill(self) -> None:
        """Kill the process as by kill -9: its threads do not continue, not even to clean up."""
        self.was_killed = True
        for task in self.tasks:
            self.world.tasks.remove(task)
        self.world.killed_tasks += self.tasks
        self.tasks.clear()
        self._end()

    def terminate(self) -> None:
        """Terminate the process as by SIGTERM: the main thread waits for presentations, and
        exits."""
        self.is_ending = True
        # The handler does not return to the interrupted code, unless that code defers signals.
        if self.main in self.tasks and self.main not in self.presenting:
            self.tasks.remove(self.main)
            self.world.tasks.remove(self.main)
            self.world.killed_tasks.append(self.main)
        self.start(self._end_in_order)

    def exit_hard(self) -> None:
        """End the process as by ``os._exit()`` in the running thread."""
        self.kill()
        self.world.hub.switch(None)

    def _end_in_order(self) -> None:
        world = self.world
        while self.presenting and world.now < max(self.presenting.values()):
            world.sleep(_CHECKS_EVERY)
        self.on_order(self)
        self.exit_hard()

    def stall(self, seconds: float) -> None:
        """Stop the process as by SIGSTOP, with a later SIGCONT."""
        self.stalled += seconds
        self.stalled_until = self.world.now + seconds
        for task in self.tasks:
            task.wakes = max(task.wakes, self.stalled_until)

    def _end(self) -> None:
        self.alive = False
        self.on_end(self)


class Task:
    """A thread.

    :ivar helps: whether it is a helper thread.
    :ivar wakes: the time at which it can continue.
    :ivar label: its next step.
    :ivar points: the number of points that it has reached, without clock reads.
    """

    __slots__ = ("began", "greenlet", "helps", "label", "points", "process", "wakes")

    def __init__(self, process: Process, work: Callable[[], None], helps: bool) -> None:
        self.process = process
        self.helps = helps
        self.label = "start"
        self.points = 0
        self.began = self.wakes = process.world.now
        self.greenlet = greenlet(lambda: self._run(work), process.world.hub)

    def _run(self, work: Callable[[], None]) -> None:
        work()
        if not self.process.world.over:
            self.process.has_ended(self)
