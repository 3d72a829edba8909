"""Which other users of the machine could read or replace a file, and their names."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tokenadapter.groups import lets_others
from tokenadapter.late_imports import late
from tokenadapter.stores._text import Refused
from tokenadapter.stores.toolkit import warn

if TYPE_CHECKING:
    import pwd
    import shlex
else:
    pwd = late("pwd")
    shlex = late("shlex")

__all__ = ["check", "check_database", "check_file", "chown", "name", "owner"]

# What SQLite puts beside a database.
_BESIDE = ("", "-wal", "-shm", "-journal")
# The files whose modes could not be changed.
_WARNED: set[str] = set()


def check(place: str, found: os.stat_result, directory: str) -> None:
    """Check a directory that is not plainly this user's alone.

    :param place: *directory* itself, one above it, or a symbolic link on the way to it.
    :raises Refused: if another user could replace what it contains.
    """
    above = "" if place == directory else f", which is above {directory},"
    # In a user namespace, root may have another number, which unknown users have as well.
    if found.st_uid not in (0, os.geteuid(), os.stat(os.sep).st_uid):
        raise Refused(
            f"{place}{above} belongs to another user ({name(found.st_uid)}), who can replace the "
            "token: keep it in a directory of your own, or run this as that user"
        )
    mode = stat.S_IMODE(found.st_mode)
    is_sticky = mode & stat.S_ISVTX
    if stat.S_ISLNK(found.st_mode) or (is_sticky and place != directory):
        return
    if not lets_others(found, 0o022):
        return
    if is_sticky:
        cure = f"keep it in a directory of its own, such as {place}/tokenadapter"
    elif found.st_uid != os.geteuid():
        cure = "keep it in a directory of your own"
    else:
        cure = f"run `chmod go-w {shlex.quote(place)}`"
    raise Refused(
        f"others can write to {place} (mode {mode:04o}){above} and so replace the token: {cure}"
    )


def check_database(database: str) -> None:
    """Check whether others can read an SQLite database or one of its journals.

    :raises Refused: if they can.
    """
    paths = [database + end for end in _BESIDE]
    exposed = [path for path in paths if _is_exposed(path)]
    if exposed:
        raise Refused(
            f"others can read the tokens in {database}: run `chmod go-rwx {shlex.join(exposed)}`, "
            "or use an EncryptedStore if an application shares the file on purpose"
        )


def check_file(path: str, fd: int, found: os.stat_result) -> None:
    """Check a file of this user that is not plainly for this user alone, and make it so.

    :raises Refused: if another user can read or write it.
    """
    if lets_others(found, 0o077):
        raise Refused(
            f"others may read or write {path} (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"run `chmod 600 {shlex.quote(path)}`, or give private=False if it is intended"
        )
    try:
        os.fchmod(fd, found.st_mode & 0o700)
    except OSError as error:
        if path not in _WARNED:
            _WARNED.add(path)
            warn(
                "the group of %s can read or write it (mode %s), and the mode cannot be changed: "
                "%s. The file is used all the same, because no other user is in the group. Add "
                "nobody to the group.",
                path,
                f"{stat.S_IMODE(found.st_mode):04o}",
                error.strerror,
            )


def owner(path: str) -> str | None:
    """The name of the other user who owns a file; ``None`` if this user does, or the file cannot be
    inspected."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return None if os.name == "nt" or found.st_uid == os.geteuid() else name(found.st_uid)


def chown(path: str) -> str:
    """The command by which root gives a file to this user."""
    return f"chown {os.geteuid()} {shlex.quote(path)}"


def name(uid: int) -> str:
    """The name and number of a user, for messages."""
    try:
        return f"{pwd.getpwuid(uid).pw_name}, uid {uid}"
    except (ImportError, KeyError):
        return f"uid {uid}"


def _is_exposed(path: str) -> bool:
    try:
        return os.name != "nt" and lets_others(os.stat(path), 0o077)
    except OSError:
        return False  # SQLite removes some of them
