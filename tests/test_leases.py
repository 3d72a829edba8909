"""A lock that lapses, and real processes: one that is stopped keeps its refresh token for itself,
and one that dies is replaced at once."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from stores.servers import RedisServer

from tokenadapter import LockTimeout, RedisStore, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

# Seconds.
SHORT, LONG = 0.5, 1000.0
SLOTS = itertools.count()

RENEWS = """
import sys
from tokenadapter import RedisStore, RefreshToken, TokenKeeper
token_url, first, url, slot, lease = sys.argv[1:]
TokenKeeper(
    RefreshToken(token_url, first, client_id="client", client_secret="secret"),
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
    server: TokenServer, first: str, url: str, slot: str, lease: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which renews."""
    arguments = [server.token_url, first, url, slot, str(lease)]
    with subprocess.Popen([sys.executable, "-c", RENEWS, *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def new_keeper(
    server: TokenServer, first: str, url: str, slot: str, lease: float, lock_timeout: float
) -> TokenKeeper:
    return TokenKeeper(
        RefreshToken(server.token_url, first, client_id="client", client_secret="secret"),
        RedisStore(url, slot, lease=lease),
        lock_timeout=lock_timeout,
    )


@pytest.mark.parametrize("how", ["stopped", "robbed of its lock"])
def test_a_holder_that_has_lost_its_lock_alone_presents_its_refresh_token(
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
            with pytest.raises(LockTimeout, match="awaited the answer to a renewal"):
                keeper.current()
            assert server.stats.token_requests == 1
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0
    assert keeper.current().refresh_token not in (None, first)
    assert server.stats.token_requests == 1
    assert server.stats.reuse_detections == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a process has died")
def test_a_holder_that_died_keeps_nobody_of_its_machine_waiting(
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
