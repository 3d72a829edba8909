"""The rows of a database store's table.

A row is a slot: a text, the tag of its last write, and a lease.  Each change is one ``UPDATE`` that
says in its ``WHERE`` what it expects, so the change happens as a whole or not at all, and repeating
it does no harm.  All times are the database's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    and_,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.exc import DBAPIError, IntegrityError

from tokenadapter.stores._sql_database import Database
from tokenadapter.stores.toolkit import Lease

__all__ = ["SPENT", "Row", "RowLease", "Rows", "check_name", "database_time", "token_table"]

SPENT = ".spent"
"""The end of the name of the row that remembers a slot's spent tokens."""

T = TypeVar("T")

_NAME_LENGTH = 255
# How many characters of a row's name are left for what follows the slot's name.
_SPARE = 40

_SQLITE_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_MYSQL_NOW = "timestampdiff(microsecond, '1970-01-01 00:00:00', utc_timestamp(6)) / 1e6"
_POSTGRESQL_NOW = "cast(extract(epoch from clock_timestamp()) as double precision)"
# POSIX timestamps with fractions: SQLite's unixepoch() has them from 3.42 on only, and MySQL's
# unix_timestamp() goes by the time zone of the session.
_NOW = {
    "sqlite": _SQLITE_NOW,
    "mysql": _MYSQL_NOW,
    "mariadb": _MYSQL_NOW,
    "postgresql": _POSTGRESQL_NOW,
}


