"""The store for whoever shares a database: a row for each slot, by SQLAlchemy.

It writes on connections of its own, so that a request that is rolled back cannot undo a rotated
token, and holds neither connection nor transaction while the token endpoint is asked: the lock is
a lease in the row, by the database's clock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pickle import PicklingError
from typing import Any

from tokenadapter.stores import _damage
from tokenadapter.stores._lease import LEASE
from tokenadapter.stores._notes import is_noted, noted
from tokenadapter.values import Document, Snapshot

try:
    from sqlalchemy import URL, Engine, MetaData

    from tokenadapter.stores._sql_database import Database
    from tokenadapter.stores._sql_lease import RowLease
    from tokenadapter.stores._sql_rows import Row, Rows
    from tokenadapter.stores._sql_table import ASIDE, NOTES, check_name, token_table
    from tokenadapter.stores._sql_trouble import TROUBLE, failure
except ImportError as _error:
    from tokenadapter.extras import ExtraMissing

    raise ExtraMissing(
        "SQLStore needs SQLAlchemy 2.0.30 or later: pip install 'tokenadapter[sql]'"
    ) from _error

__all__ = ["SQLStore", "token_table"]

# How often a note is written anew because somebody else has written one.
_TRIES = 100


class SQLStore:
    """One slot in a database, for all processes and machines that share it.

    PostgreSQL, MySQL, MariaDB and SQLite.  The table has to be there (see :meth:`create_table`),
    unless *create* is set.  A file of SQLite that is not there is created with mode 0600.
    The row has the slot's name; where refresh tokens were spent, a second one, ``NAME.notes``,
    remembers them by their hashes if the record is deleted.

    The store connects anew, on connections of its own that commit each statement, and keeps one
    of them open for a short while.  A forked child connects for itself.

    :param engine_or_url: a URL for a synchronous driver, or an engine, which shows how to connect
        and lends its kind of pool, but none of its connections.
    :param slot: the name of the slot, up to 215 characters.
    :param table: the name of the table, which all slots can share.
    :param schema: the name of the table's schema, if it is not the usual one.
    :param lease: for how many seconds a holder of the lock that died keeps others waiting at most:
        fewer than the source's ``grace``, if it has one.
    :param create: create the table when it is found missing, also if many processes do so at once.
    :raises TypeError: if *engine_or_url* is neither, or is asynchronous.
    :raises ValueError: if nobody else could see what is stored (SQLite in memory), or a name
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
        if not lease > 0:
            raise ValueError(f"lease must be above 0 seconds, not {lease!r}")
        self.slot = slot
        self.table = table
        self.schema = schema
        self.lease = lease
        self.create = create
        self._origin = engine_or_url
        self._database = Database(engine_or_url)
        self._table = token_table(MetaData(), table, schema)
        self._rows = Rows(self._database, self._table, create=create)
        self._warned = False

    @property
    def path(self) -> str | None:
        """The file of an SQLite database; ``None`` for another database."""
        return self._database.file

    def create_table(self) -> None:
        """Create the table unless it is there, whoever else does so at the same time.

        :raises StoreError: if it cannot be created.
        """
        with self._explained("create its table"):
            self._database.create(self._table)

    def load(self) -> Snapshot:
        """What the slot holds now, and the database's time.

        A row that holds no record counts as empty; the log (``tokenadapter.store``) says so once,
        and the next save puts it aside.

        :raises StoreError: if it cannot be read.
        """
        with self._explained("read the token"):
            row = self._rows.read(self.slot)
        document = _decoded(row)
        if document is None:
            if row.text is not None and not self._warned:
                self._warned = True
                _damage.found(self)
            return Snapshot(None, None, row.now)
        return Snapshot(document, row.tag, row.now)

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the record if its tag is still *expected*.

        A row that holds no record is moved to another name, which ends in ``.damaged-`` and the
        time, and never overwritten.

        :param ttl: seconds after which the row's ``expires_at`` says that it may be deleted.
        :returns: ``False``, and nothing was written, if the tag has moved on.
        :raises StoreError: if it cannot be written, or nobody knows whether it was.
        """
        with self._explained("save the token"):
            return self._write(self.slot, document, tag, expected, ttl)

    def prepare(self) -> None:
        """Nothing: what kept a save from succeeding kept the announcement before it, too."""

    def lock(self) -> RowLease:
        """A lease on the row, not yet taken."""
        return RowLease(self._rows, self.slot, self.lease, self._explained)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        """Remember *note*, in a row of its own.

        :param for_good: else it is forgotten when 32 others have come after it.
        :raises StoreError: if that cannot be written.
        """
        with self._explained("remember a spent refresh token"):
            for _ in range(_TRIES):
                notes, tag = self._notes()
                document = {"notes": noted(notes, note, for_good=for_good)}
                if self._write(self.slot + NOTES, document, os.urandom(8).hex(), tag, None):
                    return
            raise TimeoutError("others write notes all the time")

    def was_spent(self, note: str) -> bool:
        """Whether *note* is remembered.

        :raises StoreError: if that cannot be read.
        """
        with self._explained("read which refresh tokens were spent"):
            return is_noted(self._notes()[0], note)

    def __repr__(self) -> str:
        return f"SQLStore({str(self._database)!r}, {self.slot!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._origin, Engine):
            raise PicklingError(
                f"{self!r} was made from an engine, which belongs to its process: make the store "
                "anew in the other process, or give it a URL."
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
        return self  # a copy would be the same slot, by the same connections

    # --- how it is done ------------------------------------------------------------------

    def _write(
        self, slot: str, document: Document, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        row = self._rows.read(slot)
        if row.text is not None and _decoded(row) is None:
            if expected is not None:
                return False
            aside = f"{slot}{ASIDE}{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(4).hex()}"
            self._rows.put_aside(slot, aside, row)
            _damage.put_aside(self, f"the row {aside!r}")
        text = json.dumps(document)
        return self._rows.write(slot, text, tag=tag, expected=expected, ttl=ttl)

    def _notes(self) -> tuple[list[str], str | None]:
        """What is remembered, and the tag of that."""
        row = self._rows.read(self.slot + NOTES)
        document = _decoded(row)
        return ([], None) if document is None else (document.get("notes", []), row.tag)

    @contextmanager
    def _explained(self, task: str) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            told = failure(self, task, error, self._database, self._table)
            try:
                raise told from None
            finally:
                # Its context, too, may quote what was to be written.
                told.__context__ = None


def _decoded(row: Row) -> Document | None:
    """The document of a row, or ``None`` if it has none."""
    if row.tag is None or row.text is None:
        return None
    try:
        document = json.loads(row.text)
    except (TypeError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
