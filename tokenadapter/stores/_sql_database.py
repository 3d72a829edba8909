"""A store's own connections to a database, on which every statement is a transaction; and what to
do about an error of the database.

The application does not share these connections: a rollback of the application cannot undo a save,
and a save does not wait for a pool that the application's requests have emptied.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit
from weakref import WeakSet, finalize

from sqlalchemy import (
    URL,
    AssertionPool,
    Connection,
    Engine,
    Pool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
    Table,
    create_engine,
    inspect,
    make_url,
)
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from tokenadapter.stores import _strangers
from tokenadapter.stores._files import create
from tokenadapter.stores.toolkit import Refused, failure, warn

if TYPE_CHECKING:
    from tokenadapter import errors

__all__ = ["TROUBLE", "Database"]

T = TypeVar("T")

TROUBLE = (SQLAlchemyError, OSError)
"""The errors by which a database cannot be reached, or does not do what it should."""

# The most characters of a driver's message that are repeated.
_WORDS = 200
# Seconds after which an idle connection is not used again: a firewall may have dropped it silently.
_RECYCLE = 30
# Options of drivers: seconds after which they give up waiting, which some would do for ever.
_NETWORK = 5
_LIBPQ = {"connect_timeout": _NETWORK, "tcp_user_timeout": _NETWORK * 1000}
_MYSQL = dict.fromkeys(["connect_timeout", "read_timeout", "write_timeout"], _NETWORK)
_TIMEOUTS = {"psycopg": _LIBPQ, "psycopg2": _LIBPQ, "pymysql": _MYSQL, "mysqldb": _MYSQL}
# How to make a statement wait for the locks of others for 5 seconds only.
_LOCK_TIMEOUT = dict.fromkeys(["mysql", "mariadb"], "SET SESSION innodb_lock_wait_timeout = 5")
_LOCK_TIMEOUT["postgresql"] = "SET lock_timeout = 5000"
# How often a statement is tried that collides with those of others.
_TRIES = 10
# Serialization failures and deadlocks (SQLSTATE), MySQL's number for a deadlock, and MariaDB's for
# a row that has changed since it was read.
_COLLISIONS = {"40001", "40P01", 1213, 1020}


class Database:
    """A database.

    :param engine_or_url: an engine shows how to connect; its connections are not used.
    :raises TypeError: if it is neither an engine nor a URL, or is asynchronous.
    :raises ValueError: if no other process or connection could see what is written.
    :raises ModuleNotFoundError: if the driver is not installed.
    """

    def __init__(self, engine_or_url: str | URL | Engine) -> None:
        self.engine: Engine = _engine(engine_or_url)
        self.dialect: str = self.engine.dialect.name
        if self.dialect in _LOCK_TIMEOUT:
            listen(self.engine, "connect", partial(_limit_waits, _LOCK_TIMEOUT[self.dialect]))
        #: The file of an SQLite database.
        self.file: str | None = _file(self.engine)
        self._has_checked = False
        _DATABASES.add(self)
        finalize(self, self.engine.dispose)

    def __str__(self) -> str:
        # Options may contain secrets, too.
        return self.engine.url.set(password=None, query={}).render_as_string()

    def run(self, work: Callable[[Connection], T]) -> T:
        """What *work* returns when it is called with a connection.

        It is called again on a new connection if the connection was lost, once, and if its
        statements collide with those of others: so all of its statements can be repeated.
        """
        tries, was_lost = 1, False
        while True:
            try:
                self._create_file()
                with self.engine.connect() as connection:
                    result = work(connection)
                    # An application's engine may turn autocommit off again.
                    connection.commit()
                    return result
            except DBAPIError as error:
                if error.connection_invalidated and not was_lost:
                    was_lost = True
                elif _is_collision(error) and tries < _TRIES:
                    time.sleep(random.uniform(0, 0.002 * 2**tries))  # noqa: S311 - no secret
                    tries += 1
                else:
                    raise

    def has(self, table: Table) -> bool:
        """Whether there is such a table."""
        return self.run(
            lambda connection: inspect(connection).has_table(table.name, schema=table.schema)
        )

    def create(self, table: Table) -> None:
        """Create *table* unless it is there."""
        creation = CreateTable(table, if_not_exists=True)
        try:
            self.run(lambda connection: connection.execute(creation))
        except DBAPIError:
            # Of several that create it at the same time, PostgreSQL lets all but one fail.
            if not self.has(table):
                raise

    def failure(self, slot: object, task: str, error: Exception, table: Table) -> errors.StoreError:
        """The error that says that *slot* could not do its *task*."""
        if self._is_for_lack_of(table, error):
            return failure(
                slot,
                task,
                f"there is no table {table.fullname}",
                "Call create_table() once, let the store create it (create=True, or ?create=1 in a "
                "URL), or create it by the DDL in the documentation (Keep the token in a "
                "database).",
            )
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        # The first line only: in the next ones, a driver may quote the row that it did not accept.
        words = next(iter(str(cause).splitlines()), "")[:_WORDS]
        advice = "See that the database can be reached and written."
        return failure(slot, task, f"{type(cause).__name__}: {words}", advice)

    def _is_for_lack_of(self, table: Table, error: Exception) -> bool:
        if not isinstance(error, DBAPIError) or error.connection_invalidated:
            return False
        try:
            return not self.has(table)
        except TROUBLE:
            return False

    def _create_file(self) -> None:
        """Create the file of an SQLite database with mode 0600: SQLite would let every user read
        it.  The journals get the mode of the file."""
        if self.file is None:
            return
        try:
            # Do not open a file that exists: closing it would release all locks on it that SQLite
            # has in this process.
            os.close(create(self.file))
        except FileExistsError:
            # The file may belong to an application that shares it on purpose.
            if not self._has_checked:
                self._has_checked = True
                self._warn_of_readers(self.file)
        except OSError:
            return  # SQLite's own error will say more

    def _warn_of_readers(self, file: str) -> None:
        try:
            _strangers.check_database(file)
        except Refused as error:
            warn("%s", error)

    def _after_fork(self) -> None:
        # The connections are the parent's.  Some drivers would end them when they are garbage
        # collected.
        _INHERITED.append(self.engine.pool)
        self.engine.dispose(close=False)


def _engine(engine_or_url: object) -> Engine:
    """An engine with a pool of its own."""
    if isinstance(engine_or_url, (str, URL)):
        url = _url(engine_or_url)
        dialect = url.get_dialect()
        is_async = dialect.is_async
        timeouts = _TIMEOUTS.get(dialect.driver, {})
        settings: dict[str, Any] = {
            "connect_args": {key: timeouts[key] for key in timeouts.keys() - url.query.keys()},
            "poolclass": QueuePool,
            # One connection stays open; no thread waits for another.
            "pool_size": 1,
            "max_overflow": -1,
            "pool_recycle": _RECYCLE,
        }
    elif isinstance(engine_or_url, Engine):
        url, is_async = engine_or_url.url, engine_or_url.dialect.is_async
        options = dict(engine_or_url.get_execution_options())
        options.pop("isolation_level", None)
        settings = {"pool": _separate(engine_or_url.pool), "execution_options": options}
    else:
        # An asynchronous engine has a synchronous one inside, which cannot be used by itself.
        is_async = hasattr(engine_or_url, "sync_engine")
        if not is_async:
            kind = type(engine_or_url).__name__
            raise TypeError(f"SQLStore takes a URL or an engine, not {kind}")
    if is_async:
        raise TypeError(
            "SQLStore needs a synchronous driver: the thread that renews waits for the database. "
            "Pass a URL of one, such as postgresql+psycopg://, mysql+pymysql:// or sqlite://."
        )
    _check_shared(url)
    try:
        # Parameters contain tokens, which must not appear in a log or an error.
        return create_engine(url, isolation_level="AUTOCOMMIT", hide_parameters=True, **settings)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: install the driver of {url.drivername}, or name another one in the URL, as "
            "in postgresql+psycopg:// or mysql+pymysql://",
            name=error.name,
        ) from error


def _url(text: str | URL) -> URL:
    try:
        url: URL | None = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    # An @ in the host is the end of a password.
    if url is None or "@" in (url.host or ""):
        # Do not show the URL, or what the error took for a port: it may be part of a password.
        raise ValueError(
            "engine_or_url cannot be read as a URL: it is written "
            "driver://user:password@host:port/database, with every character of the password "
            "except letters and digits as %XX"
        )
    return url


def _limit_waits(statement: str, connection: Any, record: object) -> None:
    """Make no statement wait for long for a row that an application has locked."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
    connection.commit()


