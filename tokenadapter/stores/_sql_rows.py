"""What a database store does with the rows of its table.

A row is a slot: a text, the tag of its last write, and a lease.  Each change is one ``UPDATE``
that says in its ``WHERE`` what it expects, so it happens as a whole or not at all, and a repeated
one finds what it did before.  All times are the database's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, literal, or_, select, type_coerce
from sqlalchemy.exc import DBAPIError, IntegrityError

from tokenadapter.stores._sql_database import Database
from tokenadapter.stores._sql_table import Unseen, database_time

__all__ = ["Row", "Rows"]

T = TypeVar("T")

# How often a row may come or go between two statements.
_TRIES = 10


class Row(NamedTuple):
    """What a row held at one moment."""

    tag: str | None
    text: str | None
    now: float
    """The database's time (POSIX timestamp in seconds)."""

    def __repr__(self) -> str:
        return f"<Row tag={self.tag!r}>"


class Rows:
    """The rows of one table.

    :param create: create the table when it is found missing.
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
        # Also if another process has created it since.
        return self.database.run(work)

    # --- the text ------------------------------------------------------------------------

    def read(self, slot: str) -> Row:
        """What is there, and the time in any case."""
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
        """Move what *row* held to a row of another name, if it is still there."""
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
        """Let *owner* have the lease, if nobody else has but *dead*: who has it now, if that can be
        told."""
        table = self.table
        is_free = or_(
            table.c.lease_owner.is_(None),
            table.c.lease_owner.in_([owner] if dead is None else [owner, dead]),
            table.c.lease_end.is_(None),
            table.c.lease_end <= self._now,
        )
        values = {"lease_owner": owner, "lease_end": self._now + seconds}
        change = table.update().where(table.c.slot == slot, is_free).values(values)
        # Reading comes first: those who wait read only, and are in nobody's way.
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
        """Who has the lease now."""
        table = self.table
        is_held = and_(table.c.slot == slot, table.c.lease_end > self._now)
        query = select(table.c.lease_owner).where(is_held)
        owner: str | None = self._run(lambda connection: connection.execute(query).scalar())
        return owner

    def extend(self, slot: str, owner: str, seconds: float) -> bool:
        """Let the lease end so many *seconds* from now, if *owner* has it."""
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
        """Add a row, unless there is one."""
        table = self.table
        try:
            connection.execute(table.insert().values(slot=slot, **values))
        except IntegrityError:
            query = select(table.c.slot).where(table.c.slot == slot)
            if connection.execute(query).one_or_none() is None:
                raise
            return False
        return True
