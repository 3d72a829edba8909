"""One slot in a file, which most tests here are about, and slots in databases."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import sqlalchemy
from databases import MariaDB, PostgreSQL, with_table

from tokenadapter.stores.file import FileStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "token.json"


@pytest.fixture
def store(path: Path) -> FileStore:
    return FileStore(path)


SLOTS = itertools.count()


@pytest.fixture
def slot() -> str:
    """The name of a slot that no other test has."""
    return f"slot {next(SLOTS)}"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of a database with the table of SQLStore."""
    return with_table(f"sqlite:///{tmp_path / 'tokens.sqlite3'}")


@pytest.fixture(scope="session")
def postgresql_url(postgresql: PostgreSQL) -> str:
    return with_table(postgresql.new_database())


@pytest.fixture(scope="session")
def serializable_url(postgresql: PostgreSQL) -> str:
    """A database whose statements fail on conflicts."""
    url = postgresql.new_database()
    name = sqlalchemy.make_url(url).database
    postgresql.run(f"ALTER DATABASE {name} SET default_transaction_isolation TO 'serializable'")
    return with_table(url)


@pytest.fixture(scope="session")
def mariadb_url(mariadb: MariaDB) -> str:
    return with_table(mariadb.new_database())
