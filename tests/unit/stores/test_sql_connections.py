"""SQLStore: whose connections it uses, and what it does when they fail."""

from __future__ import annotations

import copy
import gc
import pickle
import sqlite3
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy
from databases import Server, rows, with_table

from tokenadapter.errors import StoreError
from tokenadapter.stores import _sql_database
from tokenadapter.stores._sql_rows import database_time
from tokenadapter.stores.sql import SQLStore
from tokenadapter.testing.workers import in_threads

from .helpers import run, save


# It has to be there before a test: what a test starts ends with it.
@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server that many machines can share."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def url(server: Server) -> str:
    return with_table(server.new_database())


def test_a_rollback_of_the_application_does_not_undo_a_token(url: str, slot: str) -> None:
    engine = sqlalchemy.create_engine(url)
    store = SQLStore(engine, slot)
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO tokenadapter (slot) VALUES ('another')")
        save(store)
        connection.rollback()
    engine.dispose()
    assert SQLStore(url, slot).load().document == {"n": 1}


def test_an_application_that_has_used_up_its_pool_does_not_wait_for_itself(
    url: str, slot: str
) -> None:
    engine = sqlalchemy.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=10)
    with engine.connect():
        store = SQLStore(engine, slot)
        lock = store.lock()
        assert lock.acquire(60)
        save(store)
        assert lock.confirm()
        lock.release()
    engine.dispose()


def test_an_engine_that_turns_autocommit_off_again_loses_nothing(url: str, slot: str) -> None:
    engine = sqlalchemy.create_engine(url)

    def turn_off(connection: Any, *_: object) -> None:
        if engine.dialect.driver == "pymysql":
            connection.autocommit(False)
        else:
            connection.autocommit = False

    sqlalchemy.event.listen(engine, "checkout", turn_off)
    store, other = SQLStore(engine, slot), SQLStore(url, slot)
    save(store)
    assert other.load().document == {"n": 1}
    lock = store.lock()
    assert lock.acquire(60)
    assert not other.lock().acquire(60)
    lock.release()
    engine.dispose()


def test_the_wait_for_a_row_that_an_application_has_locked_is_bounded(
    url: str, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_sql_database._LOCK_TIMEOUT, "postgresql", "SET lock_timeout = 50")
    # Its least.
    monkeypatch.setitem(
        _sql_database._LOCK_TIMEOUT, "mysql", "SET SESSION innodb_lock_wait_timeout = 1"
    )
    store = SQLStore(url, slot)
    save(store)
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM tokenadapter FOR UPDATE")
        with pytest.raises(StoreError, match=r"lock timeout|Lock wait timeout"):
            store.save({"n": 2}, tag="tag 2", expected="tag 1", ttl=None)
        assert store.load().document == {"n": 1}
    engine.dispose()
    save(store, 2, expected="tag 1")


def test_an_engine_of_sqlite_shares_no_transaction(sqlite: str) -> None:
    engine = sqlalchemy.create_engine(sqlite)
    store = SQLStore(engine, "billing")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM tokenadapter")
        save(store)
        connection.rollback()
    engine.dispose()
    assert SQLStore(sqlite, "billing").load().document == {"n": 1}


def test_the_store_connects_as_its_engine_does(sqlite: str) -> None:
    recorded = []
    engine = sqlalchemy.create_engine(
        f"{sqlite}.elsewhere",
        creator=lambda: sqlite3.connect(sqlite.removeprefix("sqlite:///"), check_same_thread=False),
        isolation_level="SERIALIZABLE",
    )
    sqlalchemy.event.listen(engine, "connect", lambda *_: recorded.append("connect"))
    engine = engine.execution_options(isolation_level="SERIALIZABLE")
    save(SQLStore(engine, "billing"))
    assert recorded
    assert SQLStore(sqlite, "billing").load().document == {"n": 1}


