"""A lock that is a lease: it lapses unless its holder keeps extending it.

Other machines cannot see that a process died.  So the lease is short, and a heartbeat extends it
while its holder works; a holder that died is replaced within one lease.  On its own machine it is
replaced at once: the lock names the holder's process, and waiting processes check whether that
process is alive.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress

from tokenadapter.process_names import has_died, this_process

__all__ = ["LEASE", "Lease", "checked_lease"]

LEASE = 5.0
"""The usual lease: seconds that a holder that died keeps other machines waiting at most.  Long
enough for three heartbeats, one of which may get lost or be late; shorter than the ten seconds of
grace that servers commonly give a rotated refresh token."""

# The part of a lease after which its lock lapses.  The rest is for the waiting processes: to try
# the lock, which they do twice a second at least, and to renew.
_LAPSES_AFTER = 0.85


def checked_lease(lease: float) -> float:
    """*lease* itself.

    :raises ValueError: if it is not above 0 seconds.
    """
    if not lease > 0:
        raise ValueError(f"lease must be above 0 seconds, not {lease!r}")
    return lease


class Lease(ABC):
    """One attempt to hold a store's lock.  A subclass takes, extends and frees the lease in its
    store.

    It is a :class:`~tokenadapter.protocols.StoreLock`.  A child that the holder forks does not hold
    the lock.

    :param seconds: within which a holder that died is replaced.
    """

    def __init__(self, seconds: float) -> None:
        # After which it lapses without a heartbeat.
        self._seconds = seconds * _LAPSES_AFTER
        self._owner = ""
        self._process = 0
        self._hold_for = 0.0
        # By the monotonic clock: when the heartbeat ends unless the holder confirms.
        self._end = 0.0
        self._released = threading.Event()
        # Protects the end of the lease: a late heartbeat must not shorten a lease that was
        # confirmed since.
        self._extending = threading.Lock()

    @abstractmethod
    def take(self, owner: str, seconds: float, dead: str | None = None) -> str | None:
        """Take the lease for *seconds* if it is free or *owner* has it: a request that is repeated
        because its answer got lost succeeds again.

        :param dead: an owner whose lease counts as free.
        :returns: the owner now; ``None`` if it is another one that is not known.
        :raises StoreError: if the store cannot be asked.
        """

    @abstractmethod
    def extend(self, owner: str, seconds: float) -> bool:
        """Let the lease end *seconds* from now, and return whether *owner* still has it.  Called by
        any thread.

        :raises StoreError: if the store cannot be asked.
        """

    @abstractmethod
    def free(self, owner: str) -> None:
        """End the lease if *owner* has it.  May raise anything."""

    def holder(self) -> str | None:
        """The owner of the lease now: the name of its process
        (``tokenadapter.process_names.this_process()``) and a nonce.  ``None`` if the lease is
        free, or the store cannot tell.

        :raises StoreError: if it cannot be asked.
        """
        return None

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: for how many seconds to extend the lease, unless :meth:`confirm` is called.
        :raises StoreError: if the store cannot be asked.
        """
        self._process = os.getpid()
        self._owner = f"{this_process()}:{os.urandom(8).hex()}"
        self._released = threading.Event()
        self._hold_for = hold_for
        # Counted from before the request; the store counts from later on.
        self._end = time.monotonic() + hold_for
        seconds = min(self._seconds, hold_for)
        holder = self.take(self._owner, seconds)
        if holder not in (None, self._owner) and has_died(holder):
            holder = self.take(self._owner, seconds, holder)
        if holder != self._owner:
            self._owner = ""
            return False
        heartbeat = threading.Thread(
            target=self._beat, args=(self._owner, self._released), name="tokenadapter lease"
        )
        try:
            heartbeat.daemon = True
            heartbeat.start()
        except RuntimeError:
            # The interpreter exits and starts no threads, or is a subinterpreter, which starts no
            # daemon threads: take one long lease instead.
            self._seconds = hold_for
            return self.extend(self._owner, hold_for)
        return True

    def confirm(self) -> bool:
        """Ask the store whether the lock is still held; if so, *hold_for* starts again."""
        if not self._owner or self._process != os.getpid():
            return False
        with self._extending:
            began, seconds = time.monotonic(), min(self._seconds, self._hold_for)
            try:
                is_held = self.extend(self._owner, seconds)
            except Exception:  # noqa: BLE001 - a lease that is not certain is not held
                return False
            # After a slow answer, the lease may have lapsed by now, or be about to.
            is_held = is_held and time.monotonic() - began < seconds / 2
            if is_held:
                self._end = began + self._hold_for
            return is_held

    def release(self) -> None:
        """Release the lock.  Never raises."""
        owner, self._owner = self._owner, ""
        if not owner or self._process != os.getpid():
            return  # a forked child must not set the event: the event's own lock may be taken there
        self._released.set()
        # Also after a failed request to take the lease: the store may have processed it.
        with suppress(Exception):  # the lease lapses anyway
            self.free(owner)

    def _beat(self, owner: str, released: threading.Event) -> None:
        while not released.wait(self._seconds / 3):
            # What fails now may succeed at the next heartbeat.
            with self._extending, suppress(Exception):
                left = self._end - time.monotonic()
                if left > 0 and not self.extend(owner, min(self._seconds, left)):
                    return  # a lost lease does not come back
