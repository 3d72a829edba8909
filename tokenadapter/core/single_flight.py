"""One renewal at a time for the threads of this process.

The first thread that needs a renewal starts a :class:`Run` in a helper thread.  Threads that come
while the run is in progress wait for it, and get the same result or the same error.

A helper thread does the work, because a caller may leave at any time: on Ctrl-C, on a timeout, at
the end of the program.  The helper continues until the token is saved, and an exiting interpreter
waits for it.  Callers wait for an event and do not join the thread: after an interrupted join, the
interpreter would believe that the thread has ended.

If no helper can be started, or none is wanted, the caller that starts the run does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from tokenadapter.core.runtime import Runtime
from tokenadapter.late_imports import late
from tokenadapter.values import never

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
    """One renewal: in progress, or settled with a result or an error."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settled = runtime.event()
        self._finished = runtime.event()
        self._result: T | None = None
        self._error: Exception | None = None
        self.thread_id: int | None = None
        # The thread that starts the run.  A signal handler in this thread must not wait for it.
        self.starter: int | None = runtime.thread_id()

    def settle(self, result: T | None) -> None:
        """Release the waiting callers with *result*.  The run may still have work to do.  Only the
        first call has an effect."""
        if not self._settled.is_set():
            self._result = result
            self._settled.set()

    def fail(self, error: Exception) -> None:
        """Release the waiting callers with *error*, unless the run is settled already."""
        if not self._settled.is_set():
            self._error = error
            self._settled.set()

    def is_mine(self) -> bool:
        """Whether the calling thread does or starts the work, and so must not wait for it."""
        return self._runtime.thread_id() in (self.thread_id, self.starter)

    def is_settled(self) -> bool:
        """Whether there is a result or an error."""
        return self._settled.is_set()

    def wait(self, timeout: float) -> bool:
        """Whether the run was settled within *timeout* seconds."""
        return self._settled.wait(max(timeout, 0.0))

    def finish(self) -> None:
        """All work is done, including the work after :meth:`settle`."""
        self._finished.set()

    def wait_until_finished(self, timeout: float) -> bool:
        """Whether all work was done within *timeout* seconds."""
        return self._finished.wait(max(timeout, 0.0))

    def result(self) -> T | None:
        """The result of the run; ``None`` also if the run was abandoned before it began.

        :raises Exception: the error of the run, a copy for each caller.
        """
        if self._error is None:
            return self._result
        again = getattr(self._error, "again", None)
        raise again() if again is not None else self._error


class SingleFlight(Generic[T]):
    """At most one run in progress.

    :param is_inline: whether callers do the work themselves.
    """

    def __init__(self, runtime: Runtime, *, is_inline: Callable[[], bool] = never) -> None:
        self._runtime = runtime
        self._is_inline = is_inline
        # At most one item.  A dict, because its setdefault is atomic without a lock, and a signal
        # handler may run this code while its own thread is in it.
        self._runs: dict[str, Run[T]] = {}

    def under_way(self) -> Run[T] | None:
        """The run in progress, if there is one."""
        return self._runs.get("run")

    def join(self, work: Callable[[Run[T]], T]) -> Run[T]:
        """The run in progress; if there is none, a new one that does *work*."""
        mine: Run[T] = Run(self._runtime)
        try:
            run = self._runs.setdefault("run", mine)
            if run is mine:
                self._start(mine, work)
        except BaseException:
            if mine.thread_id is None:
                # Interrupted before it began.  A caller that joined it starts another run.
                self._finish(mine)
                mine.settle(None)
            raise
        return run

    def aside(self, work: Callable[[Run[T]], T]) -> Run[T]:
        """Start a separate run: no interrupt stops the work of a helper."""
        run: Run[T] = Run(self._runtime)
        self._start(run, work)
        return run

    def wait(self, timeout: float) -> bool:
        """Whether no run was in progress any more within *timeout* seconds.

        A run does not wait for itself.
        """
        end = self._runtime.monotonic() + timeout
        while (run := self.under_way()) is not None:
            if run.is_mine() or not run.wait_until_finished(end - self._runtime.monotonic()):
                return False
        return True

    def reset(self) -> None:
        """Forget the run in progress: a forked child has no helper thread."""
        self._runs.clear()

    def _start(self, run: Run[T], work: Callable[[Run[T]], T]) -> None:
        try:
            if self._is_inline() or not self._runtime.start(lambda: self._execute(run, work)):
                # A handler may raise an exception, as that of a job's time limit does.
                with shutdown.signals_deferred({signal.SIGINT, *shutdown.handled()}):
                    self._execute(run, work)
        finally:
            run.starter = None

    def _execute(self, run: Run[T], work: Callable[[Run[T]], T]) -> None:
        run.thread_id = self._runtime.thread_id()
        try:
            result = work(run)
        except Exception as error:  # noqa: BLE001 - it is raised in the waiting callers
            self._finish(run)
            run.fail(error)
        except BaseException as error:
            # SystemExit and the like concern only this thread.
            self._finish(run)
            run.fail(messages.worker_ended(error))
            raise
        else:
            self._finish(run)
            run.settle(result)

    def _finish(self, run: Run[T]) -> None:
        # Before the callers are released, so that one of them can start another run at once.
        if self._runs.get("run") is run:
            self._runs.pop("run", None)
        run.finish()
