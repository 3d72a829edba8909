"""What the file system says, as a :class:`~tokenadapter.errors.StoreError` that helps."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late
from tokenadapter.stores import _strangers
from tokenadapter.stores._system import Refused

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["failure"]

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


def failure(slot: object, task: str, error: OSError) -> errors.StoreError:
    """The :class:`StoreError` for *error*, which kept *slot* from doing its *task*."""
    message = f"{slot!r} cannot {task}: {error}. Nothing stored was lost."
    if not isinstance(error, Refused):
        owner = isinstance(error.filename, str) and _strangers.owner(error.filename)
        if owner and error.errno in (errno.EACCES, errno.EPERM):
            message += f" {error.filename} belongs to another user ({owner})."
        message += " " + _ADVICE.get(error.errno or 0, "Check its path and its file system.")
    return errors.StoreError(message)
