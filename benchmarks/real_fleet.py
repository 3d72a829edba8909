"""Real processes that share a token in a store beyond one machine, and what that store counts."""

from __future__ import annotations

import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from contenders import CLIENT
from fleet import LATENCY

from tokenadapter import DjangoCacheStore, RedisStore, RefreshToken, SQLStore, TokenKeeper
from tokenadapter.errors import TokenError
from tokenadapter.testing import TokenServer

# What the tests start servers with.
sys.path.append(str(Path(__file__).parent.parent / "tests"))

REDIS, POSTGRESQL, DJANGO = KINDS = ("Redis", "PostgreSQL", "Django on Redis")
# Seconds for which all sleep before they wake up together.
SLEEP = 1.0
SPAWN, FORK = (multiprocessing.get_context(method) for method in ("spawn", "fork"))
# As long as many servers' are.
LENGTH = 800
# Seconds after which PostgreSQL has counted what an idle connection has done.
FLUSHED = 11.0


class Herd(NamedTuple):
    """What became of processes that woke up together with an expired token."""

    kind: str
    size: int
    token_requests: int
    failed: int
    requested: Counter[str]
    """What the processes asked their stores."""
    served: int
    """How many commands the server was sent, or transactions it made."""
    passed: int | None
    """Bytes that the server was sent and gave, if it counts them."""
    seconds: float
    """Until the last was done."""


class Cost(NamedTuple):
    """What a question costs: round trips, and bytes sent and received."""

    round_trips: int
    sent: int
    received: int


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name in ("load", "save", "remember_spent", "was_spent"):
            self.counts[name] += 1
        return found

    def lock(self) -> Any:
        lock = self._store.lock()
        acquire = lock.acquire

        def counted(hold_for: float) -> bool:
            self.counts["lock attempt"] += 1
            return bool(acquire(hold_for))

        lock.acquire = counted
        return lock


# --- the servers ------------------------------------------------------------------------------


@contextmanager
def server(kind: str) -> Iterator[tuple[tuple[str, ...], Callable[[], Counter[str]]]]:
    """A server: where it is, and what it has counted so far."""
    with ExitStack() as stack:
        if kind == POSTGRESQL:
            from databases import PostgreSQL, rows, with_table

            class Roomy(PostgreSQL):
                def command(self) -> list[str]:
                    return [*super().command(), "-c", "max_connections=300"]

            database = stack.enter_context(Roomy())
            url = with_table(database.new_database())

            def transactions() -> Counter[str]:
                time.sleep(FLUSHED)
                query = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'test0'"
                return Counter(served=rows(database.url(database.main), query)[0][0])

            yield (url,), transactions
            return
        from unit.stores.servers import RedisServer

        redis = stack.enter_context(RedisServer())
        client = redis.client()

        def commands() -> Counter[str]:
            stats = client.info("stats")
            told = client.info("commandstats")
            # What a script does in turn is counted besides.
            names = (
                ["cmdstat_eval"] if kind == REDIS else [name for name in told if "info" not in name]
            )
            return Counter(
                served=sum(told.get(name, {"calls": 0})["calls"] for name in names),
                bytes=stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
            )

        yield (redis.url, stack.enter_context(tempfile.TemporaryDirectory())), commands


def store(kind: str, place: tuple[str, ...], slot: str) -> Any:
    if kind == POSTGRESQL:
        return SQLStore(place[0], slot)
    if kind == REDIS:
        return RedisStore(place[0], slot)
    from unit.stores import django_project

    django_project.configure(place[1], place[0])
    return DjangoCacheStore(key=slot)


def keeper(kind: str, place: tuple[str, ...], slot: str, token_url: str) -> TokenKeeper:
    return TokenKeeper(RefreshToken(token_url, **CLIENT), Counted(store(kind, place, slot)))


# --- the processes ----------------------------------------------------------------------------


