"""The scheduler: which thread continues, and the time.

Each call of a keeper to its runtime, its store or its grant is a *point*: another thread may
continue there, or a fault may occur (:mod:`simulation.faults`).  Threads are greenlets, because
switching between greenlets is cheap."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NoReturn

from greenlet import GreenletExit, getcurrent

from simulation.choices import Choices
from simulation.process import Process, Task

START = 1_000_000.0
# Seconds that a point takes; up to a tenth if another thread wakes up in the meantime.
_TICK = 1e-5
_LONGEST_POINT = 0.1
_MOST_STEPS = 100_000
# Seconds after the last fault.
_LONGEST_CALM = 1_000.0


class Violation(AssertionError):
    """A rule is violated."""


class World:
    """Plays one schedule.

    :ivar now: the true time.
    :ivar calm_from: the time at which all faults are over.
    :ivar disturb: called at points, at :attr:`disturbance_rate`, with the thread at the point and
        its next step.
    :ivar trace: the events as lines; ``None`` without a trace.
    """

    def __init__(self, choices: Choices, *, traced: bool = False) -> None:
        self.choices = choices
        self.now = START
        self.calm_from = inf
        self.disturb: Callable[[Task, str], None] = lambda task, label: None
        self.disturbance_rate = 0.0
        self.trace: list[str] | None = [] if traced else None
        self.processes: dict[str, Process] = {}
        self.tasks: list[Task] = []
        self.killed_tasks: list[Task] = []
        self.running: Task = None  # type: ignore[assignment]
        self.steps = 0
        self.nonces = 0
        self.clock_reads = choices.clock_reads()
        self.over = False
        self.hub = getcurrent()
        self._violation: Violation | None = None

    # --- events --------------------------------------------------------------------------

    def log(self, process: Process | None, what: str, *details: object) -> None:
        """Add a line to the trace."""
        if self.trace is not None and not self.over:
            name = "" if process is None else process.name
            self.trace.append(f"{self.now - START:10.4f} {name:6} {what.format(*details)}")

    def fail(self, message: str) -> NoReturn:
        """End the schedule: *message* names the violated rule.

        The exception is raised in the hub.  Raised here, it would pass through the keeper, which
        handles exceptions.
        """
        if self.over:
            raise GreenletExit
        self._violation = Violation(message)
        if getcurrent() is self.hub:
            raise self._violation
        self.hub.switch("violation")
        raise GreenletExit

    def happens(self, probability: float) -> bool:
        """Whether a fault happens here."""
        return probability > 0 and self.now < self.calm_from and self.choices.chance(probability)

    def point(self, label: str) -> None:
        """A point at which other threads may run before the caller continues."""
        if label != "clock":
            self.running.points += 1
            if self.trace is not None:
                self.log(self.running.process, label)
        self.running.wakes = self.now
        self._switch(label)

    def sleep(self, seconds: float) -> None:
        """The calling thread sleeps."""
        self.running.wakes = self.now + max(seconds, _TICK)
        self._switch("sleep")

    # --- the scheduler -------------------------------------------------------------------

    def run(self) -> None:
        """Run until every thread has ended.

        :raises Violation: if a rule is violated.
        """
        while self.tasks:
            # Threads switch to each other directly.  They switch back to the hub when a thread
            # has ended, and when a fault is to occur.
            label = self._next().greenlet.switch()
            self._check()
            if label is not None:
                self.disturb(self.running, label)

    def interrupt(self, task: Task) -> None:
        """Raise an exception in *task*, as Ctrl-C does."""
        self.running = task
        task.greenlet.throw(KeyboardInterrupt)
        self._check()

    def close(self) -> None:
        """End all greenlets.  Their clean-up must not be part of another schedule, so it runs now,
        up to the next point at most."""
        self.over = True
        for task in self.killed_tasks + self.tasks:
            task.greenlet.throw(GreenletExit)
        self.killed_tasks.clear()
        self.tasks.clear()

    def _switch(self, label: str) -> None:
        if self.over:
            raise GreenletExit
        task = self.running
        task.label = label
        rate = self.disturbance_rate
        if rate and self.now < self.calm_from and self.choices.chance(rate):
            self.hub.switch(label)
            return
        following = self._next()
        if following is not task:
            following.greenlet.switch()

    def _next(self) -> Task:
        """The next thread; the time becomes that at which it continues."""
        now = self.now
        self.steps += 1
        if self.steps > _MOST_STEPS or now > self.calm_from + _LONGEST_CALM:
            self.fail("the schedule does not end")
        ready: list[Task] = []
        sleeper, wakes_next = None, inf
        for task in self.tasks:
            wakes = task.wakes
            if wakes <= now:
                ready.append(task)
            elif wakes < wakes_next:
                sleeper, wakes_next = task, wakes
        if sleeper is not None and (not ready or wakes_next <= now + _LONGEST_POINT):
            following = self._pick(ready, sleeper)
        else:
            following = ready[0] if len(ready) == 1 else self._pick(ready)
        self.now = max(now, following.wakes) + _TICK
        self.running = following
        return following

    def _pick(self, ready: list[Task], *others: Task) -> Task:
        if self.running in ready:
            ready.remove(self.running)
            ready.insert(0, self.running)
        ready += others
        return ready[self.choices.pick(len(ready))] if len(ready) > 1 else ready[0]

    def _check(self) -> None:
        if self._violation is not None:
            raise self._violation
