"""Tasks that wait for calls that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tokenadapter.core.async_wait import SharedCalls
from tokenadapter.errors import RefreshTemporarilyFailed


class Threads:
    """Starts threads, and waits for them."""

    def __init__(self) -> None:
        self.started: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> bool:
        thread = threading.Thread(target=work)
        thread.start()
        self.started.append(thread)
        return True


@pytest.fixture
def threads() -> Any:
    threads = Threads()
    yield threads
    for thread in threads.started:
        thread.join()


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_task_gets_what_the_call_returns(threads: Threads, run: Any) -> None:
    calls = SharedCalls(threads.start)

    async def main() -> int:
        return await calls.wait_for("key", lambda: 7, inf)

    assert run(main) if run is trio.run else run(main()) == 7


def test_tasks_of_one_key_share_a_call_and_others_do_not(threads: Threads) -> None:
    calls = SharedCalls(threads.start)
    release = threading.Event()

    def work() -> int:
        release.wait(10)
        return threading.get_ident()

    async def main() -> list[int]:
        tasks = [asyncio.create_task(calls.wait_for(key, work, 10)) for key in "aabab"]
        await asyncio.sleep(0.01)
        release.set()
        return list(await asyncio.gather(*tasks))

    first, second, third, fourth, fifth = asyncio.run(main())
    assert first == second == fourth != third == fifth
    assert len(threads.started) == 2


def test_a_wait_ends_in_time_and_the_call_goes_on(threads: Threads) -> None:
    calls = SharedCalls(threads.start)
    release = threading.Event()
    ended: list[int] = []

    def work() -> None:
        release.wait(10)
        ended.append(1)

    async def main() -> None:
        for timeout in (0.01, -1.0):
            with pytest.raises(TimeoutError):
                await calls.wait_for("key", work, timeout)

    asyncio.run(main())
    assert len(threads.started) == 1
    # The loop is closed: no task waits any more.
    release.set()
    threads.started[0].join()
    assert ended == [1]


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_without_a_limit_a_cancelled_task_waits_until_the_call_is_over(
    threads: Threads, library: str
) -> None:
    calls = SharedCalls(threads.start)
    release = threading.Event()
    ended: list[int] = []

    def work() -> None:
        release.wait(10)
        ended.append(1)

    async def waiting() -> None:
        try:
            await calls.wait_for("key", work, None)
        finally:
            assert ended == [1]

    async def in_asyncio() -> None:
        task = asyncio.create_task(waiting())
        for _ in range(3):  # again and again, as anyio does
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            release.set()

    if library == "trio":
        trio.run(in_trio)
    else:
        asyncio.run(in_asyncio())


def test_if_no_thread_can_be_started_a_waiting_task_makes_the_call_itself() -> None:
    calls = SharedCalls(lambda work: False)
    made: list[int] = []
    calls.begin("key", lambda: made.append(1))
    assert made == []
    assert asyncio.run(calls.wait_for("key", threading.get_ident, inf)) == threading.get_ident()


def test_a_thread_that_cannot_be_started_leaves_nothing_under_way(threads: Threads) -> None:
    def interrupted(work: Callable[[], None]) -> bool:
        raise KeyboardInterrupt

    calls = SharedCalls(interrupted)
    with pytest.raises(KeyboardInterrupt):
        calls.begin("key", int)
    calls._start = threads.start
    assert asyncio.run(calls.wait_for("key", lambda: 7, inf)) == 7


def test_an_exit_of_the_thread_is_an_error_for_waiting_tasks() -> None:
    def work() -> None:
        raise SystemExit

    def start(work: Callable[[], None]) -> bool:
        with pytest.raises(SystemExit):
            work()
        return True

    with pytest.raises(RefreshTemporarilyFailed, match="SystemExit"):
        asyncio.run(SharedCalls(start).wait_for("key", work, inf))


def test_a_call_that_ended_is_not_shared(threads: Threads) -> None:
    calls = SharedCalls(threads.start)
    numbers = iter(range(9))

    async def main() -> list[int]:
        return [await calls.wait_for("key", lambda: next(numbers), inf) for _ in range(3)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_forked_child_forgets_the_calls_of_its_parent(threads: Threads) -> None:
    calls = SharedCalls(threads.start)
    release = threading.Event()
    calls.begin("key", lambda: release.wait(10))
    calls.reset()
    assert asyncio.run(calls.wait_for("key", lambda: 7, inf)) == 7
    release.set()
