"""The runtime of the keeper: clocks, sleep, threads, random numbers, and the end of the process.

Everything that affects the order of events goes through here, so that a simulation can replace the
real machine and run every schedule.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # cheaper to import than signal
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

# The signal by which helpers ask the main thread to update the signal handlers.  Windows has none.
_SIGURG: Final[int | None] = getattr(_signal, "SIGURG", None)

if TYPE_CHECKING:  # the class would make each start of a program slower
    from tokenadapter import process_names
    from tokenadapter.core import helper_threads, shutdown

    class Event(Protocol):
        """What :class:`threading.Event` is, as far as it is used."""

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
        """A text that is unique to one write."""
        return os.urandom(8).hex()

    def thread_id(self) -> int:
        return threading.get_ident()

    def process(self) -> str:
        """The unique name of this process."""
        return process_names.this_process()

    def has_died(self, process: str) -> bool:
        """Whether the process with this name is known to have ended."""
        return process_names.has_died(process)

    def may_save(self, process: str) -> bool:
        """Whether the process with this name is known to live, on this machine; of this process,
        whether it is presenting anything."""
        if process == self.process():
            return shutdown.is_presenting()
        return process_names.lives(process) is True

    def is_elsewhere(self, process: str) -> bool:
        """Whether the process with this name is certainly on another machine."""
        return process_names.is_elsewhere(process)

    def event(self) -> Event:
        return helper_threads.Latch()

    def start(self, work: Callable[[], None]) -> bool:
        """Run *work* in a thread that an exiting interpreter waits for.

        :returns: ``False`` if no thread can be started because the interpreter is exiting.
        """
        if not threading.current_thread().is_alive():
            # An atexit handler in the main thread, which counts as ended: the interpreter has
            # finished waiting for threads.
            return False
        try:
            helper_threads.Helper(work).start()
        except RuntimeError:
            return False
        return True

    def is_helper(self) -> bool:
        """Whether :meth:`start` started the calling thread, so that it may take its time."""
        return isinstance(threading.current_thread(), helper_threads.Helper)

    def guard(self) -> bool:
        """Make an orderly end of this process wait for the refresh tokens that it presents, as far
        as the calling thread can arrange that.

        :returns: whether the end will wait, as far as is known.
        """
        can_guard = _can_be_asked() or _signal.getsignal(_signal.SIGTERM) != _signal.SIG_DFL
        if can_guard and "billiard.process" not in sys.modules:
            return True
        return shutdown.is_awaited(can_guard=can_guard)

    def ends_abruptly(self) -> bool:
        """Whether this process may end or be frozen between two requests, and nobody can wait for
        its threads."""
        return shutdown.ends_abruptly()

    def presenting(self, seconds: float) -> AbstractContextManager[bool]:
        """Make an orderly end of this process wait while a block runs.

        :param seconds: how long the presentation takes at most, without the save of its outcome.
        :returns: yields ``False`` if the process is ending: then the block must present nothing.
        """
        return shutdown.presenting(seconds, _requested)

    def interrupted(self) -> bool:
        """Whether a signal waits until the main thread has renewed."""
        return shutdown.is_interrupted()

    def exiting(self) -> bool:
        """Whether the program has ended, and the interpreter waits only for helpers."""
        if shutdown.is_ending():
            return True
        main = threading.main_thread()
        return not main.is_alive() and all(
            thread is main or thread.daemon or isinstance(thread, helper_threads.Helper)
            for thread in threading.enumerate()
        )


def _can_be_asked() -> bool:
    """Whether the main thread updates the signal handlers when a helper asks for it.

    Called in the main thread, this installs the handler for such requests.
    """
    if _SIGURG is None:
        return False
    if _signal.getsignal(_SIGURG) == _signal.SIG_DFL:
        with suppress(ValueError):  # this is another thread
            _signal.signal(_SIGURG, _requested)
    return bool(_signal.getsignal(_SIGURG) == _requested)


def _requested(number: int, frame: object) -> None:
    # A handler imports nothing.  The helper that asks has loaded the module.
    if "tokenadapter.core.shutdown" in sys.modules:
        shutdown.update_handlers()


RUNTIME = Runtime()