def token_table(metadata: MetaData, name: str = "tokenadapter", schema: str | None = None) -> Table:
    """The table of :class:`~tokenadapter.SQLStore`, for programs that create their tables from a
    ``MetaData`` of their own."""
    return Table(
        name,
        metadata,
        Column("slot", String(_NAME_LENGTH), primary_key=True),
        Column("tag", String(255)),
        # MySQL's Text has at most 64 kB.
        Column("document", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")),
        Column("expires_at", Double),
        Column("lease_owner", String(320)),
        Column("lease_end", Double),
        schema=schema,
        # By default, MySQL compares without regard to case.
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


class Unseen(TypeDecorator[str]):
    """A text with a ``repr`` that does not show it.

    At level DEBUG, or with ``echo="debug"``, SQLAlchemy logs the ``repr`` of each row, with
    ``hide_parameters`` too.
    """

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else _UnseenText(value)


class _UnseenText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def database_time(dialect: str) -> ColumnElement[float]:
    """An expression for the database's time (POSIX timestamp in seconds).

    :raises ValueError: if this class does not support *dialect*.
    """
    if dialect not in _NOW:
        raise ValueError(
            f"SQLStore works with {', '.join(_NOW)}, and not with {dialect}: it does not know how "
            "to ask that database for the time"
        )
    return literal_column(f"({_NOW[dialect]})", Double)


def check_name(slot: str) -> None:
    """Raise :class:`ValueError` if *slot* cannot be the name of a slot."""
    if not slot or slot != slot.strip() or not slot.isprintable():
        raise ValueError(f"slot is a name without spaces around it, not {slot!r}")
    if len(slot) > _NAME_LENGTH - _SPARE:
        raise ValueError(f"slot has {len(slot)} characters, more than {_NAME_LENGTH - _SPARE}")
    if slot.endswith(SPENT) or ".damaged-" in slot:
        raise ValueError(
            f"slot {slot!r} is reserved for a row of another slot: choose another name"
        )


# How often to try again if another process creates or deletes the row between two statements.
_TRIES = 10


class Row(NamedTuple):
    """The content of a row at one moment."""

    tag: str | None
    text: str | None
    now: float
    """The database's time (POSIX timestamp in seconds)."""

    def __repr__(self) -> str:
        return f"<Row tag={self.tag!r}>"


class Rows:
    """The rows of one table.

    :param create: create the table when it turns out to be missing.
    """

    def __init__(self, database: Database, table: Table, *, create: bool = False) -> None:
        self.database = database
        self.table = table
        self._creates = create
        self._now = database_time(database.dialect)

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return self.database.run(work)
        except DBAPIError as error:
            if not self._creates or error.connection_invalidated:
                raise
        if not self.database.has(self.table):
            self.database.create(self.table)
        # Also if another process has created the table since.
        return self.database.run(work)

    # --- the text ------------------------------------------------------------------------

    def read(self, slot: str) -> Row:
        """The content of a row, and the time, even if there is no such row."""
        table = self.table
        here = select(literal(1).label("here")).subquery()
        document = type_coerce(table.c.document, Unseen)
        query = select(table.c.tag, document, self._now).select_from(
            here.outerjoin(table, table.c.slot == slot)
        )
        tag, text, now = self._run(lambda connection: connection.execute(query).one())
        return Row(tag, None if text is None else str(text), float(now))

    def write(
        self, slot: str, text: str, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Replace the text if its tag is *expected*, or *tag* itself already."""
        table = self.table
        is_empty = and_(table.c.tag.is_(None), table.c.document.is_(None))
        is_expected = is_empty if expected is None else table.c.tag == expected
        values = {
            "tag": tag,
            "document": text,
            "expires_at": None if ttl is None else self._now + ttl,
        }
        change = (
            table.update()
            .where(table.c.slot == slot, or_(is_expected, table.c.tag == tag))
            .values(values)
        )
        query = select(table.c.tag).where(table.c.slot == slot)

        def work(connection: Connection) -> bool:
            for _ in range(_TRIES):
                if connection.execute(change).rowcount == 1:
                    return True
                row = connection.execute(query).one_or_none()
                if row is not None:
                    # Some drivers count only what became different.
                    return bool(row[0] == tag)
                if expected is not None:
                    return False
                if self._insert(connection, slot, values):
                    return True
            return False

        return self._run(work)

    def put_aside(self, slot: str, name: str, row: Row) -> None:
        """Move the content of *row* to a row called *name*, if it did not change since."""
        table = self.table
        is_there = and_(
            table.c.slot == slot,
            table.c.tag.is_(None) if row.tag is None else table.c.tag == row.tag,
            table.c.document == row.text,
        )
        what = select(literal(name), table.c.tag, table.c.document).where(is_there)
        copy = table.insert().from_select(["slot", "tag", "document"], what)
        clear = table.update().where(is_there).values(tag=None, document=None)
        self._run(lambda connection: connection.execute(copy))
        self._run(lambda connection: connection.execute(clear))

    # --- the lease -----------------------------------------------------------------------

    def take(self, slot: str, owner: str, seconds: float, dead: str | None) -> str | None:
        """Give *owner* the lease if it is free, or *dead* has it.

        :returns: the owner now; ``None`` if it is another one that is not known.
        """
        table = self.table
        is_free = or_(
            table.c.lease_owner.is_(None),
            table.c.lease_owner.in_([owner] if dead is None else [owner, dead]),
            table.c.lease_end.is_(None),
            table.c.lease_end <= self._now,
        )
        values = {"lease_owner": owner, "lease_end": self._now + seconds}
        change = table.update().where(table.c.slot == slot, is_free).values(values)
        # Read first: waiting processes then write nothing and block no other process.
        query = select(is_free, table.c.lease_owner).where(table.c.slot == slot)

        def work(connection: Connection) -> str | None:
            for _ in range(_TRIES):
                row = connection.execute(query).one_or_none()
                if row is not None and not row[0]:
                    return str(row[1])
                if row is not None:
                    return owner if connection.execute(change).rowcount == 1 else None
                if self._insert(connection, slot, values):
                    return owner
            return None

        return self._run(work)

    def holder(self, slot: str) -> str | None:
        """The owner of the lease now."""
        table = self.table
        is_held = and_(table.c.slot == slot, table.c.lease_end > self._now)
        query = select(table.c.lease_owner).where(is_held)
        owner: str | None = self._run(lambda connection: connection.execute(query).scalar())
        return owner

    def extend(self, slot: str, owner: str, seconds: float) -> bool:
        """Let the lease end *seconds* from now, and return whether *owner* has it."""
        return self._change_lease(slot, owner, lease_end=self._now + seconds)

    def free(self, slot: str, owner: str) -> None:
        """End the lease, if *owner* has it."""
        self._change_lease(slot, owner, lease_owner=None, lease_end=None)

    def _change_lease(self, slot: str, owner: str, **values: ColumnElement[float] | None) -> bool:
        table = self.table
        change = (
            table.update().where(table.c.slot == slot, table.c.lease_owner == owner).values(values)
        )
        return self._run(lambda connection: connection.execute(change).rowcount == 1)

    def _insert(self, connection: Connection, slot: str, values: dict[str, Any]) -> bool:
        """Add a row unless it exists, and return whether it was added."""
        table = self.table
        try:
            connection.execute(table.insert().values(slot=slot, **values))
        except IntegrityError:
            query = select(table.c.slot).where(table.c.slot == slot)
            if connection.execute(query).one_or_none() is None:
                raise
            return False
        return True


class RowLease(Lease):
    """A lease on the row of *slot*.

    :param explained: turns errors in its block into a :class:`StoreError` that names the task.
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

    def take(self, owner: str, seconds: float, dead: str | None = None) -> str | None:
        with self._explained("take the lock"):
            return self._rows.take(self._slot, owner, seconds, dead)

    def extend(self, owner: str, seconds: float) -> bool:
        with self._explained("keep the lock"):
            return self._rows.extend(self._slot, owner, seconds)

    def free(self, owner: str) -> None:
        self._rows.free(self._slot, owner)

    def holder(self) -> str | None:
        """The owner of the lease now; ``None`` if the lease is free."""
        with self._explained("look at the lock"):
            return self._rows.holder(self._slot)
