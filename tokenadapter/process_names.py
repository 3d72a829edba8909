"""Names of processes that hold a lock or wait for an answer, and whether such a process has died.

A process names itself ``host:process:start:namespace:boot``.  The host is for people.  A waiter can
look for the process only if boot and namespace are its own.  The start time tells the named process
from a later one with the same process ID.  Only Linux provides all of this.  If anything is
unknown, the process does not count as dead.
"""

from __future__ import annotations

import os

__all__ = ["display_name", "has_died", "is_elsewhere", "lives", "this_process"]

# By process ID: a forked child inherits this, and needs a name of its own.
_NAMES_BY_PID: dict[int, str] = {}


def this_process() -> str:
    """The name of this process, which no other process has."""
    pid = os.getpid()
    name = _NAMES_BY_PID.get(pid)
    if name is None:
        namespace = _namespace()
        start = (namespace and _start_of(str(pid))) or os.urandom(6).hex()
        name = _NAMES_BY_PID[pid] = f"{_host()}:{pid}:{start}:{namespace}:{_boot()}"
    return name


def has_died(name: str) -> bool:
    """Whether the process *name* is known to have ended.

    :param name: from :func:`this_process`, with or without ``:`` and more behind it.
    """
    return lives(name) is False


def lives(name: str) -> bool | None:
    """Whether the process *name* lives; ``None`` if that cannot be seen from here.

    :param name: as for :func:`has_died`.
    """
    theirs, ours = _parts(name), _parts(this_process())
    if theirs is None or ours is None or not all(theirs) or theirs[3:] != ours[3:]:
        return None
    _, pid, start, *_ = theirs
    found = _start_of(pid)
    if found is None:
        return None if _exists(pid) else False
    return found == start


def is_elsewhere(name: str) -> bool:
    """Whether the process *name* is on another machine.

    A machine of the same name counts as this machine before a reboot.
    """
    theirs, ours = _parts(name), _parts(this_process())
    if theirs is None or ours is None or not theirs[4] or not ours[4]:
        return False
    return theirs[4] != ours[4] and theirs[0] != ours[0]


def display_name(name: str) -> str:
    """The process *name* as messages show it."""
    parts = _parts(name)
    return name if parts is None else f"process {parts[1]} on {parts[0]}"


def _parts(name: str) -> list[str] | None:
    parts = name.split(":")
    return parts[:5] if len(parts) >= 5 else None


def _start_of(pid: str) -> str | None:
    """When a process was started, in ticks since the boot; empty if the process has ended and only
    its exit status is left; ``None`` if that is not visible."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program is in parentheses, and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # The state is that of the main thread; other threads may go on without it.
    has_ended = fields[0] in (b"Z", b"X") and fields[17] in (b"0", b"1")
    return "" if has_ended else fields[19].decode()


def _exists(pid: str) -> bool:
    """Whether a process has that ID: /proc may hide the processes of other users."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True


def _host() -> str:
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    # Colons separate the parts.
    return name.replace(":", "-")


def _namespace() -> str:
    """In which process IDs and start times agree; empty if /proc belongs to another namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""  # it was not mounted in this namespace
        # "pid:[4026531836]"
        found = os.readlink("/proc/self/ns/pid")[5:-1]
    except (OSError, AttributeError):
        return ""
    try:
        # "time:[4026531834]": start times count from the boot as this namespace sees it.
        return f"{found}-{os.readlink('/proc/self/ns/time')[6:-1]}"
    except OSError:  # before Linux 5.6 there is only one
        return found


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().decode().replace("-", "")[:16].strip()
    except OSError:
        return ""
