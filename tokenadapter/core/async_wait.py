"""Let the tasks of event loops wait for calls that block.

A call is made in a helper thread, once for all tasks that want the same.  The tasks of a loop wait
at one future, and each may leave: the call goes on.  Tasks of asyncio and of trio, of several loops
and threads, may wait for the same call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import asyncio

    from tokenadapter.core import messages

    class _Waiting(Protocol):
        """Where the tasks of one event loop wait."""

        def wake(self) -> None: ...
        async def wait(self, timeout: float | None) -> None: ...

else:
    asyncio = late("asyncio")
    messages = late("tokenadapter.core.messages")

__all__ = ["SharedCalls"]

T = TypeVar("T")


class SharedCalls:
    """The calls under way.

    :param start: runs a function in a helper thread; ``False`` where no thread can be started.
    """

    def __init__(self, start: Callable[[Callable[[], None]], bool]) -> None:
        self._start = start
        self._calls: dict[Hashable, _Call[Any]] = {}

    async def wait_for(self, key: Hashable, work: Callable[[], T], timeout: float | None) -> T:
        """What *work* returns, or raises: a copy of the error for each task.

        :param key: tasks that give the same key share a call.
        :param timeout: seconds to wait at most.  ``None``: until the call is over, even if the task
            is cancelled.
        :raises TimeoutError: if the call takes longer; it goes on.
        """
        call: _Call[T] = self._join(key, work, can_block=True)
        if not call.is_done:
            place, here = _this_loop()
            waiting = call.waiting.setdefault(place, here)
            # The thread that does the call sets this first, and then looks at who waits.
            if not call.is_done:
                await waiting.wait(timeout and max(timeout, 0.0))
        if not call.is_done:
            raise TimeoutError
        return call.outcome()

    def begin(self, key: Hashable, work: Callable[[], object]) -> None:
        """Begin a call for which nobody waits, unless it is under way."""
        self._join(key, work, can_block=False)

    def reset(self) -> None:
        """Forget all calls: this is a forked child, which has none of their threads."""
        self._calls.clear()

    def _join(self, key: Hashable, work: Callable[[], T], *, can_block: bool) -> _Call[T]:
        mine: _Call[T] = _Call()
        call = self._calls.setdefault(key, mine)
        if call is mine:
            try:
                began = self._start(lambda: self._make(key, mine, work))
            except BaseException as error:
                self._end(key, mine, messages.worker_ended(error))
                raise
            if not began and can_block:
                self._make(key, mine, work)
            elif not began:
                self._end(key, mine)
        return call

    def _make(self, key: Hashable, call: _Call[T], work: Callable[[], T]) -> None:
        try:
            call.result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self._end(key, call, error)
        except BaseException as error:
            # SystemExit and its like are for this thread alone.
            self._end(key, call, messages.worker_ended(error))
            raise
        else:
            self._end(key, call)

    def _end(self, key: Hashable, call: _Call[T], error: Exception | None = None) -> None:
        # Before its tasks are let go: a task that comes back begins another.
        if self._calls.get(key) is call:
            self._calls.pop(key, None)
        call.error = error
        call.finish()


class _Call(Generic[T]):
    """A call, and where its tasks wait: one place for each event loop."""

    def __init__(self) -> None:
        self.is_done = False
        self.result: T | None = None
        self.error: Exception | None = None
        # A dict, because its setdefault is atomic without a lock.
        self.waiting: dict[object, _Waiting] = {}

    def finish(self) -> None:
        """Let all tasks go."""
        self.is_done = True
        for waiting in list(self.waiting.values()):
            with suppress(RuntimeError):  # the loop is closed: no task waits there any more
                waiting.wake()

    def outcome(self) -> T:
        if self.error is not None:
            again = getattr(self.error, "again", None)
            raise again() if again is not None else self.error
        return self.result  # type: ignore[return-value]  # None only if T has it


def _this_loop() -> tuple[object, _Waiting]:
    """The event loop of the running task, and a place where its tasks can wait.

    :raises RuntimeError: if no event loop runs here.
    """
    trio = sys.modules.get("trio")
    if trio is not None:
        # Of both, trio runs this very task: it may have another loop as its guest.
        with suppress(RuntimeError):
            trio.lowlevel.current_task()
            return trio.lowlevel.current_trio_token(), _InTrio(trio)
    loop = asyncio.get_running_loop()
    return loop, _InAsyncio(loop)


class _InAsyncio:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._future.set_result, None)

    async def wait(self, timeout: float | None) -> None:
        # A task that is cancelled here does not cancel the future.
        try:
            await asyncio.wait([self._future], timeout=None if timeout == inf else timeout)
        except asyncio.CancelledError:
            while timeout is None and not self._future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([self._future])
            raise


class _InTrio:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def wake(self) -> None:
        self._token.run_sync_soon(self._event.set)

    async def wait(self, timeout: float | None) -> None:
        with self._trio.move_on_after(inf if timeout is None else timeout) as scope:
            scope.shield = timeout is None
            await self._event.wait()
