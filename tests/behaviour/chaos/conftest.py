"""The marker ``chaos`` of tests that start and kill many processes, and the stores that their
processes share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import MariaDB, PostgreSQL, with_table
from unit.stores.servers import Memcached, RedisServer

from .run import IS_LONG, Place

# The default of all stores; shorter for a short run.
LEASE = 5.0 if IS_LONG else 1.0
APART = 300.0
# The load for two cores: these clients take longer to start than those of a file.
LOAD = {"pace": 50.0, "kills": 0.7}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: starts and kills many processes")


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    url = with_table(f"sqlite:///{tmp_path / 'tokens.sqlite3'}")
    return Place("SQLite", f"{url}#token", LEASE, **LOAD)


@pytest.fixture
def postgresql_server() -> Iterator[PostgreSQL]:
    with PostgreSQL(is_durable=True) as server:
        yield server


@pytest.fixture
def postgresql_place(postgresql_server: PostgreSQL) -> Place:
    url = with_table(postgresql_server.new_database())
    return Place("PostgreSQL", f"{url}#token", LEASE, APART, **LOAD)


@pytest.fixture
def mariadb_server() -> Iterator[MariaDB]:
    if not MariaDB.is_here():
        pytest.skip("this machine has no MariaDB server")
    with MariaDB(is_durable=True) as server:
        yield server


@pytest.fixture
def mariadb_place(mariadb_server: MariaDB) -> Place:
    url = with_table(mariadb_server.new_database())
    return Place("MariaDB", f"{url}#token", LEASE, APART, **LOAD)


@pytest.fixture
def redis_own_server() -> Iterator[RedisServer]:
    # Durable: it is stopped and started again.
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def django_cache(folder: Path, name: str, backend: str, location: str) -> Place:
    """A store in the cache of a Django project."""
    (folder / "project_settings.py").write_text(
        f"CACHES = {{'default': {{'BACKEND': 'django.core.cache.backends.{backend}', "
        f"'LOCATION': '{location}'}}}}\n"
    )
    path = os.pathsep.join([str(folder), *sys.path])
    environment = {"DJANGO_SETTINGS_MODULE": "project_settings", "PYTHONPATH": path}
    # A cache has no clock, so the machines have to agree on the time.  Its locks last for whole
    # seconds, and for at least 2.
    return Place(name, "django:default#token", max(LEASE, 3), 0, environment, **LOAD)


@pytest.fixture
def django_place(redis_own_server: RedisServer, tmp_path: Path) -> Place:
    return django_cache(tmp_path, "Django on Redis", "redis.RedisCache", redis_own_server.url)


@pytest.fixture
def memcached_server() -> Iterator[Memcached]:
    if not Memcached.is_here():
        pytest.skip("this machine has no Memcached server")
    with Memcached() as server:
        yield server


@pytest.fixture
def memcached_place(memcached_server: Memcached, tmp_path: Path) -> Place:
    backend = "memcached.PyMemcacheCache"
    return django_cache(tmp_path, "Django on Memcached", backend, memcached_server.location)


@pytest.fixture
def redis_place(redis_own_server: RedisServer) -> Place:
    return Place("Redis", f"{redis_own_server.url}#token", LEASE, APART, **LOAD)
