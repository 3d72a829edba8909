"""A holder of a lease that died on this machine is replaced at once, in every store."""

from __future__ import annotations

import sys

import pytest

from tokenadapter.protocols import TokenStore
from tokenadapter.stores.redis import RedisStore
from tokenadapter.stores.sql import SQLStore
from tokenadapter.testing.workers import process, take_when_told

from . import django_project
from .servers import RedisServer

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells whether a process has died"
)
# Seconds: longer than any test.
LEASE = HOLD = 1000.0


class DeadHolder:
    def test_the_lock_of_a_killed_process_can_be_taken_at_once(self, store: TokenStore) -> None:
        with process(take_when_told, store) as (child, pipe):
            pipe.send(HOLD)
            assert pipe.recv() is True
            assert not store.lock().acquire(HOLD)
            child.kill()
            child.join()
            first, second = store.lock(), store.lock()
            assert first.acquire(HOLD)
            assert not second.acquire(HOLD)
            assert first.confirm()
            first.release()
            assert second.acquire(HOLD)
            second.release()

    def test_a_replaced_holder_does_not_release_the_lock_of_the_next(
        self, store: TokenStore
    ) -> None:
        """A living holder counts as dead by mistake, and continues."""
        first, second = store.lock(), store.lock()
        with pytest.MonkeyPatch.context() as patch:
            assert first.acquire(HOLD)
            patch.setattr("tokenadapter.stores._lease.has_died", lambda name: True)
            assert second.acquire(HOLD)
        assert not first.confirm()
        first.release()
        assert second.confirm()
        second.release()


class TestRedis(DeadHolder):
    @pytest.fixture
    def store(self, redis_server: RedisServer, slot: str) -> TokenStore:
        return RedisStore(redis_server.url, slot, lease=LEASE)


class TestSQLite(DeadHolder):
    @pytest.fixture
    def store(self, sqlite: str, slot: str) -> TokenStore:
        return SQLStore(sqlite, slot, lease=LEASE)


class TestPostgreSQL(DeadHolder):
    @pytest.fixture
    def store(self, postgresql_url: str, slot: str) -> TokenStore:
        return SQLStore(postgresql_url, slot, lease=LEASE)


class TestMariaDB(DeadHolder):
    @pytest.fixture
    def store(self, mariadb_url: str, slot: str) -> TokenStore:
        return SQLStore(mariadb_url, slot, lease=LEASE)


@pytest.mark.usefixtures("project")
class TestDjango(DeadHolder):
    @pytest.fixture(params=["default", "database"])
    def store(self, request: pytest.FixtureRequest, slot: str) -> TokenStore:
        return django_project.Store(request.param, slot.replace(" ", "-"), lease=LEASE)
