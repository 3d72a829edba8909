"""Files as a store reads them: this user's alone."""

from __future__ import annotations

import os
import stat
from math import inf
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late
from tokenadapter.stores._system import Refused, is_guarded, is_own, is_private, open_to_read

if TYPE_CHECKING:
    import shlex

    from tokenadapter.stores import _strangers
else:
    _strangers = late("tokenadapter.stores._strangers")
    shlex = late("shlex")

__all__ = ["absolute", "check_directory", "read"]


def absolute(path: str | os.PathLike[str]) -> str:
    """*path* with its ``~`` expanded, and independent of the working directory.

    :raises ValueError: if nobody has such a home directory.
    """
    expanded = os.path.expanduser(os.fspath(path))
    if expanded.startswith("~"):
        raise ValueError(f"{expanded!r}: there is no such home directory")
    return os.path.abspath(expanded)


def read(path: str, *, private: bool, enough: float = inf) -> bytes | None:
    """What a file holds, or ``None`` if there is none.

    :param private: refuse a symbolic link, and a file or directory that is not this user's alone.
    :param enough: the number of bytes after which the rest is not read.
    :raises Refused: if the file must not be used.
    """
    if private:
        check_directory(os.path.dirname(path))
    try:
        fd = open_to_read(path, follow=not private)
    except FileNotFoundError:
        return None
    except OSError:
        if private and os.path.islink(path):
            raise Refused(
                f"{path} is a symbolic link to {os.path.realpath(path)}: "
                "give the path of the file itself, or private=False to follow the link"
            ) from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{path} is not a regular file: choose another path")
        if private:
            _check_privacy(path, found)
        content = b""
        while len(content) < enough and (more := os.read(fd, 1 << 16)):
            content += more
        return content
    finally:
        os.close(fd)


def check_directory(directory: str) -> None:
    """Refuse a directory in which another user could replace a file.

    A user who may write to a directory can rename what it holds, whoever owns that.  So each
    directory above has to be this user's or root's, too, and one that others may write to has to
    have the sticky bit, as ``/tmp`` has.  The directory itself must not even have that: the files
    that are created in it would be open to whoever creates them first.

    :raises Refused: if another user owns it, or one above it, or may write there.
    """
    is_linked = False
    place, below = directory, ""
    while place != below:
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            pass  # it is created for this user alone
        else:
            is_linked |= stat.S_ISLNK(found.st_mode)
            if not is_guarded(found, is_above=place != directory):
                _strangers.check(place, found, directory)
        place, below = os.path.dirname(place), place
    if is_linked:
        check_directory(os.path.realpath(directory))


def _check_privacy(path: str, found: os.stat_result) -> None:
    if not is_own(found):
        raise Refused(
            f"{path} belongs to another user ({_strangers.name(found.st_uid)}): "
            "run this as that user, choose another path, or give private=False if it is intended"
        )
    if not is_private(found):
        raise Refused(
            f"others may read or write {path} (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"run `chmod 600 {shlex.quote(path)}`, or give private=False if it is intended"
        )