def test_a_database_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    file = f"sqlite:///{tmp_path / 'tokens.sqlite3'}"
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"):
        for given in (url, sqlalchemy.create_engine(url, poolclass=sqlalchemy.QueuePool)):
            with pytest.raises(ValueError, match=r"in memory .* MemoryStore"):
                SQLStore(given, "billing")
    for pool in (sqlalchemy.StaticPool, sqlalchemy.SingletonThreadPool):
        with pytest.raises(ValueError, match=f"{pool.__name__}, which has one connection"):
            SQLStore(sqlalchemy.create_engine(file, poolclass=pool), "billing")


def test_a_url_that_cannot_be_read_is_not_shown() -> None:
    for url in (
        "s3cr3t",
        "postgresql+psycopg://app:s3cr3t#1@db:54x/app",
        "a://b:s3cr3t",
        "mysql://u:p@s3cr3t@h/x",
    ):
        with pytest.raises(ValueError, match=r"cannot be read as a URL|load plugin") as caught:
            SQLStore(url, "billing")
        assert "s3cr3t" not in f"{caught.value} {caught.value.__cause__}"


def test_the_wait_for_a_server_that_does_not_answer_is_bounded() -> None:
    url = "postgresql+psycopg://app@db.example.com/app"
    assert arguments(url)["connect_timeout"] == 5
    assert arguments(f"{url}?connect_timeout=2")["connect_timeout"] == "2"
    assert arguments(url.replace("postgresql+psycopg", "mysql+pymysql"))["read_timeout"] == 5


def arguments(url: str) -> dict[str, Any]:
    """What a driver is given to connect."""
    recorded: dict[str, Any] = {}

    def connect(dialect: object, record: object, args: object, given: dict[str, Any]) -> None:
        recorded.update(given)
        raise OSError("this is enough")

    store = SQLStore(url, "billing")
    sqlalchemy.event.listen(store._database.engine, "do_connect", connect)
    with pytest.raises(StoreError, match="OSError: this is enough"):
        store.load()
    return recorded


def test_asynchronous_drivers_and_other_things_are_refused() -> None:
    for given in ("postgresql+asyncpg://db/app", Mock(sync_engine=None)):
        with pytest.raises(TypeError, match="needs a synchronous driver"):
            SQLStore(given, "billing")
    with pytest.raises(TypeError, match="takes a URL or an engine, not NoneType"):
        SQLStore(None, "billing")  # type: ignore[arg-type]


def test_the_error_names_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ImportError, match=r"psycopg2.* install the driver of postgresql\+psycopg2"):
        SQLStore("postgresql+psycopg2://db.example.com/app", "billing")


def test_without_sqlalchemy_the_error_names_the_extra() -> None:
    run("""
        import sys
        sys.modules["sqlalchemy"] = None
        try:
            from tokenadapter import SQLStore
            SQLStore("sqlite://", "slot")
        except ImportError as error:
            assert "pip install 'tokenadapter[sql]'" in str(error), error
        else:
            raise AssertionError
    """)


def test_a_database_that_is_not_supported_is_refused() -> None:
    with pytest.raises(ValueError, match="postgresql, and not with oracle: it does not know"):
        database_time("oracle")


def test_a_store_of_an_engine_stays_in_its_process(sqlite: str) -> None:
    store = SQLStore(sqlalchemy.create_engine(sqlite), "billing")
    with pytest.raises(pickle.PicklingError, match="made from an engine"):
        pickle.dumps(store)
    save(store)
    assert copy.deepcopy(store).load().document == {"n": 1}


def test_a_connection_that_was_lost_is_replaced(server: Server, url: str, slot: str) -> None:
    store = SQLStore(url, slot)
    lock = store.lock()
    for step in (lambda: save(store), lambda: lock.acquire(60), lock.confirm, store.load):
        server.end_connections(url)
        assert step() is not False
    lock.release()


