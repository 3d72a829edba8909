"""The threads that renew, and what those wait at who wait for them."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Helper", "Latch"]


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


class Helper(threading.Thread):
    """A thread that renews.  The interpreter waits for it when it exits.

    It runs in a copy of the context of the thread that starts it: traces and structured logs of the
    token request belong to the request that needed the token.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        run = contextvars.copy_context().run
        super().__init__(target=run, args=(work,), name="tokenadapter renewal", daemon=False)
