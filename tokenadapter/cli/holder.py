"""Who holds the lock of a store, found out without touching it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tokenadapter.process_names import display_name

if TYPE_CHECKING:
    from tokenadapter.protocols import TokenStore

__all__ = ["holder"]

_LOCKS = "/proc/locks"


def holder(store: TokenStore) -> str | None:
    """Who holds the lock, in words; ``None`` if nobody does, or it cannot be told.

    To try a lock would be to hold it for a moment.  A file's lock is looked up among those that
    the kernel lists, where it does; a lock that knows its holder has a method ``holder``.
    """
    lock = store.lock()
    tell = getattr(lock, "holder", None)
    if tell is None:
        path = getattr(lock, "path", None)
        return None if path is None else _holder_of_file(path)
    told: str | None = tell()
    return None if told is None else display_name(told)


def _holder_of_file(path: str) -> str | None:
    try:
        found = os.stat(path)
        with open(_LOCKS, encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    for parts in lines:
        # "1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF"; of those who wait, "1: -> FLOCK …".
        # The device differs from that of stat() on some file systems.
        if parts[1:2] == ["FLOCK"] and parts[5].rpartition(":")[2] == str(found.st_ino):
            return _process(parts[4])
    return None


def _process(pid: str) -> str:
    try:
        # Not its arguments: they are nobody's business.
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return "a process out of sight" if pid in ("0", "-1") else f"process {pid}"