def herd(kind: str, size: int) -> Herd:
    """*size* processes, forked from one that has imported all, wake up with an expired token."""
    with server(kind) as (place, counted), TokenServer() as authority:
        authority.latency = LATENCY
        for slot in ("warm", "token"):
            token = authority.issue()
            token["access_token"] = token["access_token"].ljust(LENGTH, "x")
            expired = {**token, "expires_at": time.time() - 60, "expires_in": -60}
            keeper(kind, place, slot, authority.token_url).adopt(expired)
        line, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=nest, args=(theirs, kind, place, authority.token_url, size))
        process.start()
        theirs.close()
        line.recv()
        requests, before = authority.stats.token_requests, counted()
        line.send(None)
        failed, requested, seconds = line.recv()
        process.join()
        passed = counted() - before
        return Herd(
            kind,
            size,
            authority.stats.token_requests - requests,
            failed,
            requested,
            passed["served"],
            passed["bytes"] or None,
            seconds,
        )


def nest(line: Connection, kind: str, place: tuple[str, ...], token_url: str, size: int) -> None:
    """A process that has renewed a token of its own once, and forks the others."""
    keeper(kind, place, "warm", token_url).current()
    lines, processes = [], []
    for _ in range(size):
        mine, theirs = FORK.Pipe()
        processes.append(FORK.Process(target=work, args=(theirs, kind, place, token_url)))
        processes[-1].start()
        theirs.close()
        lines.append(mine)
    for one in lines:
        one.recv()
    line.send(None)
    line.recv()
    begin = time.monotonic() + SLEEP
    for one in lines:
        one.send(begin)
    done = [one.recv() for one in lines]
    for process in processes:
        process.join()
    requested: Counter[str] = sum((counts for _, counts, _ in done), Counter())
    line.send(
        (sum(failed for failed, _, _ in done), requested, max(end for *_, end in done) - begin)
    )


def work(line: Connection, kind: str, place: tuple[str, ...], token_url: str) -> None:
    """What each process does: it connects, waits until all begin, and reports."""
    mine = keeper(kind, place, "token", token_url)
    counts = mine.store.counts  # type: ignore[attr-defined]
    mine.store.load()
    counts.clear()
    line.send(None)
    time.sleep(max(0.0, line.recv() - time.monotonic()))
    try:
        mine.current()
        failed = 0
    except TokenError:
        failed = 1
    line.send((failed, counts, time.monotonic()))


# --- what a question costs --------------------------------------------------------------------


class Tap:
    """Stands between a client and a server's Unix socket, and counts what passes."""

    def __init__(self, path: str, target: str) -> None:
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self.sent = self.received = self.round_trips = 0
        self._is_last_sent = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def measure(self, ask: Callable[[], object]) -> Cost:
        """What *ask* costs when all is connected and prepared."""
        for _ in range(10):
            ask()
        self.sent = self.received = self.round_trips = 0
        ask()
        return Cost(self.round_trips, self.sent, self.received)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                for one, other in ((near, far), (far, near)):
                    task = (one, other, one is near)
                    threading.Thread(target=self._pass, args=task, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                if is_sent:
                    self.sent += len(data)
                    self.round_trips += not self._is_last_sent
                else:
                    self.received += len(data)
                self._is_last_sent = is_sent
                target.sendall(data)


def costs(kind: str) -> dict[str, Cost]:
    """What each question of those who wait costs, by its name."""
    with server(kind) as (place, _), tempfile.TemporaryDirectory() as folder:
        if kind == POSTGRESQL:
            host = place[0].partition("host=")[2]
            tap = Tap(f"{folder}/.s.PGSQL.5432", f"{host}/.s.PGSQL.5432")
            tapped: tuple[str, ...] = (place[0].replace(host, folder),)
        else:
            tap = Tap(f"{folder}/socket", place[0].removeprefix("unix://"))
            tapped = (f"unix://{folder}/socket", *place[1:])
        try:
            one = store(kind, tapped, "token")
            TokenKeeper(lambda previous: "", one).adopt(
                {
                    "access_token": "x" * LENGTH,
                    "refresh_token": "x" * 100,
                    "expires_in": 3600,
                    "scope": "read write",
                }
            )
            holder = one.lock()
            assert holder.acquire(60)
            found = {
                "load": tap.measure(one.load),
                "lock attempt": tap.measure(lambda: one.lock().acquire(60)),
                "was_spent": tap.measure(lambda: one.was_spent("0" * 16)),
            }
            holder.release()
        finally:
            tap.close()
        return found
