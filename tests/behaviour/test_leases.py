"""Leases of real processes: other processes respect the intent of a stopped holder, and replace a
dead holder at once."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from unit.stores.servers import RedisServer

from tokenadapter import LockTimeout, RedisStore, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

# Seconds.
SHORT, GRACE, LONG = 0.5, 3.0, 1000.0
SLOTS = itertools.count()

RENEWS = """
import signal, sys, threading
from tokenadapter import RedisStore, RefreshToken, TokenKeeper
from tokenadapter import process_names
token_url, first, url, slot, lease, grace, stops = sys.argv[1:]
if stops:
    # Nobody on this machine can see whether it lives.
    process_names._boot = lambda: "another machine"
if stops == "while connecting":
    from urllib3.connection import HTTPConnection
    connect = HTTPConnection.connect
    def connect_and_stop(self):
        connect(self)
        # This very thread: another one would leave it time to send the request.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    HTTPConnection.connect = connect_and_stop
TokenKeeper(
    RefreshToken(
        token_url, first, client_id="client", client_secret="secret", grace=float(grace)
    ),
    RedisStore(url, slot, lease=float(lease)),
).current()
"""


@pytest.fixture
def slot() -> str:
    return f"lease-{next(SLOTS)}"


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def first(server: TokenServer) -> str:
    return server.issue()["refresh_token"]


@contextmanager
def another(
    server: TokenServer,
    first: str,
    url: str,
    slot: str,
    lease: float,
    grace: float = 0.0,
    stops: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that renews."""
    arguments = [server.token_url, first, url, slot, str(lease), str(grace), stops]
    with subprocess.Popen([sys.executable, "-c", RENEWS, *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def new_keeper(
    server: TokenServer,
    first: str,
    url: str,
    slot: str,
    lease: float,
    lock_timeout: float,
    grace: float = 0.0,
) -> TokenKeeper:
    return TokenKeeper(
        RefreshToken(
            server.token_url, first, client_id="client", client_secret="secret", grace=grace
        ),
        RedisStore(url, slot, lease=lease),
        lock_timeout=lock_timeout,
    )


@pytest.mark.parametrize("how", ["stopped", "robbed of its lock"])
def test_after_losing_its_lock_a_holder_is_still_the_only_one_to_present(
    server: TokenServer,
    redis_server: RedisServer,
    client: redis.Redis,
    first: str,
    slot: str,
    how: str,
) -> None:
    lock = f"{{{slot}}}:lock"
    keeper = new_keeper(server, first, redis_server.url, slot, SHORT, lock_timeout=3 * SHORT)
    with another(server, first, redis_server.url, slot, SHORT) as process:
        with server.hold(processed=True) as hold:
            assert hold.arrived.wait(30)
            if how == "stopped":
                process.send_signal(signal.SIGSTOP)
                while client.exists(lock):
                    pass
            else:
                assert client.delete(lock)
            with pytest.raises(LockTimeout, match="waited for the answer to a renewal"):
                keeper.current()
            assert server.stats.token_requests == 1
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert keeper.current().refresh_token not in (None, first)
    assert server.stats.token_requests == 1
    assert server.stats.reuse_detections == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a process has died")
def test_a_dead_holder_on_the_same_machine_is_replaced_at_once(
    server: TokenServer, redis_server: RedisServer, first: str, slot: str
) -> None:
    server.fail_next(hang=True)
    with another(server, first, redis_server.url, slot, LONG) as process:
        server.wait_for(lambda stats: stats.token_requests)
        process.kill()
        process.wait()
    keeper = new_keeper(server, first, redis_server.url, slot, LONG, lock_timeout=10.0)
    assert keeper.current().refresh_token not in (None, first)
    assert server.stats.token_requests == 2
    assert server.stats.reuse_detections == 0


@pytest.fixture
def lenient() -> Iterator[TokenServer]:
    """A server that accepts a rotated refresh token again within a grace."""
    with TokenServer(grace=GRACE) as server:
        yield server


def wait_until_it_lapses(client: redis.Redis, slot: str) -> None:
    while client.exists(f"{{{slot}}}:lock"):
        pass


def wait_until_answered(server: TokenServer) -> None:
    """Wait until an answer of *server* lies in the buffer of its client."""
    port = f":{urlsplit(server.token_url).port:04X}"
    while not any(
        fields[2].endswith(port) and int(fields[4].partition(":")[2], 16)
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the buffers of sockets")
def test_after_a_declared_grace_a_holder_that_is_stopped_still_keeps_its_refresh_token(
    lenient: TokenServer, redis_server: RedisServer, client: redis.Redis, slot: str
) -> None:
    first, url = lenient.issue()["refresh_token"], redis_server.url
    keeper = new_keeper(lenient, first, url, slot, SHORT, lock_timeout=SHORT, grace=GRACE)
    with another(lenient, first, url, slot, SHORT, GRACE) as process:
        with lenient.hold(processed=True) as hold:
            assert hold.arrived.wait(30)
            process.send_signal(signal.SIGSTOP)
            wait_until_it_lapses(client, slot)
            found = keeper.store.load()
            assert found.document is not None
            # Until neither the grace nor the time of the request protects the holder any more.
            end = found.document["intent"]["awaited"][0]["until"] + 1
            while keeper.store.load().now < end:
                pass
            with pytest.raises(LockTimeout, match="waited for the answer to a renewal"):
                keeper.current()
        wait_until_answered(lenient)
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert keeper.current().refresh_token not in (None, first)
    assert lenient.stats.token_requests == 1
    assert lenient.stats.reuse_detections == 0


def test_within_a_declared_grace_a_holder_that_was_stopped_while_it_connected_sends_nothing(
    lenient: TokenServer, redis_server: RedisServer, client: redis.Redis, slot: str
) -> None:
    """Another process has renewed twice, so the refresh token is too old for any grace."""
    first, url = lenient.issue()["refresh_token"], redis_server.url
    keeper = new_keeper(lenient, first, url, slot, SHORT, lock_timeout=30.0, grace=GRACE)
    with another(lenient, first, url, slot, SHORT, GRACE, "while connecting") as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        wait_until_it_lapses(client, slot)
        second = keeper.renew(keeper.current())
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert lenient.stats.token_requests == 2
    assert lenient.stats.reuse_detections == 0
    assert lenient.stats.families_revoked == 0
    assert second.refresh_token not in (None, first)
