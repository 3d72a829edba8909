"""Threads and processes for the tests of a store: started, listened to, and ended.

The processes start empty (``spawn``) and execute functions of this module, which needs neither
pytest nor the test that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore

__all__ = [
    "ROUNDS",
    "SPAWN",
    "Take",
    "counting",
    "first_use",
    "in_threads",
    "process",
    "step_by_step",
    "succeeds_in_child",
    "take_in_rounds",
]

Take: TypeAlias = tuple[float, float]
"""When an attempt to take a lock began and when it succeeded, by the monotonic clock, which all
processes share."""

SPAWN = multiprocessing.get_context("spawn")
"""What processes are started with: they have nothing of this one but what they are given."""

ROUNDS = 10
"""How often they write at the same moment in :func:`write_in_rounds`, and try to take a lock in
:func:`take_in_rounds`."""

# Seconds after which a forked child is ended by the kernel.
_CHILD_LIFETIME = 60


def in_threads(work: Callable[[int], object], numbers: Sequence[int]) -> None:
    """Run *work* for each number in a thread of its own; raise the first error."""
    errors: list[Exception] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:  # noqa: BLE001  (raised below)
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[number]) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def process(work: Callable[..., None], *args: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that runs ``work(pipe, *args)``, and is killed at the end of the block."""
    pipe, theirs = SPAWN.Pipe()
    child = SPAWN.Process(target=work, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield child, pipe
    finally:
        child.kill()
        child.join()
        child.close()
        pipe.close()


def succeeds_in_child(check: Callable[[], bool]) -> bool:
    """Whether *check* is true in a forked child; one that hangs is ended after a minute."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(_CHILD_LIFETIME)
            code = 0 if check() else 1
        except BaseException:  # noqa: BLE001  (the child must not become a second test run)
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def counting(pipe: Connection) -> Iterator[int]:
    """The numbers from 0 on, until something comes through the pipe."""
    number = 0
    while not pipe.poll():
        yield number
        number += 1


def first_use(store: TokenStore, name: str, hold_for: float) -> tuple[str, bool]:
    """Fill the slot if it is empty, as a keeper does: look, take the lock, **look again**, write.

    :returns: who has filled it, and whether that was this call.
    """
    pause, longest = store.poll
    while True:
        document = store.load().document
        if document is not None:
            return str(document["by"]), False
        lock = store.lock()
        try:
            if lock.acquire(hold_for):
                found = store.load()
                if found.document is not None:
                    return str(found.document["by"]), False
                store.prepare()
                written = store.save({"by": name}, tag=name, expected=found.tag, ttl=None)
                return name, written
        finally:
            lock.release()
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


@contextmanager
def step_by_step() -> Iterator[None]:
    """Let other threads and processes run before and after each call in this block.

    A lock is taken within microseconds: one attempt would otherwise be over before the next begins.
    """
    before = sys.getprofile()
    # Not sched_yield: it waits for whatever else computes on the machine, thousands of times.
    sys.setprofile(lambda *_: time.sleep(0))
    try:
        yield
    finally:
        sys.setprofile(before)


def take_in_rounds(store: TokenStore, barrier: Any, hold_for: float) -> list[Take | None]:
    """Try to take the lock at the same moment as others, and release it when all have tried.

    :param barrier: for all of them, threads or processes.
    :returns: for each round when it was taken here, if it was.
    """
    takes: list[Take | None] = []
    first = store.lock()
    if first.acquire(hold_for):  # imports what it needs, which would take seconds step by step
        first.release()
    for _ in range(ROUNDS):
        lock = store.lock()
        barrier.wait()
        began = time.monotonic()
        with step_by_step():
            is_taken = lock.acquire(hold_for)
        takes.append((began, time.monotonic()) if is_taken else None)
        barrier.wait()
        lock.release()
        barrier.wait()
    return takes


# What processes do.


def take_when_told(pipe: Connection, store: TokenStore) -> None:
    """Try to take a lock for as many seconds as come through the pipe, again and again."""
    locks = []
    while True:
        locks.append(store.lock())  # kept, because a lock without references may free itself
        pipe.send(locks[-1].acquire(pipe.recv()))


def tell_whether_it_is_a_copy(pipe: Connection, store: TokenStore) -> None:
    """Say whether the store that arrived here is a copy."""
    pipe.send(store.is_copy)


def write_in_rounds(pipe: Connection, store: TokenStore, barrier: Any, number: int) -> None:
    """Write at the same moment as others, and say which writes succeeded."""
    won = []
    for round_ in range(ROUNDS):
        expected = store.load().tag
        barrier.wait()
        won.append(store.save({}, tag=f"{number}-{round_}", expected=expected, ttl=None))
        barrier.wait()
    pipe.send(won)
    pipe.recv()


def compete(pipe: Connection, store: TokenStore, barrier: Any, hold_for: float) -> None:
    """Take the lock in rounds at the same moment as others, and say when that succeeded."""
    pipe.send(take_in_rounds(store, barrier, hold_for))
    pipe.recv()


def write_on_and_on(pipe: Connection, store: TokenStore, large: int) -> None:
    """Write documents of all sizes, up to *large*, until the test ends this."""
    tag = store.load().tag
    for number in counting(pipe):
        size = (number % 3) ** 2 * large // 4
        document = {"size": size, "text": "x" * size}
        assert store.save(document, tag=str(number), expected=tag, ttl=None)
        tag = str(number)


def use_first(pipe: Connection, store: TokenStore, barrier: Any, name: str) -> None:
    """Use an empty slot at the same moment as others, and say who has filled it."""
    barrier.wait()
    pipe.send(first_use(store, name, 60.0))
    pipe.recv()
