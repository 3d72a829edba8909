"""No outage of the store, and no slow token endpoint, costs a login: real processes, a real Redis
that restarts, a real lock of SQLite.

``OUTAGES`` is the number of outages of each kind.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from unit.stores.servers import RedisServer

from tokenadapter import FileStore, RefreshTemporarilyFailed, RefreshToken, TokenKeeper
from tokenadapter.protocols import TokenStore
from tokenadapter.stores.urls import store_from_url
from tokenadapter.testing import TokenServer

ROUNDS = int(os.environ.get("OUTAGES", "1"))
# Seconds: the timeout of a source, and after how long nobody would believe an intent by its time.
TIMEOUT, BELIEVED = 0.5, 2.5

pytestmark = pytest.mark.timeout(120 + 60 * ROUNDS)

at_length = pytest.mark.skipif(ROUNDS == 1, reason="takes long: set OUTAGES")

RENEWS = """
import sys
from tokenadapter import ReauthRequired, RefreshToken, TokenError, TokenKeeper
token_url, url, timeout, grace = sys.argv[1:]
timeout, grace = (float(text) if text else None for text in (timeout, grace))
source = RefreshToken(
    token_url, client_id="client", client_secret="secret", timeout=timeout, grace=grace
)
keeper = TokenKeeper(source, url, lock_timeout=60.0)
while True:
    try:
        token = keeper.current()
    except ReauthRequired:
        raise
    except TokenError:
        continue  # as a program does that must have a token
    break
assert keeper.wait(60)
print(token.fingerprint)
"""


@contextmanager
def renewing(
    server: TokenServer, url: str, timeout: str = str(TIMEOUT), grace: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Another process that needs a new token."""
    command = [sys.executable, "-c", RENEWS, server.token_url, url, timeout, grace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def redis_away(folder: Path) -> Iterator[tuple[str, Callable[[float], None]]]:
    """A Redis that loses nothing when it is killed, and how it is away for some seconds."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:

        def away(seconds: float) -> None:
            server.stop()
            time.sleep(seconds)
            server.start()

        yield f"{server.url}#billing", away


@contextmanager
def sqlite_away(folder: Path) -> Iterator[tuple[str, Callable[[float], None]]]:
    """A database of SQLite, which another program locks for some seconds."""
    path = folder / "tokens.db"

    def away(seconds: float) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            database.execute("COMMIT")

    yield f"sqlite:///{path}?create=1#billing", away


@pytest.mark.parametrize("outage", [redis_away, sqlite_away], ids=["redis", "sqlite"])
def test_a_store_that_is_away_while_the_token_endpoint_answers(tmp_path, outage):
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with TokenServer() as server, outage(folder) as (url, away), ExitStack() as others:
            keeper = keeper_of(server, store_from_url(url))
            keeper.adopt({**server.issue(), "expires_in": 1, "issued_at": time.time() - 100})
            with server.hold(processed=True) as hold:
                processes = [others.enter_context(renewing(server, url)) for _ in range(3)]
                assert hold.arrived.wait(30)
                # The answer comes while the store is away; its owner cannot save it.
                answer = threading.Timer(TIMEOUT / 2, hold.release)
                answer.start()
                away(BELIEVED + 1.5)
                answer.join()
            found = {process.communicate(timeout=60)[0] for process in processes}
            assert len(found) == 1, found
            assert [process.returncode for process in processes] == [0, 0, 0]
            assert server.stats.token_requests == 1
            assert server.stats.reuse_detections == 0


@pytest.mark.parametrize("processed", [True, False], ids=["rotates first", "answers first"])
def test_an_answer_that_is_late_is_saved_and_its_caller_gets_an_error_in_time(tmp_path, processed):
    for number in range(ROUNDS):
        with TokenServer() as server:
            store = FileStore(tmp_path / f"{number}.json")
            keeper, other = keeper_of(server, store), keeper_of(server, store)
            keeper.adopt({**server.issue(), "expires_in": 1, "issued_at": time.time() - 100})
            with server.hold(processed=processed) as hold:
                for _ in range(2):
                    with pytest.raises(RefreshTemporarilyFailed, match="goes on waiting") as caught:
                        keeper.current()
                    assert caught.value.processed is None
                assert hold.arrived.is_set()
            assert keeper.wait(60)
            assert keeper.current() == other.current()
            assert server.stats.token_requests == 1


@pytest.mark.parametrize(
    ("grace", "timeout"),
    [(5, ""), (10, ""), pytest.param(30, "10", marks=at_length), pytest.param(30, "2")],
)
def test_an_answer_that_is_lost_is_obtained_within_a_short_grace(tmp_path, grace, timeout):
    """The first request is processed and never answered."""
    for number in range(min(ROUNDS, 8)):
        url = str(tmp_path / f"{number}.json")
        with TokenServer(grace=grace) as server, ExitStack() as others:
            keeper = keeper_of(server, store_from_url(url))
            keeper.adopt({**server.issue(), "expires_in": 1, "issued_at": time.time() - 100})
            server.fail_next(hang=True, processed=True)
            processes = [
                others.enter_context(renewing(server, url, timeout, str(grace))) for _ in range(4)
            ]
            found = {process.communicate(timeout=90)[0] for process in processes}
            assert len(found) == 1, found
            assert [process.returncode for process in processes] == [0] * 4
            assert server.stats.token_requests == 2
            assert server.stats.reuse_detections == 0


def keeper_of(server: TokenServer, store: TokenStore) -> TokenKeeper:
    source = RefreshToken(
        server.token_url, client_id="client", client_secret="secret", timeout=TIMEOUT
    )
    return TokenKeeper(source, store, lock_timeout=60.0)
