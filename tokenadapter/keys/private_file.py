"""Read a file that only its user may read.

The rule is that of PostgreSQL's libpq: the file belongs to this user, and no other can read or
write it; or it belongs to root, who may let a group read it, as Debian and Kubernetes do.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tokenadapter.groups import lets_others
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import shlex
else:
    shlex = late("shlex")

__all__ = ["read_private"]

# In bytes.  No key is longer.
_LONGEST = 1 << 16
# A FIFO would wait for a writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def read_private(path: str) -> bytes:
    """The content of the file *path*.

    :raises OSError: if it cannot be read.
    :raises ValueError: if another user may have read or written it, or it is no such file.
    """
    fd = os.open(path, _FLAGS)
    try:
        # Examined after it was opened: now nobody can replace it by another file.
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if os.name != "nt":
            _check(path, found)
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(_LONGEST + 1)
    finally:
        os.close(fd)
    if len(content) > _LONGEST:
        raise ValueError(f"{path} is longer than {_LONGEST >> 10} KiB: no key is that long")
    return content


def _check(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ValueError(
            f"{path} belongs to another user (uid {found.st_uid}): use a file of your own"
        )
    is_ours = found.st_uid == os.geteuid()
    if lets_others(found, 0o077 if is_ours else 0o037):
        cure = (
            f"run `chmod 600 {shlex.quote(path)}`" if is_ours else "have it mounted with mode 0440"
        )
        mode = stat.S_IMODE(found.st_mode)
        raise ValueError(f"{path} can be read or written by other users (mode {mode:04o}): {cure}")
