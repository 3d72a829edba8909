"""What only renewals need is imported late, and never while this process forks.

Many programs end before their first renewal, so its modules are not imported with the package: a
helper thread does it, at the first renewal or some time before.  A child that is forked while
another thread imports a module could never import it: there its lock stays shut.  Programs without
threads of their own know nothing of that, and need not: a fork waits until the helper is done.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenadapter.protocols import Grant, TokenStore

__all__ = ["load"]

# Seconds that a fork waits at most: whoever forks may have what an import waits for.
_PATIENCE: Final = 5.0


def load(store: TokenStore, grant: Grant) -> None:
    """Import what renewals need, as far as it is not imported yet.

    That is what all need, and what the lock of *store* and *grant* import in a ``load()``.
    """
    # What fails here fails again where it is needed, and is told there.
    with _importing, suppress(Exception):
        from tokenadapter import events, failures, renewal  # noqa: F401

        for one in (store.lock(), grant):
            own = getattr(one, "load", None)
            if own is not None:
                own()


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
