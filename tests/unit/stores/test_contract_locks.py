"""The contract detects a lock that several holders can take, because it tests and sets in two
steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from django.core.cache import caches

from tokenadapter.protocols import TokenStore
from tokenadapter.stores.django import DjangoCacheStore
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.redis import RedisStore
from tokenadapter.stores.sql import SQLStore
from tokenadapter.testing.contract import Connect, SharedStoreContract

from .servers import RedisServer


class LeakyLock:
    """A lock that tests whether it is free and sets its owner in two steps.

    :param read: returns the owner, if there is one.
    :param write: sets the owner; ``None``: none.
    """

    def __init__(self, read: Callable[[], object], write: Callable[[str | None], object]) -> None:
        self._read = read
        self._write = write
        self._owner = os.urandom(8).hex()

    def acquire(self, hold_for: float) -> bool:
        if self._read():
            return False
        self._write(self._owner)
        return True

    def confirm(self) -> bool:
        return self._read() in (self._owner, self._owner.encode())

    def release(self) -> None:
        if self.confirm():
            self._write(None)


class LeakyFileStore(FileStore):
    def lock(self) -> LeakyLock:  # type: ignore[override]
        path = Path(f"{self.path}.leaky")
        return LeakyLock(
            lambda: path.exists() and path.read_text(), lambda owner: path.write_text(owner or "")
        )


class LeakySQLStore(SQLStore):
    """It writes the owner without asking in the same statement whether there is one."""

    def lock(self) -> LeakyLock:  # type: ignore[override]
        table, run = self._table, self._database.run
        row = table.c.slot == self.slot
        query = sqlalchemy.select(table.c.lease_owner).where(row)
        return LeakyLock(
            lambda: run(lambda connection: connection.execute(query).scalar()),
            lambda owner: run(
                lambda connection: connection.execute(
                    table.update().where(row).values(lease_owner=owner)
                )
            ),
        )


class LeakyRedisStore(RedisStore):
    def lock(self) -> LeakyLock:  # type: ignore[override]
        key, client = f"{self.key}:leaky", self._client
        return LeakyLock(lambda: client.get(key), lambda owner: client.set(key, owner or ""))


class LeakyDjangoStore(DjangoCacheStore):
    def lock(self) -> LeakyLock:  # type: ignore[override]
        key = f"{self.key}:leaky"
        return LeakyLock(
            lambda: caches[self.alias].get(key), lambda owner: caches[self.alias].set(key, owner)
        )


CONTRACT = SharedStoreContract()
found = partial(pytest.raises, AssertionError, match="hold the lock at the same time")


@pytest.fixture(params=["file", "sqlite", "postgresql", "redis", "django"])
def connect(
    request: pytest.FixtureRequest,
    slot: str,
    path: Path,
    sqlite: str,
    postgresql_url: str,
    redis_server: RedisServer,
    project: None,
) -> Connect:
    stores: dict[str, Callable[[], TokenStore]] = {
        "file": lambda: LeakyFileStore(path),
        "sqlite": lambda: LeakySQLStore(sqlite, slot),
        "postgresql": lambda: LeakySQLStore(postgresql_url, slot),
        "redis": lambda: LeakyRedisStore(redis_server.url, slot),
        "django": lambda: LeakyDjangoStore("default", slot.replace(" ", "-")),
    }
    connect = stores[request.param]
    path.parent.mkdir()
    if "sql" in request.param:
        # The row is there.
        assert connect().save({"n": 1}, tag="one", expected=None, ttl=None)
    return connect


def test_a_lock_that_several_threads_take_at_once_is_found(connect: Connect) -> None:
    with found():
        CONTRACT.test_one_of_many_threads_that_try_at_once_takes_the_lock(connect)


@pytest.mark.parametrize("connect", ["file"], indirect=True)
def test_a_lock_that_several_processes_take_at_once_is_found(connect: Connect) -> None:
    with found():
        CONTRACT.test_one_of_many_processes_that_try_at_once_takes_the_lock(connect())
