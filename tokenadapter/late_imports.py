"""Import modules late, when they are first needed, and never while the process forks.

While a thread imports a module, the import system locks that module.  A child that is forked in the
meantime inherits the lock, but not the thread that would release it, and hangs as soon as it needs
the module.  So threads import late only under a guard, and a fork waits for the guard.

Name such a module once, at the head of the module that needs it::

    if TYPE_CHECKING:
        from tokenadapter.core import messages
    else:
        messages = late("tokenadapter.core.messages")

The code at module level must not use it: a thread that waits for the guard there would keep the
importing module locked.  ``tests/imports.py`` finds every import that circumvents the guard.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # threading would be imported by each program that imports the package

# Type checkers take a variable of this name to be true; importing it would load ``typing``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["imported", "importing", "late", "load"]

# The most seconds that a fork waits for imports, or an import for a fork: each may need something
# that the other holds.  On a busy machine, some imports take several seconds.
_GUARD_TIMEOUT = 30.0


class late:  # noqa: N801 - callers use it as a function
    """A stand-in for the module *name*, which is imported when something of it is first used."""

    _module: Any = None

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module or self._import(), name)

    def _import(self) -> Any:
        self._module = imported(self._name)
        return self._module


class importing:  # noqa: N801 - callers use it as a function
    """Keep this process from being forked while a block imports.

    The block must do nothing else, and wait for nothing.
    """

    def __enter__(self) -> None:
        self._guard = _guard  # if this thread forks, the child has another one
        self._has_it = _guard.acquire(timeout=_GUARD_TIMEOUT)
        if not _is_first_hook:
            _become_first_hook()

    def __exit__(self, *_: object) -> None:
        if self._has_it:
            self._guard.release()


def load(*stand_ins: Any) -> None:
    """Import the modules of these stand-ins.

    :raises ImportError: if one of them is not installed.
    """
    for stand_in in stand_ins:
        stand_in._import()


def imported(name: str) -> Any:
    """The module *name*, imported while the process cannot be forked."""
    with importing():
        __import__(name)
    return sys.modules[name]


# --- forks -------------------------------------------------------------------------------


def _before_fork() -> None:
    _guard.acquire(timeout=_GUARD_TIMEOUT)


def _after_fork() -> None:
    try:
        _guard.release()
    except RuntimeError:  # the guard was not acquired in time
        return


def _after_fork_in_child() -> None:
    global _guard  # noqa: PLW0603
    _guard = RLock()  # the thread that has the old one may not be here


def _register() -> None:
    global _is_first_hook  # noqa: PLW0603
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
    _is_first_hook = "logging" in sys.modules


def _become_first_hook() -> None:
    """Make a fork wait for imports before it takes the lock of ``logging``.

    Hooks are called in reverse order.  If ``logging`` was imported after this module, a fork takes
    the lock of ``logging`` before it waits for imports, and a module under import that makes a
    logger waits for the fork.  A program without other threads skips this, and does not pay for
    ``logging``.
    """
    threading = sys.modules.get("threading")
    if "logging" in sys.modules or (threading is not None and threading.active_count() > 1):
        import logging  # noqa: F401, PLC0415

        _register()


# Re-entrant: in the thread that holds it, a module may import late, and a signal handler may fork.
_guard = RLock()
_is_first_hook = True

if hasattr(os, "register_at_fork"):
    _register()
