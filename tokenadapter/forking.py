"""What must not be under way in another thread while this process forks.

A child that is forked while another thread imports a module could never import it: there its lock
stays shut.  Programs without threads of their own know nothing of that, and need not: what this
package imports in helper threads it imports under a lock, and a fork waits for that.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, suppress
from typing import Final

__all__ = ["importing"]

# Seconds that a fork waits at most: whoever forks may have what an import waits for.
_PATIENCE: Final = 5.0


def importing() -> AbstractContextManager[object]:
    """For the time of a block that imports, keep this process from being forked."""
    return _importing


def _before_fork() -> None:
    _importing.acquire(timeout=_PATIENCE)


def _after_fork() -> None:
    with suppress(RuntimeError):  # it was not to be had in time
        _importing.release()


def _after_fork_in_child() -> None:
    global _importing  # noqa: PLW0603 - whoever had it is not here
    _importing = threading.RLock()


# Guards the imports of helper threads.  A signal handler may fork in the thread that has it.
_importing = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
