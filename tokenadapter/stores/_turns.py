"""Turns: which thread may write to a place that has no lock of its own.

A mutex keeps the threads of this process apart.  A lock that the program lends, if any, keeps
processes apart.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, TypeAlias
from weakref import ref

from tokenadapter.late_imports import late
from tokenadapter.process_names import this_process
from tokenadapter.protocols import StoreLock

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["Lend", "Place", "Turn", "place_of"]

Lend: TypeAlias = Callable[[], StoreLock | AbstractContextManager[object]]
"""A function that returns a new lock."""


class Place:
    """What the threads of this process share for one place.

    :param key: what the stores of this place have in common; places with equal keys are equal.
    :param born: the process in which the first store of this place was made.
    :ivar turn: the turn that was taken last, unless it has ended.
    :ivar spent: hashes of spent tokens, in case the place is emptied.
    """

    def __init__(self, key: Hashable, born: str) -> None:
        self.key = key
        self.born = born
        self.turn: Turn | None = None
        self.spent: list[str] = []
        self._mutexes: dict[int, threading.Lock] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def mutex(self) -> threading.Lock:
        """Keeps threads apart.  A forked child has a mutex of its own: no thread there would
        release its parent's."""
        return self._mutexes.setdefault(os.getpid(), threading.Lock())


class Turn:
    """The right of one thread to write to a place: a :class:`~tokenadapter.protocols.StoreLock`.

    :param lend: the program's function that returns a new lock, if there is one.
    :param failure: makes an error from a text that says what went wrong with the lock.
    """

    def __init__(
        self, place: Place, lend: Lend | None, failure: Callable[[str], Exception]
    ) -> None:
        self._place = place
        self._lend = lend
        self._failure = failure
        self._lent: StoreLock | AbstractContextManager[object] | None = None
        self._mutex: threading.Lock | None = None
        self._holder: tuple[int, int] | None = None

    def acquire(self, hold_for: float) -> bool:
        """Take the turn now, or return ``False`` at once; a context manager that waits for its lock
        makes this method wait.

        :param hold_for: for how many seconds the lent lock should last, if it can lapse.
        """
        return self.acquire_within(0, hold_for)

    def acquire_within(self, seconds: float, hold_for: float) -> bool:
        """Take the turn, or return ``False`` if others had it for so many *seconds*."""
        end = time.monotonic() + seconds
        mutex = self._place.mutex
        if not (mutex.acquire(timeout=seconds) if seconds else mutex.acquire(blocking=False)):
            return False
        is_taken = False
        try:
            is_taken = self.borrow(end, hold_for)
        finally:
            if not is_taken:
                mutex.release()
        if is_taken:
            self._mutex, self._holder = mutex, (os.getpid(), threading.get_ident())
            self._place.turn = self
        return is_taken

    def borrow(self, end: float, hold_for: float) -> bool:
        """Take a lent lock, if the program lends one, before the monotonic clock shows *end*."""
        try:
            while self._lend is not None and not self._take(self._lend(), hold_for):
                if time.monotonic() >= end:
                    return False
                time.sleep(0.01)
        except errors.StoreError:
            raise
        except Exception as error:
            raise self._failure(f"lock() raised {type(error).__name__}") from error
        return True

    def is_mine(self) -> bool:
        """Whether this thread took the turn and did not release it."""
        return self._holder == (os.getpid(), threading.get_ident())

    def confirm(self) -> bool:
        """Whether the turn is still held, as far as the lent lock can tell."""
        if self._holder is None or self._holder[0] != os.getpid():
            return False
        lent = self._lent
        return lent.confirm() if isinstance(lent, StoreLock) else True

    def release(self) -> None:
        """Let others write.  Never raises; releases nothing that a parent process holds."""
        holder, self._holder = self._holder, None
        if self._mutex is None or holder is None or holder[0] != os.getpid():
            return
        self._give_back()
        if self._place.turn is self:
            self._place.turn = None
        self._mutex.release()

    def _take(self, lock: object, hold_for: float) -> bool:
        if isinstance(lock, StoreLock):
            is_taken = lock.acquire(hold_for)
        elif isinstance(lock, AbstractContextManager):
            try:
                is_taken = lock.__enter__() is not False
            except (TimeoutError, BlockingIOError):
                return False  # locks say so that they are taken
            if not is_taken:
                lock.__exit__(None, None, None)
        else:
            raise self._failure(
                f"lock() returned neither a StoreLock nor a context manager but "
                f"{type(lock).__name__}"
            )
        if is_taken:
            self._give_back()  # a lock that has lapsed
            self._lent = lock
        return is_taken

    def _give_back(self) -> None:
        lent, self._lent = self._lent, None
        with suppress(Exception):
            if isinstance(lent, StoreLock):
                lent.release()
            elif isinstance(lent, AbstractContextManager):
                lent.__exit__(None, None, None)


def place_of(key: Hashable, born: str | None = None) -> Place:
    """The place of all stores with an equal *key*, for as long as one of them exists.

    :param born: the process in which its first store was made, if not this one.
    """
    place = Place(key, born or this_process())
    mine, found = ref(place, _forget), None
    try:
        while found is None:
            # Atomic: concurrent threads get the same place, and so does a signal handler.  The
            # result is None if that place has just ended; a reference to such a place equals no
            # other.
            found = _PLACES.setdefault(mine, mine)()
    except TypeError:  # the key has no hash
        return place
    return found


def _forget(ended: ref[Place]) -> None:
    _PLACES.pop(ended, None)


# Weak references, which are equal if their places are.
_PLACES: dict[ref[Place], ref[Place]] = {}
