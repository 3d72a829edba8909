"""Processes that share a token of one second, beside the same with a token that never expires.

They share it through a ``FileStore``; the server rotates refresh tokens and takes 20 ms to issue
one.  Each process sends one request after the other: at one time as fast as it can, so that the
machine is the limit, at another every 10 ms, so that it is not.  Renewals are *due* each time that
the token comes into the soft window of a process; a request *waited* if there was nothing to send
it with before a renewal was done.

The lifetimes take turns.  The last line compares the requests of two rounds that followed each
other, and the processor time that they took, clients and server together: each is the median.

    python benchmarks/steady_state.py
    python benchmarks/steady_state.py --processes 2 --seconds 3 --rounds 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import requests

from tokenadapter import FileStore, RefreshToken, TokenAdapter, TokenKeeper
from tokenadapter.policy import windows
from tokenadapter.testing import TokenServer

LOADS = {"as fast as it can": 0.0, "every 10 ms": 0.01}
LIFETIMES = {"1 s": 1.0, "for ever": None}
TOKEN_LATENCY = 0.02
# Each process draws where in its range its window begins, and the first one renews.
INTERVAL = 1.0 - windows(1.0, 1.0)[0]
HEAD = "token lives  requests/s  failed  renewals    due  reused  waited  ms median  ms 99.9 %"


class Work(NamedTuple):
    """What a process did in one round."""

    latencies: list[float]
    failed: int
    waited: int
    processor_time: float


class Round(NamedTuple):
    """What all of them did, and what it took."""

    seconds: float
    latencies: list[float]
    failed: int
    waited: int
    processor_time: float
    renewals: int
    reuse_detections: int

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cost(self) -> float:
        return self.processor_time / len(self.latencies)


def source(token_url: str) -> RefreshToken:
    return RefreshToken(token_url, client_id="client", client_secret="secret")


def work(api_url: str, token_url: str, file: Path, pause: float, line: Connection) -> None:
    """What each process does: it says when it is ready, hears until when to work, and reports."""
    latencies: list[float] = []
    failed = 0
    with requests.Session() as session:
        adapter = TokenAdapter(api_url, source(token_url), store=FileStore(file)).mount(session)
        session.get(api_url)
        line.send(None)
        end = line.recv()
        waited, processor_time = adapter.keeper.stats.get("Waited", 0), time.process_time()
        while (called := time.monotonic()) < end:
            failed += not session.get(api_url).ok
            latencies.append(time.monotonic() - called)
            if pause:
                time.sleep(pause)
        waited = adapter.keeper.stats.get("Waited", 0) - waited
        line.send(Work(latencies, failed, waited, time.process_time() - processor_time))


def play(lifetime: float | None, pause: float, processes: int, seconds: float) -> Round:
    context = multiprocessing.get_context("spawn")
    lines, workers = [], []
    with TokenServer(lifetime=lifetime) as server, tempfile.TemporaryDirectory() as folder:
        server.latency = TOKEN_LATENCY
        file = Path(folder) / "token.json"
        TokenKeeper(source(server.token_url), FileStore(file)).adopt(server.issue())
        for _ in range(processes):
            mine, theirs = context.Pipe()
            arguments = (server.api_url, server.token_url, file, pause, theirs)
            workers.append(context.Process(target=work, args=arguments, daemon=True))
            workers[-1].start()
            theirs.close()
            lines.append(mine)
        for line in lines:
            line.recv()
        renewals, processor_time = server.stats.renewals, time.process_time()
        began = time.monotonic()
        for line in lines:
            line.send(began + seconds)
        works: list[Work] = [line.recv() for line in lines]
        took = time.monotonic() - began
        processor_time = time.process_time() - processor_time
        stats = server.stats
        for worker in workers:
            worker.join()
    return Round(
        took,
        [latency for one in works for latency in one.latencies],
        sum(one.failed for one in works),
        sum(one.waited for one in works),
        processor_time + sum(one.processor_time for one in works),
        stats.renewals - renewals,
        stats.reuse_detections,
    )


def show(name: str, rounds: list[Round]) -> None:
    latencies = sorted(latency for one in rounds for latency in one.latencies)
    middle, late = (1e3 * latencies[int(len(latencies) * share)] for share in (0.5, 0.999))
    renewals = sum(one.renewals for one in rounds)
    due = sum(one.seconds for one in rounds) / INTERVAL if renewals else 0
    print(
        f"{name:>11}{median(one.rate for one in rounds):12,.0f}"
        f"{sum(one.failed for one in rounds):8}{renewals:10}{due:7.1f}"
        f"{sum(one.reuse_detections for one in rounds):8}{sum(one.waited for one in rounds):8}"
        f"{middle:11.1f}{late:11.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    options = parser.parse_args()
    for load, pause in LOADS.items():
        played: dict[str, list[Round]] = {name: [] for name in LIFETIMES}
        for number in range(options.rounds):
            # Forth and back, so that a machine that slows down does so for both.
            for name in list(LIFETIMES)[:: -1 if number % 2 else 1]:
                one = play(LIFETIMES[name], pause, options.processes, options.seconds)
                played[name].append(one)
        print(f"\n{options.processes} processes, each sends a request {load}")
        print(
            "token lives  requests/s  failed  renewals    due  reused  waited  ms median  ms 99.9 %"
        )
        for name, rounds in played.items():
            show(name, rounds)
        pairs = list(zip(*played.values(), strict=True))
        rate = median(short.rate / long.rate for short, long in pairs)
        cost = median(short.cost / long.cost for short, long in pairs)
        print(f"1 s to for ever: {rate:.3f} of the requests, {cost:.3f} of the time for each")


if __name__ == "__main__":
    main()
