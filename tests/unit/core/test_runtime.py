"""The real runtime: nonces, latches, and threads that the interpreter waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from tokenadapter.core.helper_threads import Latch
from tokenadapter.core.runtime import RUNTIME


def test_no_two_nonces_are_the_same() -> None:
    assert len({RUNTIME.nonce() for _ in range(1000)}) == 1000


class Gate:
    """The gate of a latch, which counts the waiters."""

    def __init__(self, latch: Latch) -> None:
        self.gate, latch._gate = latch._gate, self  # type: ignore[assignment]
        self.comers = threading.Semaphore(0)
        self.release = self.gate.release

    def acquire(self, timeout: float) -> bool:
        self.comers.release()
        return self.gate.acquire(timeout=timeout)


def test_a_latch_releases_all_waiters_permanently() -> None:
    # No wait ends by the recheck.
    latch = Latch(recheck=1000.0)
    gate = Gate(latch)
    released: list[bool] = []

    def wait() -> None:
        released.append(latch.wait(600.0))

    threads = [threading.Thread(target=lambda: released.append(latch.wait(60.0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert gate.comers.acquire(timeout=60)
    assert not latch.is_set()
    latch.set()
    deadline = time.monotonic() + 20
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    assert released == [True] * 8
    assert latch.is_set()
    assert latch.wait(0)


def test_a_wait_ends_after_its_timeout() -> None:
    latch = RUNTIME.event()
    assert [latch.wait(seconds) for seconds in (-1, 0, 0.001)] == [False] * 3


def test_a_latch_releases_the_others_after_a_waiter_was_interrupted() -> None:
    latch = Latch(recheck=0.01)
    gate = Gate(latch)
    thread = threading.Thread(target=latch.wait, args=[20.0])
    thread.start()
    assert gate.comers.acquire(timeout=60)
    # The latch is set, and the waiter that came through was interrupted.
    latch._is_set = True
    thread.join(10)
    assert not thread.is_alive()


def test_a_signal_handler_may_wait_in_the_waiting_thread() -> None:
    latch, in_handler = RUNTIME.event(), threading.Event()
    waited: list[bool] = []

    def handle(number: int, frame: object) -> None:
        in_handler.set()
        waited.append(latch.wait(60))

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        in_handler.wait(60)
        latch.set()

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        waited.append(latch.wait(60))
        thread.join(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert waited == [True, True]


@pytest.mark.parametrize("set_at", range(1, 60))
def test_a_waiting_signal_handler_may_run_at_any_moment_of_the_wait(set_at: int) -> None:
    latch = RUNTIME.event()
    moments: list[bool] = []

    def handle(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            if len(moments) == set_at:
                latch.set()
            moments.append(latch.wait(0))
        return handle

    before = sys.gettrace()
    sys.settrace(handle)
    try:
        latch.wait(0.001)
    finally:
        sys.settrace(before)
    if len(moments) <= set_at:
        latch.set()
    assert moments == [False] * min(set_at, len(moments)) + [True] * max(len(moments) - set_at, 0)
    assert latch.wait(0)


def test_work_is_done_in_a_thread_that_the_interpreter_waits_for() -> None:
    workers: list[threading.Thread] = []
    done = threading.Event()

    def work() -> None:
        workers.append(threading.current_thread())
        done.set()

    assert RUNTIME.start(work)
    assert done.wait(60)
    assert workers != [threading.current_thread()]
    assert not workers[0].daemon


def test_start_returns_false_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not RUNTIME.start(lambda: None)


def test_a_running_program_is_not_exiting() -> None:
    assert not RUNTIME.exiting()


def test_a_program_is_exiting_when_only_helpers_are_left() -> None:
    program = """
import threading
import time
from tokenadapter.core.runtime import RUNTIME

def last_of_the_programs_own():
    threading.main_thread().join()
    print(RUNTIME.exiting(), flush=True)

def helper():
    threading.main_thread().join()
    thread.join()
    print(RUNTIME.exiting(), flush=True)

daemon = threading.Thread(target=threading.Event().wait, daemon=True)
daemon.start()
thread = threading.Thread(target=last_of_the_programs_own)
thread.start()
RUNTIME.start(helper)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
