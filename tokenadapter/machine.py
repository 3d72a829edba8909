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
from typing import Protocol

__all__ = ["MACHINE", "Event", "Machine"]


class Event(Protocol):
    """What happened or did not yet: a :class:`threading.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Machine:
    """The real machine."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def nonce(self) -> str:
        """A text that no other write in the world has."""
        return os.urandom(8).hex()

    def thread_id(self) -> int:
        return threading.get_ident()

    def event(self) -> Event:
        return threading.Event()

    def start(self, work: Callable[[], None]) -> bool:
        """Run *work* in a thread that the interpreter waits for when it exits.

        :returns: ``False`` where no such thread can be started: while the interpreter exits.
        """
        if not threading.current_thread().is_alive():
            # This is an atexit handler in the main thread, which counts as ended: the interpreter
            # has waited for its threads, and waits for no other.
            return False
        try:
            threading.Thread(target=work, name="tokenadapter renewal", daemon=False).start()
        except RuntimeError:
            return False
        return True

    def exiting(self) -> bool:
        """Whether the main thread has ended, and the interpreter waits for the others."""
        return not threading.main_thread().is_alive()


MACHINE = Machine()
