"""The table of a database store, and how each database tells the time."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    literal_column,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT

__all__ = ["ASIDE", "NOTES", "Unseen", "check_name", "database_time", "token_table"]

NOTES = ".notes"
"""What is put behind the name of a slot, for the row of its notes."""
ASIDE = ".damaged-"
"""What is put behind it, and before a time, for a row that was put aside."""

_NAME_LENGTH = 255
# So many characters are left for that.
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
    """The table of :class:`~tokenadapter.SQLStore`, for those who create their tables by a
    metadata of their own."""
    return Table(
        name,
        metadata,
        Column("slot", String(_NAME_LENGTH), primary_key=True),
        Column("tag", String(255)),
        # A Text of MySQL ends at 64 kB.
        Column("document", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")),
        Column("expires_at", Double),
        Column("lease_owner", String(320)),
        Column("lease_end", Double),
        schema=schema,
        # MySQL's usual comparison takes A for a.
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


class Unseen(TypeDecorator[str]):
    """A text whose ``repr`` does not show it.

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
    """The database's time, as a POSIX timestamp in seconds.

    :raises ValueError: if it is not known how to ask *dialect* for it.
    """
    if dialect not in _NOW:
        raise ValueError(
            f"SQLStore works with {', '.join(_NOW)}, and does not know how {dialect} tells the time"
        )
    return literal_column(f"({_NOW[dialect]})", Double)


def check_name(slot: str) -> None:
    """Raise :class:`ValueError` if *slot* cannot be the name of one."""
    if not slot or slot != slot.strip() or not slot.isprintable():
        raise ValueError(f"slot is a name without spaces around it, not {slot!r}")
    if len(slot) > _NAME_LENGTH - _SPARE:
        raise ValueError(f"slot has {len(slot)} characters, more than {_NAME_LENGTH - _SPARE}")
    if slot.endswith(NOTES) or ASIDE in slot:
        raise ValueError(f"slot {slot!r} is kept for what belongs to another slot: another name")
