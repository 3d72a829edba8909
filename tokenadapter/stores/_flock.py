"""The kernel's file locks, used without filelock: look whether a file is locked, and reserve.

A reservation is a lock on a file of its own, whose content is never read: on some network file
systems, a locked file cannot be read by others.  The kernel ends the lock with the process.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import fcntl
else:
    fcntl = late("fcntl")

__all__ = ["is_locked", "reserve"]

_LOOK: int = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def is_locked(path: str) -> bool:
    """Whether another process or open file has certainly locked the file *path*.

    Asking the kernel takes a tenth of the time of an attempt to take the lock with filelock.
    """
    if sys.platform == "win32":
        return False
    try:
        fd = os.open(path, _LOOK)
    except OSError:
        return False
    try:
        # A shared lock, so that processes that ask at the same time do not see each other's.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # A child that was forked in the meantime has the file open, and would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        with suppress(OSError):  # the answer is known
            os.close(fd)
    return False


def reserve(path: str, lock: str) -> AbstractContextManager[object] | None:
    """Reserve a renewal with the file *path*, which is created if need be.

    :param lock: the lock file: the process that has this lock needs no reservation.
    :returns: the reservation, to be entered and left; ``None`` if another process has the
        reservation or the lock.  Where files cannot be locked, every caller gets a reservation.
    """
    file = _locked_file(path)
    # A process that lost the reservation must not probe the lock: the probe could make the attempt
    # of the process that has the reservation fail.
    if file is None or not is_locked(lock):
        return file
    with file:
        return None


def _locked_file(path: str) -> AbstractContextManager[object] | None:
    if sys.platform == "win32":
        return nullcontext()
    try:
        file = _Reservation(path, "r+", opener=_open)
    except OSError:
        return nullcontext()
    _RESERVATIONS.add(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        return nullcontext()
    return file


def _open(path: str, flags: int) -> int:
    return os.open(path, _LOOK | os.O_RDWR | os.O_CREAT, 0o600)


class _Reservation(io.FileIO):
    """A file that is locked until it is closed, also when an exception skips the ``with`` block."""

    def close(self) -> None:
        if sys.platform != "win32" and not self.closed:
            # A child that was forked outside of Python's knowledge may have the file open.
            with suppress(OSError):
                fcntl.flock(self, fcntl.LOCK_UN)
        super().close()


def _after_fork_in_child() -> None:
    """Close the reservations of the parent, without unlocking them."""
    for file in list(_RESERVATIONS):
        io.FileIO.close(file)


_RESERVATIONS: WeakSet[_Reservation] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
