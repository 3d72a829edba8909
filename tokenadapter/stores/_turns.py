"""Whose turn it is at a place that knows no lock: one thread's of this process, or of all.

The mutex of a place keeps the threads of this process apart, and a lock that the program lends,
if it does, keeps processes apart.  Without one, a place at least notices other processes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Hashable
from weakref import ref

from tokenadapter.stores._borrowed import Borrowed, LockLike, NoLock

__all__ = ["Place", "Turn", "place_of", "this_process"]


class Place:
    """What the threads of this process know of one place.

    :param key: what the stores of this place have in common; places with equal keys are equal.
    :param born: the process in which it was first known.
    :ivar turn: whose turn it is, or was last.
    :ivar notes: what is noted here, in case the place forgets.
    :ivar is_contested: whether another process was seen to write.
    """

    def __init__(self, key: Hashable, born: str) -> None:
        self.key = key
        self.born = born
        self.turn: Turn | None = None
        self.notes: list[str] = []
        self.is_contested: bool = False
        self._first: str | None = None
        self._has_met = False
        self._mutexes: dict[int, threading.Lock] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def mutex(self) -> threading.Lock:
        """Keeps threads apart.  A forked child has its own: nobody there would free its
        parent's."""
        return self._mutexes.setdefault(os.getpid(), threading.Lock())

    def meets(self, writer: str | None) -> bool:
        """Whether *writer*, who wrote what is there now, is the first sign of another process that
        lives: one that wrote since this one first looked."""
        if not self._has_met:
            self._first, self._has_met = writer, True
        if writer in (None, self._first, this_process()) or self.is_contested:
            return False
        self.is_contested = True
        return True


class Turn:
    """The right to write at a place, for one thread.

    :param failure: the error to raise if the lent lock fails, from what there is to say of it.
    """

    def __init__(
        self, place: Place, lent: LockLike | None, failure: Callable[[str], Exception]
    ) -> None:
        self._place = place
        self._failure = failure
        self._lent = None if lent is None else Borrowed(lent)
        self._mutex: threading.Lock | None = None
        self._holder: tuple[int, int] | None = None

    def acquire(self, hold_for: float) -> bool:
        """Take it now, or return ``False`` at once.

        :param hold_for: of no account: it is held until it is released, or the lent lock expires.
        """
        return self.acquire_within(0)

    def acquire_within(self, seconds: float) -> bool:
        """Take it, or return ``False`` if others had it for so many *seconds*."""
        end = time.monotonic() + seconds
        mutex = self._place.mutex
        if not (mutex.acquire(timeout=seconds) if seconds else mutex.acquire(blocking=False)):
            return False
        is_taken = False
        try:
            is_taken = self.borrow(end)
        finally:
            if not is_taken:
                mutex.release()
        if is_taken:
            self._mutex, self._holder = mutex, (os.getpid(), threading.get_ident())
            self._place.turn = self
        return is_taken

    def borrow(self, end: float) -> bool:
        """Take the lent lock, if there is one, before the monotonic clock shows *end*."""
        try:
            while self._lent is not None and not self._lent.take():
                if time.monotonic() >= end:
                    return False
                time.sleep(0.01)
        except NoLock as error:
            raise self._failure(str(error)) from None
        except Exception as error:
            raise self._failure(f"lock() raised {type(error).__name__}") from error
        return True

    def is_mine(self) -> bool:
        """Whether this very thread took it and did not release it."""
        return self._holder == (os.getpid(), threading.get_ident())

    def confirm(self) -> bool:
        """Whether it is held still."""
        has_mutex = self._holder is not None and self._holder[0] == os.getpid()
        return has_mutex and (self._lent is None or self._lent.is_held())

    def release(self) -> None:
        """Let others take it.  Never raises; frees nothing that a parent process holds."""
        holder, self._holder = self._holder, None
        if self._mutex is None or holder is None or holder[0] != os.getpid():
            return
        if self._lent is not None:
            self._lent.give_back()
        if self._place.turn is self:
            self._place.turn = None
        self._mutex.release()


def place_of(key: Hashable, born: str | None = None) -> Place:
    """The place of all who come with an equal *key*, as long as one of them is there.

    :param born: in which process it was first known, if not in this one.
    """
    place = Place(key, born or this_process())
    mine, found = ref(place, _forget), None
    try:
        while found is None:
            # Atomic: threads that come first get the same place, and so does a signal handler.
            # It is None if that place has just ended; a reference to one equals no other.
            found = _PLACES.setdefault(mine, mine)()
    except TypeError:  # it has no hash
        return place
    return found


def _forget(ended: ref[Place]) -> None:
    _PLACES.pop(ended, None)


def this_process() -> str:
    """A name that no other process has, for people too."""
    pid = os.getpid()
    name = _PROCESSES.get(pid)
    if name is None:
        name = f"{socket.gethostname()}:{pid}:{os.urandom(4).hex()}"
    return _PROCESSES.setdefault(pid, name)


# Weak references, which are equal if their places are.
_PLACES: dict[ref[Place], ref[Place]] = {}
# A forked child comes here with another number than its parent.
_PROCESSES: dict[int, str] = {}
