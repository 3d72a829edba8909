"""A claim on a file: the kernel keeps it, and ends it with the process that has it.

It is a lock on a file of its own, which nobody reads: a network file system may keep everybody from
reading what one has locked.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

from tokenadapter.late_imports import late
from tokenadapter.stores._system import is_locked, open_to_lock

if TYPE_CHECKING:
    import fcntl
else:
    fcntl = late("fcntl")

__all__ = ["reserve"]


def reserve(path: str, lock: str) -> AbstractContextManager[object] | None:
    """Claim by the file *path*, which is created if need be.

    :param lock: a lock file: whoever has that lock needs no claim.
    :returns: ``None`` if another has the claim, or that lock.  Where nothing can be claimed,
        everybody has the claim.
    """
    file = _claimed(path)
    # Whoever has failed to claim it asks no lock: that would keep others from taking it just then.
    if file is None or not is_locked(lock):
        return file
    with file:
        return None


def _claimed(path: str) -> AbstractContextManager[object] | None:
    if sys.platform == "win32":
        return nullcontext()
    try:
        file = _Reservation(path, "r+", opener=lambda path, flags: open_to_lock(path))
    except OSError:
        return nullcontext()
    _CLAIMS.add(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        return nullcontext()
    return file


class _Reservation(io.FileIO):
    """A file that is locked until it is closed.

    It is an object so that it is closed whatever interrupts whoever has it.
    """

    def close(self) -> None:
        if sys.platform != "win32" and not self.closed:
            # Also if a child has it open that was forked in some way of which Python knows nothing.
            with suppress(OSError):
                fcntl.flock(self, fcntl.LOCK_UN)
        super().close()


def _after_fork_in_child() -> None:
    """The claims are the parent's, and are to end with it."""
    for file in list(_CLAIMS):
        io.FileIO.close(file)


_CLAIMS: WeakSet[_Reservation] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
