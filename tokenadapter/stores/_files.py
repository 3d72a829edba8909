"""Writing files: private, replaced in one step, and durable."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from tokenadapter.stores import _strangers
from tokenadapter.stores._reading import WINDOWS, patiently
from tokenadapter.stores.toolkit import damaged_name

__all__ = ["Draft", "advice", "create", "make_directory_of", "set_aside", "sweep", "touch"]

_CREATE: int = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
# What file systems answer that do not support a call, some network file systems among them.
_UNKNOWN = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})

_NO_SPACE = "Free space on its file system."
_NO_ACCESS = "Give this user access to its directory, or choose another path."
_NO_LOCKS = "Its file system has no locks: choose a path on another one."
_ADVICE = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f).",
    errno.EROFS: "Choose a path on a file system that can be written.",
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.ENOTDIR: "Choose a path whose parents are directories.",
    errno.ENOSYS: _NO_LOCKS,
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
}


class Draft:
    """A file in the making: written under a hidden name, moved to its place in one step.

    :param record: the file that the draft will stand beside; its name begins the draft's name.
    :param for_group: whether the group may read and write the file.
    :raises OSError: if the draft cannot be created.
    """

    def __init__(self, record: str, *, for_group: bool = False) -> None:
        directory, name = os.path.split(record)
        self.path: str = os.path.join(directory, f".{name}.{os.urandom(8).hex()}.tmp")
        self._fd = create(self.path, for_group=for_group)

    def reserve(self, size: int) -> None:
        """Allocate *size* bytes on the file system, where it supports that.

        :raises OSError: if there is not enough space.  The draft is deleted then.
        """
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                self.discard()
                raise

    def publish(self, content: bytes, path: str) -> None:
        """Replace the content of the file *path* durably.  Afterwards the draft does not exist.

        :raises OSError: if that fails.  *path* is never torn: it has its earlier content, or
            *content* if only durability is in doubt.
        """
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.ftruncate(self._fd, len(content))
            os.fsync(self._fd)
            self._close()  # Windows cannot rename an open file
            patiently(lambda: os.replace(self.path, path))
        except BaseException:
            self.discard()
            raise
        _sync_directory(os.path.dirname(path))

    def discard(self) -> None:
        """Delete the draft.  Never raises."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def create(path: str, *, for_group: bool = False) -> int:
    """A descriptor of a new file with mode 0600, or 0660, whatever the umask is."""
    fd = os.open(path, _CREATE, 0o600)
    if for_group:
        os.fchmod(fd, 0o660)
    return fd


def sweep(record: str) -> None:
    """Delete the drafts that killed processes left.  The caller holds the record's lock."""
    directory, name = os.path.split(record)
    length = len(f".{name}.0123456789abcdef.tmp")
    with suppress(OSError):
        for entry in os.listdir(directory):
            if len(entry) == length and entry.startswith(f".{name}.") and entry.endswith(".tmp"):
                os.unlink(os.path.join(directory, entry))


def touch(path: str) -> None:
    """Make a file young, if it exists, so that no program that cleans by age deletes it."""
    with suppress(OSError):
        os.utime(path)


def set_aside(path: str) -> str:
    """Rename a file that is no record, so that it is kept, and return the new path."""
    aside = f"{path}.{damaged_name()}"
    os.close(create(aside))  # fails rather than replace a file
    try:
        patiently(lambda: os.replace(path, aside))
    except BaseException:
        os.unlink(aside)
        raise
    with suppress(PermissionError):
        os.chmod(aside, 0o600)
    return aside


def make_directory_of(path: str) -> None:
    """Create the directory of a file, and missing parents, with mode 0700."""
    directory = os.path.dirname(path)
    if os.path.isdir(directory):
        return
    make_directory_of(directory)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if os.path.isdir(directory):  # another process was faster
            return
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory) from None
    _sync_directory(os.path.dirname(directory))


def advice(error: Exception) -> str:
    """What to do about an error of the file system."""
    number = getattr(error, "errno", None)
    cure = _ADVICE.get(number or 0, "Check its path and its file system.")
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or number not in (errno.EACCES, errno.EPERM):
        return cure
    owner = _strangers.owner(name)
    if owner is not None:
        command = _strangers.chown(name)
        return (
            f"{name} belongs to another user ({owner}): if it was copied here, run `{command}` as "
            f"root. {cure}"
        )
    return cure


def _sync_directory(path: str) -> None:
    """Make the names in a directory survive a crash.  Windows does that by itself."""
    if WINDOWS:
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(fd)
