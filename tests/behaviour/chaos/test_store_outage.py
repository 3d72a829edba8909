"""The store's server stops and starts again: no client renews in between, and no client has to be
restarted."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
from databases import MariaDB, PostgreSQL
from unit.stores.servers import Memcached, RedisServer

from .fleet import Provider
from .run import IS_LONG, PROCESSES, Place, new_fleet

SIZE = PROCESSES if IS_LONG else 3
# Seconds: all clients use the token, and the server stops, before the next renewal is due.
LIFETIME = 10.0 if IS_LONG else 5.0

pytestmark = pytest.mark.chaos


class Server(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


def go_through_an_outage(folder: Path, place: Place, server: Server) -> None:
    with (
        Provider(folder, lifetime=LIFETIME, grace=0) as provider,
        new_fleet(provider, folder, 0, place, SIZE) as fleet,
    ):
        fleet.wait_until_all_get("200")
        fleet.wait_until_a_client_renews()
        # The rotation has revoked the earlier token: by the second answer, all have the new one.
        fleet.wait_until_all_get("200")
        fleet.wait_until_all_get("200")
        server.stop()
        presented = provider.figures()["presented"]
        assert set(fleet.answers) == {"200"}, fleet.log()
        fleet.wait_until_all_get("200")
        assert set(fleet.answers) == {"200"}, fleet.log()
        fleet.wait_until_all_get("StoreError")
        assert provider.figures()["presented"] == presented
        server.start()
        fleet.wait_until_all_get("200")
        fleet.end()
        figures = provider.figures()
    assert set(fleet.answers) == {"200", "StoreError"}, fleet.log()
    assert figures["presented"] > presented
    assert figures["presented again"] == 0
    assert figures["reuse detections"] == figures["grants revoked"] == 0


def test_postgresql(tmp_path: Path, postgresql_server: PostgreSQL, postgresql_place: Place) -> None:
    go_through_an_outage(tmp_path, postgresql_place, postgresql_server)


def test_redis(tmp_path: Path, redis_own_server: RedisServer, redis_place: Place) -> None:
    go_through_an_outage(tmp_path, redis_place, redis_own_server)


@pytest.mark.skipif(not IS_LONG, reason='similar to PostgreSQL: "tox -e chaos"')
def test_mariadb(tmp_path: Path, mariadb_server: MariaDB, mariadb_place: Place) -> None:
    go_through_an_outage(tmp_path, mariadb_place, mariadb_server)


@pytest.mark.skipif(not IS_LONG, reason='similar to Redis: "tox -e chaos"')
def test_django_on_redis(
    tmp_path: Path, redis_own_server: RedisServer, django_place: Place
) -> None:
    go_through_an_outage(tmp_path, django_place, redis_own_server)


@pytest.mark.skipif(not IS_LONG, reason='similar to Redis: "tox -e chaos"')
def test_memcached_which_restarts_empty(
    tmp_path: Path, memcached_server: Memcached, memcached_place: Place
) -> None:
    go_through_an_outage(tmp_path, memcached_place, memcached_server)
