"""What a database says, as a :class:`~tokenadapter.errors.StoreError` that helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tokenadapter.late_imports import late
from tokenadapter.stores._sql_database import Database

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["TROUBLE", "failure"]

TROUBLE = (SQLAlchemyError, OSError)
"""What is raised when a database cannot be reached, or does not do what it was asked for."""

# The longest that a driver's words are repeated, in characters.
_WORDS = 200


def failure(
    slot: object, task: str, error: Exception, database: Database, table: Table
) -> errors.StoreError:
    """The :class:`StoreError` for *error*, which kept *slot* from doing its *task*."""
    if _is_for_lack_of(table, error, database):
        return errors.StoreError(
            f"{slot!r} cannot {task}: there is no table {table.fullname}. Call create_table() "
            "once, let the store create it (create=True, or ?create=1 in a URL), or create it by "
            "the DDL in the documentation (Keep the token in a database)."
        )
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    # The first line only: in the next ones, a driver may quote the row that it did not take.
    words = next(iter(str(cause).splitlines()), "")[:_WORDS]
    return errors.StoreError(
        f"{slot!r} cannot {task}: {type(cause).__name__}: {words}. Nothing stored was lost. See "
        "that the database can be reached and written."
    )


def _is_for_lack_of(table: Table, error: Exception, database: Database) -> bool:
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    try:
        return not database.has(table)
    except TROUBLE:
        return False
