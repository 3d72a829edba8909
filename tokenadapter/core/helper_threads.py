"""The threads that renew, and the event for which callers wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Helper", "Latch"]


class Latch:
    """An event that a signal handler may wait for in the very thread that is waiting for it.

    :class:`threading.Event` holds a lock while it begins to wait, which would block such a handler
    for ever.
    """

    # A waiter checks again after *recheck* seconds: one that is interrupted between acquiring and
    # releasing the gate leaves it closed for the others.

    def __init__(self, recheck: float = 1.0) -> None:
        self._recheck = recheck
        self._is_set = False
        # Held until the latch is set.  Then each waiter that acquires it releases it for the next.
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether the latch was set."""
        return self._is_set

    def set(self) -> None:
        """Release all waiters, for good."""
        self._is_set = True
        with suppress(RuntimeError):  # another thread set it at the same time
            self._gate.release()

    def wait(self, timeout: float) -> bool:
        """Wait for at most *timeout* seconds, and return whether the latch was set."""
        end = time.monotonic() + timeout
        while not self._is_set:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._gate.acquire(timeout=min(left, self._recheck)):
                self._gate.release()
        return True


class Helper(threading.Thread):
    """A thread that renews.  An exiting interpreter waits for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="tokenadapter renewal", daemon=False)
