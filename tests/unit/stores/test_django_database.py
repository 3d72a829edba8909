"""DjangoCacheStore on a database: a connection of its own, whatever the request does."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from databases import PostgreSQL
from django.core.cache import caches
from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from django.test import override_settings

from tokenadapter.errors import StoreError
from tokenadapter.stores.django import DjangoCacheStore
from tokenadapter.testing.contract import Connect, StoreContract

from .django_project import create_table
from .helpers import save

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture(scope="module")
def database(project: None, postgresql: PostgreSQL) -> dict[str, Any]:
    """A database in PostgreSQL with the table of the cache, in the form of Django's settings."""
    url = sqlalchemy.make_url(postgresql.new_database())
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "HOST": url.host or url.query["host"],
        "PORT": url.port or url.query.get("port", ""),
    }
    settings: dict[str, Any] = connections.configure_settings({"default": database})["default"]
    with moved_to(settings):
        create_table()
    return settings


@contextmanager
def moved_to(database: dict[str, Any]) -> Iterator[None]:
    """The project has another database."""
    usual, settings = connections["default"], connections.settings
    settings["default"] = database
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        settings["default"], connections["default"] = usual.settings_dict, usual


@pytest.fixture
def on_postgresql(database: dict[str, Any]) -> Iterator[None]:
    with moved_to(database):
        yield


@pytest.fixture
def key() -> str:
    return f"slot-{os.urandom(4).hex()}"


@pytest.fixture
def store(project: None, key: str) -> Iterator[DjangoCacheStore]:
    connections.close_all()
    yield DjangoCacheStore("database", key)
    connections.close_all()


def test_no_secret_is_in_the_log_of_statements(
    store: DjangoCacheStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "django.db.backends")
    with override_settings(DEBUG=True):
        save(store)
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 'of the application'")
    assert "of the application" in caplog.text
    assert "cached" not in caplog.text


class TestOnPostgreSQL(StoreContract):
    @pytest.fixture
    def connect(self, on_postgresql: None, key: str) -> Connect:
        return lambda: DjangoCacheStore("database", key)


def test_a_full_cache_deletes_entries_of_past_renewals_and_no_record(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(key, monkeypatch)


@pytest.mark.usefixtures("on_postgresql")
def test_a_full_cache_in_postgresql_deletes_entries_of_past_renewals_and_no_record(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(key, monkeypatch)


def fill(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = caches["database"]
    cache.clear()
    monkeypatch.setattr(cache, "_max_entries", 40)
    # As users have them, in the order of the alphabet and against it.
    stores = [DjangoCacheStore("database", f"{user}-{key}") for user in ("7", "71", "Zoe", "ada")]
    for store in stores:
        store.remember_spent("hash", for_good=True)
    for number in range(1, 26):
        for store in stores:
            save(store, number, expected=f"tag {number - 1}" if number > 1 else None)
    assert [store.load().tag for store in stores] == ["tag 25"] * 4
    assert all(store.was_spent("hash") for store in stores)
    connections.close_all()


class Undone(Exception):
    pass


@pytest.mark.usefixtures("on_postgresql")
def test_a_request_that_is_rolled_back_does_not_undo_a_token(store: DjangoCacheStore) -> None:
    def view() -> None:
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("INSERT INTO cached VALUES ('of the request', 'x', now())")
            lock = store.lock()
            assert lock.acquire(60)
            save(store)
            store.remember_spent("hash", for_good=True)
            assert store.load().tag == "tag 1"
            lock.release()
            raise Undone

    with pytest.raises(Undone):
        view()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM cached WHERE cache_key = 'of the request'")
        assert cursor.fetchone() == (0,)
    assert store.load().tag == "tag 1"
    assert store.was_spent("hash")


def test_in_sqlite_a_request_that_only_reads_is_rolled_back_alone(store: DjangoCacheStore) -> None:
    def view() -> None:
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM cached")
            save(store)
            raise Undone

    with pytest.raises(Undone):
        view()
    assert store.load().tag == "tag 1"


def test_in_sqlite_a_request_that_has_written_blocks_other_writers(
    store: DjangoCacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "timeout", 0.01)
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute("DELETE FROM cached WHERE cache_key = ''")
        with pytest.raises(StoreError, match=r"the cache did not take|SQLite has one writer"):
            save(store)
    save(store)


def test_the_connection_of_the_request_is_left_alone(store: DjangoCacheStore) -> None:
    before = connections["default"]
    save(store)
    assert store.load().tag == "tag 1"
    with pytest.raises(StoreError):
        DjangoCacheStore("no table").load()
    assert connections["default"] is before
    # No test has opened it.
    assert before.connection is None


class ToTheReplica:
    """A router that reads elsewhere than it writes."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


def test_reads_go_to_the_database_that_is_written(store: DjangoCacheStore) -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ToTheReplica"]):
        save(store)
        assert store.load().tag == "tag 1"
        assert connections["replica"].connection is None
    assert store.load().tag == "tag 1"


@pytest.mark.usefixtures("on_postgresql")
def test_a_project_without_autocommit_can_save(
    store: DjangoCacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "AUTOCOMMIT", False)
    save(store)
    monkeypatch.undo()
    assert store.load().tag == "tag 1"


def lapse(key: str) -> None:
    """The holder of the lock died a while ago."""
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "UPDATE cached SET expires = now() - interval '9 s' WHERE cache_key = %s",
            [f":1:{key}:lock"],
        )
        assert cursor.rowcount == 1


@pytest.mark.usefixtures("on_postgresql")
@pytest.mark.parametrize(
    ("late", "looks"),
    [("add", 'SELECT "cache_key", "expires"'), ("get", 'SELECT "cache_key", "value"')],
)
def test_one_process_gets_a_lock_that_has_expired(
    key: str, late: str, looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django's cache looks at an entry, and then overwrites or deletes whatever is there."""
    store = DjangoCacheStore("database", key)
    dead, first, second, third = (store.lock() for _ in range(4))
    assert dead.acquire(60)
    dead._released.set()  # its heart has stopped
    lapse(key)
    plain, has_looked, go_on = CursorWrapper.execute, threading.Event(), threading.Event()

    def execute(self: Any, statement: str, parameters: Any = None) -> Any:
        result = plain(self, statement, parameters)
        if threading.current_thread() is thread and statement.startswith(looks):
            has_looked.set()
            assert go_on.wait(60)
        return result

    def come_late() -> None:
        if late == "get":
            dead.release()
        else:
            second.acquire(60)

    thread = threading.Thread(target=come_late)
    monkeypatch.setattr(CursorWrapper, "execute", execute)
    thread.start()
    assert has_looked.wait(60)
    assert first.acquire(60)
    assert first.confirm()
    go_on.set()
    thread.join()
    assert (second.confirm(), first.confirm(), third.acquire(60)) == (False, True, False)
    for lock in (first, second, third):
        lock.release()
