"""The stores

How long it takes to read the record from each store (`load`), and how long a renewal without
competition takes. The token source answers at once, so only the library and the store are measured.
A renewal takes the lock, reads the record again, and saves. A renewal that spends a refresh token
also writes its intent beforehand. Neither happens while a token is fresh.

Redis and PostgreSQL run on the same machine, are reached through a Unix socket, and do not flush to
the disk. The file and SQLite do, so their times include this machine's disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Bar, Chart, Finding, Table, alone, in_turns, shown, spread

from tokenadapter import (
    DjangoCacheStore,
    FileStore,
    MemoryStore,
    RedisStore,
    SQLStore,
    Token,
    TokenKeeper,
)

# What the tests start servers with.
sys.path.append(str(Path(__file__).parent.parent / "tests"))


class Taken(NamedTuple):
    """The seconds that each thing took, one after the other."""

    load: list[float]
    spending: list[float]
    other: list[float]


def stores(folder: Path, stack: ExitStack, *, quick: bool) -> Iterator[tuple[str, Any, Any]]:
    """Each store by its name, two slots of it."""
    yield "memory", MemoryStore(), MemoryStore()
    yield "file", FileStore(folder / "1.json"), FileStore(folder / "2.json")
    sqlite = f"sqlite:///{folder}/sqlite.db"
    SQLStore(sqlite, "1").create_table()
    yield "SQLite", SQLStore(sqlite, "1"), SQLStore(sqlite, "2")
    if quick:
        return
    from databases import PostgreSQL, with_table
    from unit.stores import django_project
    from unit.stores.servers import RedisServer

    postgresql = with_table(stack.enter_context(PostgreSQL()).new_database())
    yield "PostgreSQL", SQLStore(postgresql, "1"), SQLStore(postgresql, "2")
    redis = stack.enter_context(RedisServer()).url
    yield "Redis", RedisStore(redis, "1"), RedisStore(redis, "2")
    django_project.configure(str(folder), redis, "")
    yield "Django on Redis", DjangoCacheStore(key="3"), DjangoCacheStore(key="4")


class Renewals:
    """Renews a token of one slot as often as wanted."""

    def __init__(self, store: Any, *, spends: bool) -> None:
        self._spends = spends
        self._number = 0
        self.store = store
        self._keeper = TokenKeeper(self._source, store)
        self._token = self._keeper.adopt(self._source(None))

    def _source(self, previous: Token | None) -> dict[str, Any]:
        self._number += 1
        token = {"access_token": f"access-{self._number}" + "x" * 40, "expires_in": 3600}
        return token | ({"refresh_token": f"refresh-{self._number}"} if self._spends else {})

    def renew(self) -> None:
        self._token = self._keeper.renew(self._token)


def measure(quick: bool) -> Finding:
    rounds, count = (2, 2) if quick else (10, 10)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        all_stores = {
            name: (Renewals(one, spends=True), Renewals(other, spends=False))
            for name, one, other in stores(Path(folder), stack, quick=quick)
        }

        def one(name: str) -> Taken:
            spending, other = all_stores[name]
            calls = (spending.store.load, spending.renew, other.renew)
            return Taken(*([seconds(call) for _ in range(count)] for call in calls))

        in_turns(all_stores, 1, one)  # now all is imported and connected
        taken = in_turns(all_stores, rounds, one)
    return finding(taken)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def finding(taken: dict[str, list[Taken]]) -> Finding:
    head = ["", "load, ms", "middle half", "renewal, ms", "middle half"]
    head += ["… that spends a refresh token, ms", "middle half"]
    rows, loads, renewals = [], [], []
    for name, rounds in taken.items():
        load, spending, other = (
            spread([1e3 * value for one in rounds for value in one[kind]]) for kind in range(3)
        )
        rows.append([name, *shown(load, 2), *shown(other, 2), *shown(spending, 2)])
        loads.append(Bar(name, load))
        renewals.append(Bar(name, spending))
    charts = [
        Chart(
            "bench-store-load", "Reading the record from the store: ms", loads, 2, logarithmic=True
        ),
        Chart(
            "bench-store-renewal",
            "A renewal that spends a refresh token: ms",
            renewals,
            1,
            logarithmic=True,
        ),
    ]
    return Finding([Table(head, rows)], charts)


if __name__ == "__main__":
    alone(measure)
