"""What the keeper asks of the machine it runs on: clocks, sleep, threads and dice.

Everything that decides an interleaving goes through here, so that a simulation can stand in for
the real machine and play every schedule.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

__all__ = ["MACHINE", "Machine"]

if TYPE_CHECKING:  # whoever starts a program would pay for the class

    class Event(Protocol):
        """What happened or did not yet."""

        def is_set(self) -> bool: ...
        def set(self) -> None: ...
        def wait(self, timeout: float) -> bool: ...


class Latch:
    """An event that a signal handler may wait for in the very thread that is waiting for it.

    :class:`threading.Event` holds a lock while it begins to wait, and such a handler would stop at
    it for ever.
    """

    # Seconds after which a waiter looks again of itself: one that was interrupted in its turn at
    # the gate would leave it closed.
    _SLICE = 1.0

    def __init__(self) -> None:
        self._is_set = False
        # Closed until the latch is set; then whoever comes through opens it for the next.
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it happened."""
        return self._is_set

    def set(self) -> None:
        """It happened."""
        self._is_set = True
        with suppress(RuntimeError):  # two came at the same time
            self._gate.release()

    def wait(self, timeout: float) -> bool:
        """Wait until it happened, for *timeout* seconds at most, and tell whether it did."""
        end = time.monotonic() + timeout
        while not self._is_set:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._gate.acquire(timeout=min(left, self._SLICE)):
                self._gate.release()
        return True


class _Helper(threading.Thread):
    """A thread that renews.  The interpreter waits for it when it exits."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="tokenadapter renewal", daemon=False)


class Machine:
    """The real machine."""

    wall: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)
    random: staticmethod[[], float] = staticmethod(random.random)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def nonce(self) -> str:
        """A text that no other write in the world has."""
        return os.urandom(8).hex()

    def thread_id(self) -> int:
        return threading.get_ident()

    def event(self) -> Event:
        return Latch()

    def start(self, work: Callable[[], None]) -> bool:
        """Run *work* in a thread that the interpreter waits for when it exits.

        :returns: ``False`` where no such thread can be started: while the interpreter exits.
        """
        if not threading.current_thread().is_alive():
            # This is an atexit handler in the main thread, which counts as ended: the interpreter
            # has waited for its threads, and waits for no other.
            return False
        try:
            _Helper(work).start()
        except RuntimeError:
            return False
        return True

    def is_helper(self) -> bool:
        """Whether the calling thread is one that :meth:`start` started: nobody else needs it."""
        return isinstance(threading.current_thread(), _Helper)

    def exiting(self) -> bool:
        """Whether the program is over, and the interpreter waits for nothing but helpers."""
        main = threading.main_thread()
        return not main.is_alive() and all(
            thread is main or thread.daemon or isinstance(thread, _Helper)
            for thread in threading.enumerate()
        )


MACHINE = Machine()