def _separate(pool: Pool) -> Pool:
    """A pool that connects in the same way, and shares no connection."""
    single = (StaticPool, SingletonThreadPool, AssertionPool)
    if isinstance(pool, single):
        raise ValueError(
            f"The engine has a {type(pool).__name__}, which has one connection for all: SQLStore "
            "needs connections of its own. Pass a URL, or an engine with another pool."
        )
    return pool.recreate()


def _check_shared(url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        return
    name = url.database or ""
    if not name or ":memory:" in name or "mode=memory" in name or url.query.get("mode") == "memory":
        raise ValueError(
            "An SQLite database in memory belongs to one connection: neither other processes nor "
            "SQLStore's own connections would see it. Name a file, as in sqlite:////var/lib/"
            "app/tokens.sqlite3, or use MemoryStore."
        )


def _file(engine: Engine) -> str | None:
    """The file of an SQLite database, unless SQLite must not create it."""
    if engine.dialect.name != "sqlite":
        return None
    (name, *_), options = engine.dialect.create_connect_args(engine.url)
    if not options.get("uri"):
        # A user's engine may say elsewhere that a name with "file:" is a URI.
        return None if (engine.url.database or "").startswith("file:") else name
    parts = urlsplit(name)
    may_create = dict(parse_qsl(parts.query)).get("mode", "rwc") == "rwc"
    return os.path.abspath(unquote(parts.path)) if may_create else None


def _is_collision(error: DBAPIError) -> bool:
    driver = cast("Any", error.orig)
    codes = [getattr(driver, "sqlstate", None), getattr(driver, "pgcode", None), *driver.args[:1]]
    return any(code in _COLLISIONS for code in codes if isinstance(code, (str, int)))


_DATABASES: WeakSet[Database] = WeakSet()
# Pools of the process that this one was forked from, kept so that their connections stay open.
_INHERITED: list[Pool] = []


def _after_fork() -> None:
    for database in list(_DATABASES):
        database._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
