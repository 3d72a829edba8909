"""The store for programs that share a database: a row for each slot, with SQLAlchemy.

The store writes on its own connections, so that a request that is rolled back cannot undo a rotated
token.  It keeps neither a connection nor a transaction while it waits for the token endpoint: the
lock is a lease in the row, by the database's clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pickle import PicklingError
from typing import Any

from tokenadapter.stores.toolkit import (
    LEASE,
    checked_lease,
    damaged_name,
    is_remembered,
    remembering,
    warn_of_damage,
    warn_put_aside,
)
from tokenadapter.values import Document, Snapshot

try:
    from sqlalchemy import URL, Engine, MetaData

    from tokenadapter.stores._sql_database import TROUBLE, Database
    from tokenadapter.stores._sql_rows import (
        SPENT,
        Row,
        RowLease,
        Rows,
        check_name,
        token_table,
    )
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "SQLStore needs SQLAlchemy 2.0.30 or later: pip install 'tokenadapter[sql]'"
    ) from _error

__all__ = ["SQLStore", "token_table"]

# How often to try again to remember a hash because another process has written one meanwhile.
_TRIES = 100


class SQLStore:
    """One slot in a database, for all processes and machines that share it.

    PostgreSQL, MySQL, MariaDB and SQLite.  The table must exist (see :meth:`create_table`), unless
    *create* is set.  An SQLite file that does not exist is created with mode 0600.  The row has the
    slot's name; where refresh tokens were spent, a second row, ``NAME.spent``, remembers them by
    their hashes in case the record is deleted.

    The store opens its own connections, which commit each statement, and keeps one of them open for
    a short while.  A forked child opens its own.

    :param engine_or_url: a URL for a synchronous driver; or an engine, whose settings and kind of
        pool are used, but none of its connections.
    :param slot: the name of the slot, up to 215 characters.
    :param table: the name of the table, which all slots can share.
    :param schema: the name of the table's schema, if it is not the default.
    :param lease: for how many seconds at most a holder of the lock that died keeps others waiting:
        fewer than the source's ``grace``, if it has one.
    :param create: create the table when it turns out to be missing.  Many processes can do so at
        once.
    :raises TypeError: if *engine_or_url* is neither a URL nor an engine, or is asynchronous.
    :raises ValueError: if no other process could see what is stored (SQLite in memory), or a name
        cannot be one.
    :raises ImportError: if SQLAlchemy or the driver is not installed.
    """

    is_copy = False
    poll: tuple[float, float] = (0.05, 0.5)

    def __init__(
        self,
        engine_or_url: str | URL | Engine,
        slot: str,
        *,
        table: str = "tokenadapter",
        schema: str | None = None,
        lease: float = LEASE,
        create: bool = False,
    ) -> None:
        check_name(slot)
        if not table:
            raise ValueError("table is empty: name a table")
        self.slot = slot
        self.table = table
        self.schema = schema
        self.lease: float = checked_lease(lease)
        self.create = create
        self._origin = engine_or_url
        self._database = Database(engine_or_url)
        self._table = token_table(MetaData(), table, schema)
        self._rows = Rows(self._database, self._table, create=create)

    @property
    def path(self) -> str | None:
        """The file of an SQLite database; ``None`` for any other database."""
        return self._database.file

    def create_table(self) -> None:
        """Create the table unless it exists.  Several processes can do so at the same time.

        :raises StoreError: if the table cannot be created.
        """
        with self._explained("create its table"):
            self._database.create(self._table)

    def load(self) -> Snapshot:
        """The document in the slot, and the database's time.

        A row with something else counts as empty; the log (``tokenadapter.store``) says so once,
        and the next save puts the content aside.

        :raises StoreError: if the row cannot be read.
        """
        with self._explained("read the token"):
            row = self._rows.read(self.slot)
        document = _decoded(row)
        if document is None:
            if row.text is not None:
                warn_of_damage(self)
            return Snapshot(None, None, row.now)
        return Snapshot(document, row.tag, row.now)

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the record if its tag is still *expected*.

        The content of a row that is not a record is moved to another row, whose name ends in
        ``.damaged-``, the time and a nonce, and never overwritten.

        :param ttl: seconds after which the row may be deleted; its ``expires_at`` says when.
        :returns: ``False``, with nothing written, if the tag is another one.
        :raises StoreError: if the row cannot be written, or it is unknown whether it was.
        """
        with self._explained("save the token"):
            return self._write(self.slot, document, tag, expected, ttl)

    def prepare(self) -> None:
        """Do nothing: saving the intent just before has shown that a save works."""

    def lock(self) -> RowLease:
        """A lease on the row, not yet taken."""
        return RowLease(self._rows, self.slot, self.lease, self._explained)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        """Remember *digest* in the row ``NAME.spent``.

        :param for_good: otherwise, *digest* is forgotten after 32 others.
        :raises StoreError: if the row cannot be written.
        """
        with self._explained("remember a spent refresh token"):
            for _ in range(_TRIES):
                spent, tag = self._spent()
                document = {"spent": remembering(spent, digest, for_good=for_good)}
                if self._write(self.slot + SPENT, document, os.urandom(8).hex(), tag, None):
                    return
            raise TimeoutError("others write to its row all the time")

    def was_spent(self, digest: str) -> bool:
        """Whether *digest* is remembered.

        :raises StoreError: if the row cannot be read.
        """
        with self._explained("read which refresh tokens were spent"):
            return is_remembered(self._spent()[0], digest)

    def __repr__(self) -> str:
        return f"SQLStore({str(self._database)!r}, {self.slot!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._origin, Engine):
            raise PicklingError(
                f"{self!r} was made from an engine, which belongs to its process: make the store "
                "again in the other process, or pass a URL."
            )
        make = partial(
            type(self),
            table=self.table,
            schema=self.schema,
            lease=self.lease,
            create=self.create,
        )
        return make, (self._origin, self.slot)

    def __deepcopy__(self, memo: object) -> SQLStore:
        return self  # a copy would be the same slot, on the same connections

    def _write(
        self, slot: str, document: Document, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        row = self._rows.read(slot)
        if row.text is not None and _decoded(row) is None:
            if expected is not None:
                return False
            aside = f"{slot}.{damaged_name()}"
            self._rows.put_aside(slot, aside, row)
            warn_put_aside(self, f"the row {aside!r}")
        text = json.dumps(document)
        return self._rows.write(slot, text, tag=tag, expected=expected, ttl=ttl)

    def _spent(self) -> tuple[list[str], str | None]:
        """The hashes of spent tokens, and the tag of their row."""
        row = self._rows.read(self.slot + SPENT)
        document = _decoded(row)
        return ([], None) if document is None else (document.get("spent", []), row.tag)

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            failure = self._database.failure(self, task, error, self._table)
            try:
                raise failure from None
            finally:
                # The context, too, may quote what was to be written.
                failure.__context__ = None


def _decoded(row: Row) -> Document | None:
    """The document in a row, or ``None`` if there is none."""
    if row.tag is None or row.text is None:
        return None
    try:
        document = json.loads(row.text)
    except (TypeError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
