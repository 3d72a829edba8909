"""System calls for files, and what stands in for them where Windows has none.

The rest of the package asks for what it wants here, and need not know where it runs.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import fcntl
else:
    fcntl = late("fcntl")

__all__ = [
    "Refused",
    "create",
    "is_for_group",
    "is_guarded",
    "is_locked",
    "is_own",
    "is_private",
    "open_to_lock",
    "open_to_read",
    "replace",
    "reserve",
    "sync_directory",
]

T = TypeVar("T")

_WINDOWS = os.name == "nt"
# Windows neither opens nor replaces what another process has open just then: seconds to wait.
_PAUSES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4) if _WINDOWS else ()

_BINARY: int = getattr(os, "O_BINARY", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
# Opening a named pipe that somebody put there must not hang.
_READ: int = os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0)
_LOCK: int = os.O_RDWR | os.O_CREAT | _BINARY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY

# What file systems answer that do not know a call, network and user-space ones among them.
_UNKNOWN = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class Refused(OSError):
    """A file that must not be used.  The text says why, and what to do."""


def open_to_read(path: str, *, follow: bool) -> int:
    """A descriptor of a file.

    :param follow: whether *path* may be a symbolic link.
    """
    return _patiently(lambda: os.open(path, _READ if follow else _READ | _NOFOLLOW))


def create(path: str, *, for_group: bool = False) -> int:
    """A descriptor of a new file, which this user alone may read and write, or its group as well,
    whatever the umask is."""
    fd = os.open(path, _CREATE, 0o600)
    if for_group:
        os.fchmod(fd, 0o660)
    return fd


def open_to_lock(path: str) -> int:
    """A descriptor of a file that nobody reads, which is created for this user alone."""
    return os.open(path, _LOCK, 0o600)


def reserve(fd: int, size: int) -> None:
    """Claim *size* bytes of the file system for a file, if it knows such a thing."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise


def replace(path: str, target: str) -> None:
    """Rename a file, in one step, to a name that another file may have."""
    _patiently(lambda: os.replace(path, target))


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a crash.  Windows does that by itself."""
    if _WINDOWS:
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(fd)


def is_locked(path: str) -> bool:
    """Whether another has locked a file for certain: what the kernel alone is asked takes a tenth
    of an attempt to lock it."""
    if sys.platform == "win32":
        return False
    try:
        fd = os.open(path, _READ | _NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared, so that those who ask at the same time do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # A child that was forked since has the file open, and would keep the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        with suppress(OSError):  # the kernel has told already
            os.close(fd)
    return False


def is_own(found: os.stat_result) -> bool:
    """Whether a file belongs to this user.  On Windows its access list is trusted with that."""
    return _WINDOWS or found.st_uid == os.geteuid()


def is_private(found: os.stat_result) -> bool:
    """Whether nobody but its owner may read or write a file; as above on Windows."""
    return _WINDOWS or not found.st_mode & 0o077


def is_for_group(directory: str) -> bool:
    """Whether the group of a directory may write to it."""
    try:
        return not _WINDOWS and bool(os.stat(directory).st_mode & stat.S_IWGRP)
    except OSError:
        return False


def is_guarded(found: os.stat_result, *, is_above: bool) -> bool:
    """Whether it is plain that only this user and root can replace what a directory holds; as
    above on Windows.

    :param found: of the directory, or of a symbolic link to it.
    :param is_above: whether this user or root owns what it holds: the sticky bit guards that.
    """
    if _WINDOWS:
        return True
    is_open = found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)
    is_sticky = found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.geteuid()) and (not is_open or bool(is_above and is_sticky))


def _patiently(call: Callable[[], T]) -> T:
    for pause in _PAUSES:
        try:
            return call()
        except PermissionError:
            time.sleep(pause)
    return call()
