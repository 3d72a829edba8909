"""Which other users of the machine could read or replace a file, and their names.

This module looks up the members of groups.  Most directories do not need that.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late
from tokenadapter.stores._text import Refused

if TYPE_CHECKING:
    import grp
    import pwd
    import shlex
else:
    grp = late("grp")
    pwd = late("pwd")
    shlex = late("shlex")

__all__ = ["check", "check_database", "chown", "name", "owner"]

# What SQLite puts beside a database.
_BESIDE = ("", "-wal", "-shm", "-journal")


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
    if not (mode & 0o002 or (mode & 0o020 and not _is_alone_in(found.st_gid))):
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
        return os.name != "nt" and bool(os.stat(path).st_mode & 0o077)
    except OSError:
        return False  # SQLite removes some of them


def _is_alone_in(gid: int) -> bool:
    """Whether this user is the only member of a group, as on systems with user private groups,
    where the usual umask (002) lets the group write."""
    if gid != os.getegid() and gid not in os.getgroups():
        return False
    try:
        names = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        names = set()
    ours = {0, os.geteuid()}
    users = pwd.getpwall()
    members = {user.pw_uid for user in users if user.pw_gid == gid or user.pw_name in names}
    return members <= ours and names <= {user.pw_name for user in users}
