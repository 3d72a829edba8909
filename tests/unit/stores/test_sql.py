"""SQLStore: the contract on each database, and its table."""

from __future__ import annotations

import gc
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock, patch

import pytest
import sqlalchemy
from databases import PostgreSQL, Server, rows
from doubles import Authority
from sqlalchemy.schema import CreateTable

from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.runtime import Runtime
from tokenadapter.errors import StoreError
from tokenadapter.stores.sql import SQLStore, token_table
from tokenadapter.testing.contract import Connect, Corrupt, SharedStoreContract
from tokenadapter.testing.contract.terms import content_of
from tokenadapter.testing.workers import SPAWN, in_threads, process, succeeds_in_child, use_first

from .helpers import save


class Everywhere:
    """What is true on every database, in addition to the contract."""

    def test_names_that_differ_in_anything_are_different_slots(self, url: str, slot: str) -> None:
        names = [
            slot,
            slot.upper(),
            slot + "é",
            slot + "e",
            slot + "%",
            slot + "_",
            "x" * 200 + slot,
        ]
        for name in names:
            assert SQLStore(url, name).save({"of": name}, tag="one", expected=None, ttl=None)
        for name in names:
            assert SQLStore(url, name).load().document == {"of": name}

    def test_a_row_says_when_it_may_be_deleted(self, url: str, store: SQLStore) -> None:
        assert store.save({"n": 1}, tag="one", expected=None, ttl=100)
        query = f"SELECT expires_at FROM tokenadapter WHERE slot = '{store.slot}'"
        assert store.load().now + 90 < rows(url, query)[0][0] < store.load().now + 100
        assert store.save({"n": 1}, tag="two", expected="one", ttl=None)
        assert rows(url, query) == [(None,)]

    def test_spent_tokens_are_remembered_without_the_row(self, url: str, store: SQLStore) -> None:
        save(store)
        store.remember_spent("spent", for_good=True)
        rows(url, f"DELETE FROM tokenadapter WHERE slot = '{store.slot}'")
        assert store.load().document is None
        assert store.was_spent("spent")

    @pytest.mark.parametrize("damage", ["document = 'garbage'", "tag = NULL", "document = '[1]'"])
    def test_content_that_is_not_a_record_is_put_aside(
        self, url: str, store: SQLStore, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        save(store)
        rows(url, f"UPDATE tokenadapter SET {damage} WHERE slot = '{store.slot}'")
        columns = "SELECT tag, document FROM tokenadapter"
        damaged = rows(url, f"{columns} WHERE slot = '{store.slot}'")
        for _ in range(2):
            assert content_of(store) == (None, None)
        lock = store.lock()
        assert lock.acquire(60)
        save(store, 2)
        assert lock.confirm()
        lock.release()
        assert store.load().document == {"n": 2}
        assert rows(url, f"{columns} WHERE slot LIKE '{store.slot}.damaged-%%'") == damaged
        assert [record.getMessage().count(repr(store)) for record in caplog.records] == [1, 1]

    def test_no_connection_is_kept_during_the_token_request(
        self, url: str, store: SQLStore
    ) -> None:
        source = Authority()
        held: list[int] = []
        pool = store._database.engine.pool
        source.asking = lambda: held.append(pool.checkedout())
        assert TokenKeeper(source, store).current().access_token == "access-1"
        assert held == [0]

    def test_a_forked_child_leaves_the_connections_of_its_parent_alone(
        self, url: str, store: SQLStore
    ) -> None:
        save(store)
        connects: list[object] = []
        sqlalchemy.event.listen(store._database.engine, "connect", lambda *_: connects.append(1))

        def work() -> bool:
            gc.collect()
            save(store, 2, expected="tag 1")
            return store.load().document == {"n": 2} and len(connects) == 1

        assert succeeds_in_child(work)
        assert store.load().document == {"n": 2}
        assert connects == []

    def test_the_time_is_that_of_the_database(
        self, url: str, store: SQLStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = time.time()
        monkeypatch.setattr(time, "time", lambda: 1.0)
        now = store.load().now
        monkeypatch.undo()
        assert before - 1 < now < time.time() + 1

    def test_two_machines_whose_clocks_are_apart_renew_once(self, url: str, slot: str) -> None:
        source = Authority(lifetime=3600)
        keepers = []
        for shift in (-300.0, 0.0, 300.0):
            runtime = Runtime()
            runtime.wall = lambda shift=shift: time.time() + shift  # type: ignore[method-assign]
            keepers.append(TokenKeeper(source, SQLStore(url, slot), runtime=runtime))
        for keeper in [*keepers, *keepers]:
            assert keeper.current().access_token == "access-1"
        rejected = keepers[0].current()
        for keeper in keepers:
            assert keeper.renew(rejected).access_token == "access-2"
        assert source.count == 2
        assert not source.revoked


class OnDatabase(Everywhere, SharedStoreContract):
    """On a table that all tests of a database share; each has a slot of its own."""

    LEASE = 1.0
    LAPSES_WITHIN = 5.0

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def connect(self, url: str, slot: str) -> Connect:
        return lambda: SQLStore(url, slot, lease=self.LEASE)

    @pytest.fixture
    def corrupt(self, url: str, store: SQLStore) -> Corrupt:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

        def corrupt(content: bytes) -> None:
            with engine.begin() as connection:
                connection.execute(
                    sqlalchemy.text("UPDATE tokenadapter SET document = :text WHERE slot = :slot"),
                    {"text": content.decode(), "slot": store.slot},
                )

        return corrupt


class TestOnSQLite(OnDatabase):
    @pytest.fixture
    def url(self, sqlite: str) -> str:
        return sqlite


class TestOnPostgreSQL(OnDatabase):
    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url


class TestOnMariaDB(OnDatabase):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url


def test_it_says_which_slot_it_is_and_no_secret(tmp_path: Path) -> None:
    url = "postgresql+psycopg://app:s3cr3t@db.example.com/app?sslpassword=s3cr3t"
    shown = "SQLStore('postgresql+psycopg://app:***@db.example.com/app', 'billing')"
    assert repr(SQLStore(url, "billing")) == str(SQLStore(url, "billing")) == shown
    assert repr(SQLStore(sqlalchemy.create_engine(url), "billing")) == shown


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\0b", "a.spent", "a.damaged-b", "x" * 216])
def test_an_invalid_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="slot"):
        SQLStore(f"sqlite:///{tmp_path / 'tokens.sqlite3'}", name)


def test_a_table_may_have_another_name_and_schema(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    rows(url, "CREATE SCHEMA auth")
    store = SQLStore(url, "billing", table="tokens", schema="auth", lease=7)
    store.create_table()
    save(store)
    assert rows(url, "SELECT slot, tag FROM auth.tokens") == [("billing", "tag 1")]
    twin = pickle.loads(pickle.dumps(store))
    assert twin.load().document == {"n": 1}
    assert twin.lease == 7
    assert repr(twin) == repr(store)


def test_an_empty_table_name_and_an_empty_lease_are_refused(sqlite: str) -> None:
    with pytest.raises(ValueError, match="table is empty"):
        SQLStore(sqlite, "billing", table="")
    with pytest.raises(ValueError, match="lease must be above 0"):
        SQLStore(sqlite, "billing", lease=0)


# A server has to be there before a test: what a test starts ends with it.
@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes a database without tables, and returns its URL."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('empty') / 'empty.sqlite3'}"
    server: Server = request.getfixturevalue(request.param)
    return server.new_database


def test_a_missing_table_is_an_error_that_says_how_to_get_it(
    new_database: Callable[[], str],
) -> None:
    store = SQLStore(new_database(), "billing", table="tokens")
    steps: list[Callable[[], object]] = [
        store.load,
        lambda: save(store),
        lambda: store.lock().acquire(10),
        lambda: store.remember_spent("hash", for_good=True),
        lambda: store.was_spent("hash"),
    ]
    for step in steps:
        with pytest.raises(StoreError, match=r"no table tokens\. .* Call create_table\(\)"):
            step()
    store.create_table()
    store.create_table()
    save(store)


def test_many_processes_can_create_the_table_at_once(new_database: Callable[[], str]) -> None:
    barrier, url = threading.Barrier(8), new_database()

    def create(number: int) -> None:
        store = SQLStore(url, f"slot {number}")
        barrier.wait()
        store.create_table()
        save(store)

    in_threads(create, range(barrier.parties))


def test_a_store_creates_its_table_if_create_is_set(new_database: Callable[[], str]) -> None:
    def take(store: SQLStore) -> None:
        lock = store.lock()
        assert lock.acquire(10)
        lock.release()

    steps: list[Callable[[SQLStore], object]] = [
        lambda store: store.load(),
        save,
        take,
        lambda store: store.remember_spent("hash", for_good=True),
        lambda store: store.was_spent("hash"),
    ]
    for number, step in enumerate(steps):
        store = SQLStore(new_database(), "billing", table=f"tokens{number}", create=True)
        step(pickle.loads(pickle.dumps(store)))


def test_many_processes_that_begin_at_once_create_one_table(
    new_database: Callable[[], str],
) -> None:
    url, barrier = new_database(), SPAWN.Barrier(4)
    stores = [SQLStore(url, f"slot {number}", create=True) for number in range(barrier.parties)]
    with ExitStack() as stack:
        pipes = [
            stack.enter_context(process(use_first, store, barrier, "mine"))[1] for store in stores
        ]
        assert [pipe.recv() for pipe in pipes] == [("mine", True)] * barrier.parties
    assert [store.load().document for store in stores] == [{"by": "mine"}] * barrier.parties


def test_without_the_right_to_create_the_table_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot create its table: OperationalError"):
        SQLStore(f"sqlite:///{tmp_path}/no/such/directory/db", "billing").create_table()


def test_nothing_is_written_to_a_table_of_another_program(sqlite: str) -> None:
    rows(sqlite, "DROP TABLE tokenadapter")
    rows(sqlite, "CREATE TABLE tokenadapter (slot TEXT, note TEXT)")
    with pytest.raises(StoreError, match="OperationalError: no such column"):
        SQLStore(sqlite, "billing").load()


# What the documentation says

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "sql.md").read_text(encoding="utf-8")


def ddl(table: sqlalchemy.Table, url: str) -> str:
    dialect = sqlalchemy.make_url(url).get_dialect()()
    return " ".join(str(CreateTable(table).compile(dialect=dialect)).split()).replace(")E", ") E")


@pytest.mark.parametrize(
    ("number", "url"),
    [(0, "postgresql://"), (1, "mysql+pymysql://"), (1, "mariadb+pymysql://"), (2, "sqlite://")],
)
def test_the_table_is_that_of_the_documentation(number: int, url: str) -> None:
    shown = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)[number]
    assert " ".join(shown.split()) == ddl(token_table(sqlalchemy.MetaData()), url)


@pytest.mark.parametrize("url", ["postgresql://", "mysql+pymysql://", "sqlite://"])
def test_the_migration_of_the_documentation_creates_the_same_table(url: str) -> None:
    (shown,) = re.findall(r"```python\n([^`]*alembic.*?)```", PAGE, re.DOTALL)
    tables = []

    def create_table(name: str, *columns: sqlalchemy.Column[Any], **options: str) -> None:
        tables.append(sqlalchemy.Table(name, sqlalchemy.MetaData(), *columns, **options))

    alembic = ModuleType("alembic")
    alembic.op = Mock(create_table=create_table)  # type: ignore[attr-defined]
    with patch.dict(sys.modules, alembic=alembic):
        program: dict[str, Any] = {}
        exec(shown, program)
        program["upgrade"]()
    assert [ddl(table, url) for table in tables] == [ddl(token_table(sqlalchemy.MetaData()), url)]
