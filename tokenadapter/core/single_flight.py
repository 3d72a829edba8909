"""One renewal at a time for the threads of this process.

The first thread that needs a renewal starts a :class:`Run` in a helper thread; all others who
come while it is under way wait for the same run, and get the same result or the same error.

The work is done by a helper, never by a caller, because a caller may leave: by Ctrl-C, by its
time-out, by the end of the program.  The helper goes on until the token is saved, and the
interpreter waits for it when it exits.  Callers wait through an event, not by joining: an
interrupted join would make the interpreter believe that the thread has ended.

Where no helper can be started, or none is wanted, the caller that began the run does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from tokenadapter.core.runtime import Runtime
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import signal

    from tokenadapter.core import messages, shutdown
else:
    messages = late("tokenadapter.core.messages")
    shutdown = late("tokenadapter.core.shutdown")
    signal = late("signal")

__all__ = ["Run", "SingleFlight"]

T = TypeVar("T")


class Run(Generic[T]):
    """One renewal: under way, or settled with a result or an error."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settled = runtime.event()
        self._finished = runtime.event()
        self._result: T | None = None
        self._error: Exception | None = None
        self.thread_id: int | None = None
        # The thread that is about to start it: a signal handler there must not wait for it.
        self.starter: int | None = runtime.thread_id()

    def settle(self, result: T | None) -> None:
        """Let the waiters go with *result*; the run itself may have more to do.  Only the first
        call counts."""
        if not self._settled.is_set():
            self._result = result
            self._settled.set()

    def fail(self, error: Exception) -> None:
        """Let the waiters go with *error*, unless they are gone."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()

    def is_mine(self) -> bool:
        """Whether the calling thread does the work, or is starting it: it must not wait."""
        return self._runtime.thread_id() in (self.thread_id, self.starter)

    def is_settled(self) -> bool:
        """Whether the waiters may go."""
        return self._settled.is_set()

    def wait(self, timeout: float) -> bool:
        """Whether the run was settled within *timeout* seconds."""
        return self._settled.wait(max(timeout, 0.0))

    def finish(self) -> None:
        """The work is over, what it had to do after :meth:`settle` included."""
        self._finished.set()

    def wait_until_finished(self, timeout: float) -> bool:
        """Whether the work was over within *timeout* seconds."""
        return self._finished.wait(max(timeout, 0.0))

    def result(self) -> T | None:
        """What the run was settled with; ``None`` too if it was given up before it began.

        :raises Exception: the run's error, a copy for each who waited.
        """
        if self._error is None:
            return self._result
        again = getattr(self._error, "again", None)
        raise again() if again is not None else self._error


class SingleFlight(Generic[T]):
    """The run under way, if there is one.

    :param inline: whether callers do the work themselves.
    """

    def __init__(self, runtime: Runtime, *, inline: bool = False) -> None:
        self._runtime = runtime
        self._inline = inline
        # At most one item.  A dict, because its setdefault is atomic without a lock: a signal
        # handler may come here while this very thread is here too.
        self._runs: dict[str, Run[T]] = {}

    def under_way(self) -> Run[T] | None:
        """The run under way, if there is one."""
        return self._runs.get("run")

    def join(self, work: Callable[[Run[T]], T]) -> Run[T]:
        """The run under way; if there is none, a new one that does *work*."""
        mine: Run[T] = Run(self._runtime)
        try:
            run = self._runs.setdefault("run", mine)
            if run is mine:
                self._start(mine, work)
        except BaseException:
            if mine.thread_id is None:
                # Interrupted before it began: whoever joined it begins another.
                self._finish(mine)
                mine.settle(None)
            raise
        return run

    def aside(self, work: Callable[[Run[T]], T]) -> Run[T]:
        """A run of its own, beside the one under way: no interrupt stops what a helper does."""
        run: Run[T] = Run(self._runtime)
        self._start(run, work)
        return run

    def wait(self, timeout: float) -> bool:
        """Whether, within *timeout* seconds, no run is under way any more.

        A run does not wait for itself.
        """
        end = self._runtime.monotonic() + timeout
        while (run := self.under_way()) is not None:
            if run.is_mine() or not run.wait_until_finished(end - self._runtime.monotonic()):
                return False
        return True

    def reset(self) -> None:
        """Forget the run under way: this is a forked child, which has no helper thread."""
        self._runs.clear()

    def _start(self, run: Run[T], work: Callable[[Run[T]], T]) -> None:
        try:
            if self._inline or not self._runtime.start(lambda: self._execute(run, work)):
                with shutdown.SignalsDeferred([signal.SIGINT]):
                    self._execute(run, work)
        finally:
            run.starter = None

    def _execute(self, run: Run[T], work: Callable[[Run[T]], T]) -> None:
        run.thread_id = self._runtime.thread_id()
        try:
            result = work(run)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self._finish(run)
            run.fail(error)
        except BaseException as error:
            # SystemExit and its like are for this thread alone.
            self._finish(run)
            run.fail(messages.worker_ended(error))
            raise
        else:
            self._finish(run)
            run.settle(result)

    def _finish(self, run: Run[T]) -> None:
        # Before the waiters are let go: who comes back unsatisfied shall find the way free.
        if self._runs.get("run") is run:
            self._runs.pop("run", None)
        run.finish()
