"""What only renewals need is imported late, and never while this process forks.

Many programs end before their first renewal, so its modules are not imported with the package: a
helper thread does it, at the first renewal or some time before.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tokenadapter.forking import importing

if TYPE_CHECKING:
    from tokenadapter.protocols import Grant, TokenStore

__all__ = ["load"]


def load(store: TokenStore, grant: Grant) -> None:
    """Import what renewals need, as far as it is not imported yet.

    That is what all need, and what the lock of *store* and *grant* import in a ``load()``.
    """
    # What fails here fails again where it is needed, and is told there.
    with importing(), suppress(Exception):
        from tokenadapter import failures, renewal, shutdown  # noqa: F401

        for one in (store.lock(), grant):
            own = getattr(one, "load", None)
            if own is not None:
                own()