def test_a_save_whose_answer_got_lost_is_repeated(url: str, slot: str) -> None:
    store = SQLStore(url, slot)
    dbapi: Any = store._database.engine.dialect.dbapi
    lost: list[str] = []

    @sqlalchemy.event.listens_for(store._database.engine, "after_cursor_execute")
    def lose(connection: sqlalchemy.Connection, cursor: object, statement: str, *_: object) -> None:
        kind = statement.partition(" ")[0]
        if kind in losing:
            losing.remove(kind)
            lost.append(kind)
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.close()
            # By this number, PyMySQL says so; psycopg has none.
            raise dbapi.OperationalError(2013, "it is gone")

    losing = ["INSERT"]
    save(store)
    losing = ["UPDATE"]
    save(store, 2, expected="tag 1")
    losing = ["UPDATE"]
    lock = store.lock()
    assert lock.acquire(60)
    assert not SQLStore(url, slot).lock().acquire(60)
    losing = ["UPDATE"]
    assert lock.confirm()
    losing = ["UPDATE"]
    lock.release()
    lock = SQLStore(url, slot).lock()
    assert lock.acquire(60)
    lock.release()
    assert lost == ["INSERT", *["UPDATE"] * 4]
    assert store.load().document == {"n": 2}


def test_a_statement_that_collides_with_others_is_retried(serializable_url: str, slot: str) -> None:
    store = SQLStore(serializable_url, slot)
    save(store)
    engine = sqlalchemy.create_engine(serializable_url)
    saving = threading.Thread(target=save, args=[store, 2], kwargs={"expected": "tag 1"})
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE tokenadapter SET lease_end = 0 WHERE slot = '{slot}'")
        saving.start()
        while rows(serializable_url, waiting) == [(0,)]:
            assert saving.is_alive()
    saving.join()
    engine.dispose()
    assert store.load().document == {"n": 2}


def test_while_the_server_is_down_there_is_an_error_and_later_calls_succeed(
    server: Server,
) -> None:
    with type(server)() as own:
        store = SQLStore(with_table(own.new_database()), "billing")
        save(store)
        own.stop()
        with pytest.raises(StoreError, match=r"cannot read the token: .* can be reached") as caught:
            store.load()
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            # PyMySQL does not close a Unix socket that it cannot connect.
            del caught
            gc.collect()
        own.start()
        assert store.load().document == {"n": 1}


def test_a_store_that_waits_too_long_for_sqlite_raises_an_error(sqlite: str) -> None:
    store = SQLStore(f"{sqlite}?timeout=0.01", "billing")
    other = sqlite3.connect(sqlite.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"cannot save the token: OperationalError: .* locked"):
        save(store)
    other.execute("ROLLBACK")
    other.close()
    save(store)


def test_no_error_quotes_the_record(url: str) -> None:
    rows(url, "ALTER TABLE tokenadapter ADD CHECK (document = 'nothing')")
    secret = "-".join("secret")
    store = SQLStore(url, "billing")
    with pytest.raises(StoreError, match=r"CheckViolation|CONSTRAINT") as caught:
        store.save({"token": secret}, tag="one", expected=None, ttl=None)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_no_log_quotes_the_record(sqlite: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = sqlalchemy.create_engine(sqlite, hide_parameters=False)
    with caplog.at_level("INFO", logger="sqlalchemy.engine.Engine"):
        for store in (SQLStore(sqlite, "billing"), SQLStore(engine, "shipping")):
            assert store.save({"token": "s3cr3t"}, tag="one", expected=None, ttl=None)
    assert "UPDATE tokenadapter" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_spent_tokens_of_several_processes_are_all_remembered(url: str, slot: str) -> None:
    def remember(number: int) -> None:
        SQLStore(url, slot).remember_spent(f"hash {number}", for_good=True)

    in_threads(remember, range(8))
    assert all(SQLStore(url, slot).was_spent(f"hash {number}") for number in range(8))
