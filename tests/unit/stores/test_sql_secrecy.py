"""What SQLStore keeps from other users of the machine, from logs, and from error reports."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from databases import rows

from tokenadapter.errors import StoreError
from tokenadapter.stores.sql import SQLStore
from tokenadapter.stores.urls import store_from_url

from .helpers import mode, run, save

SECRET = "s3cr3t"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The path of a database, without a umask that would hide which modes are asked for."""
    before = os.umask(0)
    yield tmp_path / "tokens.db"
    os.umask(before)


# The file of SQLite


@pytest.mark.parametrize("kind", ["URL", "URI", "engine", "text"])
def test_a_file_of_sqlite_is_created_for_its_owner_alone(file: Path, kind: str) -> None:
    if kind == "text":
        store = store_from_url(f"sqlite:///{file}?create=1#billing")
    elif kind == "engine":
        store = SQLStore(sqlalchemy.create_engine(f"sqlite:///{file}"), "billing", create=True)
    elif kind == "URI":
        store = SQLStore(f"sqlite:///file:{file}?uri=true", "billing", create=True)
    else:
        store = SQLStore(f"sqlite:///{file}", "billing", create=True)
    save(store)
    assert store.load().document == {"n": 1}
    assert [entry.name for entry in file.parent.iterdir()] == ["tokens.db"]
    assert mode(file) == 0o600


def test_the_journals_beside_it_are_for_its_owner_alone_too(file: Path) -> None:
    store = SQLStore(f"sqlite:///{file}", "billing", create=True)
    save(store)
    rows(f"sqlite:///{file}", "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(file)) as other:
        other.execute("SELECT * FROM tokenadapter").fetchall()
        save(store, 2, expected="tag 1")
        modes = {entry.name: mode(entry) for entry in file.parent.iterdir()}
    assert modes == {"tokens.db": 0o600, "tokens.db-shm": 0o600, "tokens.db-wal": 0o600}


@pytest.mark.parametrize("name", ["tokens.db", "tokens.db-wal"])
def test_a_file_that_others_can_read_already_is_used_with_a_warning(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (file, file.with_name(name)):
        path.touch(0o600)
    file.with_name(name).chmod(0o644)
    store = SQLStore(f"sqlite:///{file}", "billing", create=True)
    save(store)
    assert store.load().document == {"n": 1}
    assert mode(file) == (0o644 if name == file.name else 0o600)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"others can read the tokens in {file}: run `chmod go-rwx {file}" in message


def test_an_existing_file_keeps_the_locks_of_this_process(file: Path) -> None:
    save(SQLStore(f"sqlite:///{file}", "billing", create=True))
    # A POSIX lock ends when its process closes any descriptor of the file.
    with closing(sqlite3.connect(file, isolation_level=None)) as ours:
        ours.execute("BEGIN IMMEDIATE")
        assert SQLStore(f"sqlite:///{file}", "billing").load().document == {"n": 1}
        run(f"""
            import sqlite3
            try:
                sqlite3.connect({str(file)!r}, timeout=0).execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                assert "locked" in str(error)
            else:
                raise AssertionError("the lock is gone")
        """)


def test_a_file_that_sqlite_must_not_create_is_not_created(file: Path) -> None:
    store = SQLStore(f"sqlite:///file:{file}?mode=rw&uri=true", "billing")
    with pytest.raises(StoreError, match="unable to open database file"):
        store.load()
    assert not file.exists()


# Logs and errors


@pytest.mark.parametrize("is_echoed", [True, False])
def test_no_log_of_sqlalchemy_shows_the_record(
    sqlite: str, is_echoed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    place: str | sqlalchemy.Engine = sqlite
    if is_echoed:
        place = sqlalchemy.create_engine(sqlite, echo="debug")
    store = SQLStore(place, "billing")
    assert store.save({"token": SECRET}, tag="tag 1", expected=None, ttl=None)
    assert store.load().document == {"token": SECRET}
    assert "tag 1" in caplog.text  # the row
    assert SECRET not in caplog.text


def test_no_error_leads_to_the_record(sqlite: str) -> None:
    store = SQLStore(sqlite, "billing")
    rows(
        sqlite,
        "CREATE TRIGGER full BEFORE INSERT ON tokenadapter BEGIN SELECT RAISE(FAIL, 'full'); END",
    )
    with pytest.raises(StoreError, match="full") as caught:
        store.save({"token": SECRET}, tag="tag 1", expected=None, ttl=None)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("port", ["", ":5432"])
def test_a_password_with_a_slash_is_not_shown(port: str) -> None:
    store = SQLStore(f"postgresql+psycopg://me:12/{SECRET}@host{port}/database", "billing")
    assert repr(store) == f"SQLStore('postgresql+psycopg://me:***@host{port}/database', 'billing')"
