"""Files as a store writes them: private, replaced in one step, and durable."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenadapter.stores._system import create, replace, reserve, sync_directory

if TYPE_CHECKING:
    from tokenadapter.stores._lockfile import LockFile

__all__ = ["Draft", "Tenure", "make_directory_of", "set_aside", "sweep"]


class Draft:
    """A file in the making: written out of sight, put in its place in one step.

    :param record: the file beside which, and after which, the draft is named.
    :param for_group: whether its group may read and write it, too.
    :raises OSError: if it cannot be created.
    """

    def __init__(self, record: str, *, for_group: bool = False) -> None:
        directory, name = os.path.split(record)
        self.path: str = os.path.join(directory, f".{name}.{os.urandom(8).hex()}.tmp")
        self._fd = create(self.path, for_group=for_group)

    def reserve(self, size: int) -> None:
        """Claim *size* bytes of the file system, where that is possible.

        :raises OSError: if it has no such space.  The draft is gone then.
        """
        try:
            reserve(self._fd, size)
        except OSError:
            self.discard()
            raise

    def publish(self, content: bytes, path: str) -> None:
        """Make *content* what the file *path* holds, durably.  The draft is gone afterwards.

        :raises OSError: if that fails.  *path* is whole all the same: it holds what it held, or
            *content*, if only its durability is in doubt.
        """
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.ftruncate(self._fd, len(content))
            os.fsync(self._fd)
            self._close()  # Windows renames no open file
            replace(self.path, path)
        except BaseException:
            self.discard()
            raise
        sync_directory(os.path.dirname(path))

    def discard(self) -> None:
        """Remove the draft.  Never raises."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            os.unlink(self.path)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Tenure:
    """Who holds a store's lock in this process, and what was prepared since it was taken."""

    def __init__(self) -> None:
        self.lock: LockFile | None = None
        self.draft: Draft | None = None


def sweep(record: str) -> None:
    """Remove the drafts that killed processes left.  Only for who holds the record's lock."""
    directory, name = os.path.split(record)
    length = len(f".{name}.0123456789abcdef.tmp")
    with suppress(OSError):
        for entry in os.listdir(directory):
            if len(entry) == length and entry.startswith(f".{name}.") and entry.endswith(".tmp"):
                os.unlink(os.path.join(directory, entry))


def set_aside(path: str) -> str:
    """Give a file another name, one that no file has, and say which."""
    aside = _new_name(f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        replace(path, aside)
    except BaseException:
        os.unlink(aside)
        raise
    with suppress(PermissionError):
        os.chmod(aside, 0o600)
    return aside


def _new_name(path: str) -> str:
    name, number = path, 1
    while True:
        try:
            os.close(create(name))
        except FileExistsError:
            number += 1
            name = f"{path}-{number}"
        else:
            return name


def make_directory_of(path: str) -> None:
    """Make the directory of a file, and the parents it lacks, for this user alone."""
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
    sync_directory(os.path.dirname(directory))
