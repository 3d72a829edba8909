"""Reading files: a store uses only those that no other user can read or replace."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, TypeVar

from tokenadapter.late_imports import late
from tokenadapter.stores._text import Refused

if TYPE_CHECKING:
    from tokenadapter.stores import _strangers
else:
    _strangers = late("tokenadapter.stores._strangers")

__all__ = [
    "WINDOWS",
    "absolute",
    "check_directory",
    "is_for_group",
    "patiently",
    "read",
]

T = TypeVar("T")

WINDOWS: bool = os.name == "nt"
# Seconds between attempts: Windows cannot open or replace a file that another process has open.
_PAUSES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4) if WINDOWS else ()

# Without O_NONBLOCK, opening a named pipe would block.
_READ: int = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


def absolute(path: str | os.PathLike[str]) -> str:
    """*path* as an absolute path, with ``~`` expanded.

    :raises ValueError: if the home directory is unknown.
    """
    expanded = os.path.expanduser(os.fspath(path))
    if expanded.startswith("~"):
        raise ValueError(f"{expanded!r}: there is no such home directory")
    return os.path.abspath(expanded)


def read(path: str, *, private: bool, enough: float = inf) -> bytes | None:
    """The content of a file, or ``None`` if the file does not exist.

    :param private: refuse a symbolic link, and a file or directory that another user could read or
        replace.
    :param enough: stop reading after so many bytes.
    :raises Refused: if the file must not be used.
    """
    if private:
        check_directory(os.path.dirname(path))
    try:
        fd = patiently(lambda: os.open(path, _READ | _NOFOLLOW if private else _READ))
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
            _check_privacy(path, fd, found)
        content = b""
        while len(content) < enough and (more := os.read(fd, 1 << 16)):
            content += more
        return content
    finally:
        os.close(fd)


def check_directory(directory: str) -> None:
    """Refuse a directory in which another user could replace a file.

    A user who can write to a directory can rename every file in it.  So this user or root must own
    the directory and each directory above it.  A directory above that others can write to must have
    the sticky bit, as ``/tmp`` has.  The directory itself must not be one that others can write to,
    with or without the sticky bit: another user could create the lock file first.

    :raises Refused: if another user owns the directory or one above it, or can write to it.
    """
    is_linked = False
    place, below = directory, ""
    while place != below:
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            pass  # it will be created with mode 0700
        else:
            is_linked |= stat.S_ISLNK(found.st_mode)
            if not _is_guarded(found, is_above=place != directory):
                _strangers.check(place, found, directory)
        place, below = os.path.dirname(place), place
    if is_linked:
        check_directory(os.path.realpath(directory))


def _check_privacy(path: str, fd: int, found: os.stat_result) -> None:
    if WINDOWS:
        return  # the directory's access list decides
    if found.st_uid != os.geteuid():
        raise Refused(
            f"{path} belongs to another user ({_strangers.name(found.st_uid)}): "
            f"run this as that user, choose another path, or run `{_strangers.chown(path)}` as "
            "root if the file was copied here. Give private=False if it is intended"
        )
    if found.st_mode & 0o077:
        _strangers.check_file(path, fd, found)


def is_for_group(directory: str) -> bool:
    """Whether the group of a directory may write to it."""
    try:
        return not WINDOWS and bool(os.stat(directory).st_mode & stat.S_IWGRP)
    except OSError:
        return False


def patiently(call: Callable[[], T]) -> T:
    """What *call* returns.  On Windows, retry for a while if another process has the file open."""
    for pause in _PAUSES:
        try:
            return call()
        except PermissionError:
            time.sleep(pause)
    return call()


def _is_guarded(found: os.stat_result, *, is_above: bool) -> bool:
    """Whether it is plain, without looking up groups, that only this user and root can replace what
    a directory contains.

    :param found: of the directory, or of a symbolic link to it.
    :param is_above: whether this user or root owns what the directory contains: then the sticky bit
        protects it.
    """
    if WINDOWS:
        return True
    is_open = found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)
    is_sticky = found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.geteuid()) and (not is_open or bool(is_above and is_sticky))
