"""What the keeper asks of the machine it runs on: clocks, sleep, threads, dice and the end.

Everything that decides an interleaving goes through here, so that a simulation can stand in for
the real machine and play every schedule.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # at no cost, unlike signal
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Final, Protocol

from tokenadapter.late_imports import late

__all__ = ["RUNTIME", "Runtime"]

# With which helpers ask the main thread to see to the signals.  Windows has none.
_SIGURG: Final[int | None] = getattr(_signal, "SIGURG", None)

if TYPE_CHECKING:  # whoever starts a program would pay for the class
    from tokenadapter import process_names
    from tokenadapter.core import helper_threads, shutdown

    class Event(Protocol):
        """What happened or did not yet."""

        def is_set(self) -> bool: ...
        def set(self) -> None: ...
        def wait(self, timeout: float) -> bool: ...

else:
    process_names, helper_threads = (
        late("tokenadapter.process_names"),
        late("tokenadapter.core.helper_threads"),
    )
    shutdown = late("tokenadapter.core.shutdown")


class Runtime:
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
        return process_names.this_process()

    def has_died(self, process: str) -> bool:
        """Whether the process of that name is known to have ended."""
        return process_names.has_died(process)

    def is_elsewhere(self, process: str) -> bool:
        """Whether the process of that name is on another machine for certain."""
        return process_names.is_elsewhere(process)

    def event(self) -> Event:
        return helper_threads.Latch()

    def start(self, work: Callable[[], None]) -> bool:
        """Run *work* in a thread that the interpreter waits for when it exits.

        :returns: ``False`` where no such thread can be started: while the interpreter exits.
        """
        if not threading.current_thread().is_alive():
            # This is an atexit handler in the main thread, which counts as ended: the interpreter
            # has waited for its threads, and waits for no other.
            return False
        try:
            helper_threads.Helper(work).start()
        except RuntimeError:
            return False
        return True

    def is_helper(self) -> bool:
        """Whether the calling thread is one that :meth:`start` started: nobody else needs it."""
        return isinstance(threading.current_thread(), helper_threads.Helper)

    def guard(self) -> bool:
        """Have an orderly end of this process wait for the refresh tokens that it presents, as far
        as the calling thread can see to that.

        :returns: whether it waits, as far as is known.
        """
        can_guard = _can_be_asked() or _signal.getsignal(_signal.SIGTERM) != _signal.SIG_DFL
        if can_guard and "billiard.process" not in sys.modules:
            return True
        return shutdown.is_awaited(can_guard=can_guard)

    def presenting(self, seconds: float) -> AbstractContextManager[bool]:
        """For the time of a block, have an orderly end of this process wait for it.

        :param seconds: within which the presentation ends, the save of its outcome aside.
        :returns: gives whether the block may present anything: not when the process is ending.
        """
        return shutdown.presenting(seconds, _requested)

    def exiting(self) -> bool:
        """Whether the program is over, and its end waits for nothing but helpers."""
        if shutdown.is_ending():
            return True
        main = threading.main_thread()
        return not main.is_alive() and all(
            thread is main or thread.daemon or isinstance(thread, helper_threads.Helper)
            for thread in threading.enumerate()
        )


def _can_be_asked() -> bool:
    """Whether the main thread sees to the signals when a helper asks it to.

    If this is the main thread, it does so from now on.
    """
    if _SIGURG is None:
        return False
    if _signal.getsignal(_SIGURG) == _signal.SIG_DFL:
        with suppress(ValueError):  # this is another thread
            _signal.signal(_SIGURG, _requested)
    return bool(_signal.getsignal(_SIGURG) == _requested)


def _requested(number: int, frame: object) -> None:
    # A handler imports nothing.  Whoever asks has loaded this.
    if "tokenadapter.core.shutdown" in sys.modules:
        shutdown.update_handlers()


RUNTIME = Runtime()
