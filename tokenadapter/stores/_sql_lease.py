"""A lock that is a lease in a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from tokenadapter.stores._lease import Lease
from tokenadapter.stores._sql_rows import Rows

__all__ = ["RowLease"]


class RowLease(Lease):
    """A lease on the row of *slot*.

    :param explained: says what goes wrong with a task, in a :class:`StoreError`.
    """

    def __init__(
        self,
        rows: Rows,
        slot: str,
        seconds: float,
        explained: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        super().__init__(seconds)
        self._rows = rows
        self._slot = slot
        self._explained = explained

    def _take(self, owner: str, seconds: float, dead: str | None = None) -> str | None:
        with self._explained("take the lock"):
            return self._rows.take(self._slot, owner, seconds, dead)

    def _extend(self, owner: str, seconds: float) -> bool:
        with self._explained("keep the lock"):
            return self._rows.extend(self._slot, owner, seconds)

    def _free(self, owner: str) -> None:
        self._rows.free(self._slot, owner)

    def holder(self) -> str | None:
        """Who has the lease now; ``None`` if nobody has."""
        with self._explained("look at the lock"):
            return self._rows.holder(self._slot)
