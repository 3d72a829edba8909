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
from typing import TYPE_CHECKING, Protocol

from tokenadapter.late import late

__all__ = ["MACHINE", "Machine"]

if TYPE_CHECKING:  # whoever starts a program would pay for the class
    from tokenadapter import owner, threads

    class Event(Protocol):
        """What happened or did not yet."""

        def is_set(self) -> bool: ...
        def set(self) -> None: ...
        def wait(self, timeout: float) -> bool: ...

else:
    owner, threads = late("tokenadapter.owner"), late("tokenadapter.threads")


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

    def process(self) -> str:
        """The name of this process, which no other in the world has."""
        return owner.this_process()

    def has_died(self, process: str) -> bool:
        """Whether the process of that name is known to have ended."""
        return owner.has_died(process)

    def is_elsewhere(self, process: str) -> bool:
        """Whether the process of that name is on another machine for certain."""
        return owner.is_elsewhere(process)

    def event(self) -> Event:
        return threads.Latch()

    def start(self, work: Callable[[], None]) -> bool:
        """Run *work* in a thread that the interpreter waits for when it exits.

        :returns: ``False`` where no such thread can be started: while the interpreter exits.
        """
        if not threading.current_thread().is_alive():
            # This is an atexit handler in the main thread, which counts as ended: the interpreter
            # has waited for its threads, and waits for no other.
            return False
        try:
            threads.Helper(work).start()
        except RuntimeError:
            return False
        return True

    def is_helper(self) -> bool:
        """Whether the calling thread is one that :meth:`start` started: nobody else needs it."""
        return isinstance(threading.current_thread(), threads.Helper)

    def exiting(self) -> bool:
        """Whether the program is over, and the interpreter waits for nothing but helpers."""
        main = threading.main_thread()
        return not main.is_alive() and all(
            thread is main or thread.daemon or isinstance(thread, threads.Helper)
            for thread in threading.enumerate()
        )


MACHINE = Machine()
