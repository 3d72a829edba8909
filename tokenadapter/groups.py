"""Whether the mode of a file lets other users in.

A group that only this user is in does not count as others: on systems with user private groups, the
usual umask (002) lets the group write, and for a volume with ``fsGroup``, Kubernetes lets the group
read and write all files at each start of a pod.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import grp
    import pwd
else:
    grp = late("grp")
    pwd = late("pwd")

__all__ = ["lets_others"]


def lets_others(found: os.stat_result, bits: int) -> bool:
    """Whether other users have one of the permissions *bits*."""
    mode = found.st_mode & bits
    return bool(mode & 0o007 or (mode & 0o070 and not _is_alone_in(found.st_gid)))


def _is_alone_in(gid: int) -> bool:
    """Whether this process is in a group, and no user but this one and root."""
    if gid != os.getegid() and gid not in os.getgroups():
        return False
    try:
        names = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        names = set()
    ours = {0, os.geteuid()}
    users = pwd.getpwall()
    with suppress(KeyError):  # a container may have no name for its user
        if pwd.getpwuid(os.geteuid()) not in users:
            return False  # a directory service lists its users only one by one
    members = {user.pw_uid for user in users if user.pw_gid == gid or user.pw_name in names}
    return members <= ours and names <= {user.pw_name for user in users}
