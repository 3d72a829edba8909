"""A lock that is a lease: it lapses unless its holder goes on saying that it lives.

Nobody beyond a machine sees a process die there.  So the lock is short, and a heartbeat extends
it while its holder works; a dead holder is replaced within the time of one lease.  On its own
machine it is replaced at once: the lock names its holder, and who waits looks whether that lives.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress

from tokenadapter.process_names import has_died, this_process

__all__ = ["LEASE", "Lease"]

LEASE = 5.0
"""Seconds that a dead holder keeps other machines waiting at most.  Long enough for three
heartbeats, one of which may get lost or be late; shorter than the ten seconds of grace that servers
commonly give a rotated refresh token."""

_LAPSES_AFTER = 0.85
"""The part of a lease after which its lock lapses.  What is left is for those who wait: to come by,
which they do twice a second at least, and to renew."""


class Lease(ABC):
    """One holder's lease.  A subclass knows how its store takes, extends and frees one.

    A process that was forked from the holder's does not hold it.

    :param seconds: within which another has taken the place of a holder that died.
    """

    def __init__(self, seconds: float) -> None:
        # After which it lapses without a heartbeat.
        self._seconds = seconds * _LAPSES_AFTER
        self._owner = ""
        self._process = 0
        self._hold_for = 0.0
        # By the monotonic clock: when the holder has given up.
        self._end = 0.0
        # When the store was asked, by both clocks, and for how many seconds it gave the lease.
        self._given = (0.0, 0.0, 0.0)
        self._released = threading.Event()
        # Guards the end of the lease: no late heartbeat may shorten what was confirmed since.
        self._extending = threading.Lock()

    @abstractmethod
    def _take(self, owner: str, seconds: float, dead: str | None = None) -> str | None:
        """Take the lease for *seconds*, if it is free or *owner* has it: a repeated request, whose
        first answer got lost, succeeds again.

        :param dead: an owner whose lease counts as free.
        :returns: who has it now; ``None`` if that is not *owner*, and nobody can tell who.
        :raises StoreError: if that cannot be told.
        """

    @abstractmethod
    def _extend(self, owner: str, seconds: float) -> bool:
        """Let the lease end in *seconds* from now, if *owner* has it still.  Called by any thread.

        :raises StoreError: if that cannot be told.
        """

    @abstractmethod
    def _free(self, owner: str) -> None:
        """End the lease if *owner* has it.  May raise anything."""

    def holder(self) -> str | None:
        """The process that has the lease now, as :func:`tokenadapter.process_names.this_process`
        names it, and a nonce; ``None`` if nobody has it, or the store cannot tell.

        :raises StoreError: if it cannot be asked.
        """
        return None

    def acquire(self, hold_for: float) -> bool:
        """Take the lock now, or return ``False`` at once.

        :param hold_for: seconds for which it is kept alive, unless :meth:`confirm` is called.
        :raises StoreError: if that cannot be told.
        """
        self._process = os.getpid()
        self._owner = f"{this_process()}:{os.urandom(8).hex()}"
        self._released = threading.Event()
        self._hold_for = hold_for
        # Before it is asked for: the store counts from later on.
        self._end = time.monotonic() + hold_for
        seconds = min(self._seconds, hold_for)
        self._given = (time.monotonic(), time.time(), seconds)
        holder = self._take(self._owner, seconds)
        if holder not in (None, self._owner) and has_died(holder):
            holder = self._take(self._owner, seconds, holder)
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
            # The interpreter exits and starts no more threads, or is not the main one and starts no
            # daemon threads: one long lease instead.
            self._seconds = hold_for
            return self._prolong(self._owner, hold_for)
        return True

    def confirm(self) -> bool:
        """Whether the lock is still held, asked of the store itself; if so, *hold_for* begins
        anew."""
        if not self._owner or self._process != os.getpid():
            return False
        with self._extending:
            began, seconds = time.monotonic(), min(self._seconds, self._hold_for)
            try:
                is_held = self._prolong(self._owner, seconds)
            except Exception:  # noqa: BLE001 - who cannot tell does not hold it
                return False
            # What the store said that long ago may have lapsed by now, or be about to.
            is_held = is_held and time.monotonic() - began < seconds / 2
            if is_held:
                self._end = began + self._hold_for
            return is_held

    def is_certain(self) -> bool:
        """Whether it cannot have lapsed yet, by what the store has said so far."""
        monotonic, wall, seconds = self._given
        # The monotonic clock may stand still while the machine sleeps.
        since = max(time.monotonic() - monotonic, time.time() - wall)
        return bool(self._owner) and since < seconds / 2

    def release(self) -> None:
        """Let others take it.  Never raises."""
        owner, self._owner = self._owner, ""
        if not owner or self._process != os.getpid():
            return  # a forked child leaves the event alone, too: its lock may not be free there
        self._released.set()
        # Also after a request to take it that failed: it may have been heard.
        with suppress(Exception):  # it lapses anyway
            self._free(owner)

    def _beat(self, owner: str, released: threading.Event) -> None:
        while not released.wait(self._seconds / 3):
            # What fails may be heard the next time.
            with self._extending, suppress(Exception):
                left = self._end - time.monotonic()
                if left > 0 and not self._prolong(owner, min(self._seconds, left)):
                    return  # it is lost, and never comes back

    def _prolong(self, owner: str, seconds: float) -> bool:
        requested = (time.monotonic(), time.time(), seconds)
        is_held = self._extend(owner, seconds)
        if is_held:
            self._given = requested
        return is_held
