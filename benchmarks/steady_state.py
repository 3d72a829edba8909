"""Tokens of one second

8 processes send requests for 10 seconds, with tokens that live for one second. What does that cost,
compared with a token that never expires? The server rotates refresh tokens and takes 20 ms to issue
one.

In the first table, the processes **share** a token through a `FileStore`. Once, each process sends
as fast as it can, so that the machine is the limit; once, it sends every 10 ms, so that the machine
is not. A renewal is *due* each time that the token enters the soft window of a process. A request
*waited* if it had no usable token before a renewal was done.

Other libraries cannot share a token, as the herds show. In the second table, each process has its
**own** login and sends as fast as it can, for a shorter time. Libraries that can be configured to
do so renew as late as possible. google-auth and msal renew some minutes before the end, which
cannot be configured, and therefore renew before each request here.

The kinds take turns, and each is compared with the run next to it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from contenders import OURS, PLAIN, Case, Send, contender, installed, title
from measuring import (
    Bar,
    Chart,
    Claim,
    Finding,
    Table,
    alone,
    in_turns,
    issued,
    ratio,
    shown,
    spread,
)

from tokenadapter.core.policy import windows
from tokenadapter.testing import TokenServer

PROCESSES = 8
LOADS = {"as fast as it can": 0.0, "every 10 ms": 0.01}
LIFETIME = 1
TOKEN_LATENCY = 0.02
# Each process draws where in its range its window begins, and the first one renews.
INTERVAL = LIFETIME - windows(LIFETIME, 1.0)[0]
SPAWN = multiprocessing.get_context("spawn")


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

    @property
    def late(self) -> float:
        """The latency that one request in a thousand exceeds."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.999)]


def waits(send: Send, case: Case) -> int:
    """How many requests have waited for a renewal, if they tell."""
    adapter = send.__self__.get_adapter(case.api) if hasattr(send, "__self__") else None
    keeper = getattr(adapter, "keeper", None)
    return keeper.stats.get("Waited", 0) if keeper else 0


def work(line: Connection, name: str, case: Case, pause: float) -> None:
    """What each process does: it says when it is ready, hears until when to work, and reports."""
    latencies: list[float] = []
    failed = 0
    send = contender(name).sender(case)
    send("GET", case.api)
    line.send(None)
    end = line.recv()
    waited, processor_time = waits(send, case), time.process_time()
    while (called := time.monotonic()) < end:
        try:
            failed += not send("GET", case.api).ok
        except Exception:  # noqa: BLE001 - each has errors of its own
            failed += 1
        latencies.append(time.monotonic() - called)
        if pause:
            time.sleep(pause)
    processor_time = time.process_time() - processor_time
    line.send(Work(latencies, failed, waits(send, case) - waited, processor_time))


def play(
    name: str, lifetime: float | None, pause: float, size: int, seconds: float, *, share: bool
) -> Round:
    lines, processes = [], []
    with TokenServer(lifetime=lifetime) as server, tempfile.TemporaryDirectory() as folder:
        server.latency = TOKEN_LATENCY
        for number in range(size):
            path = str(Path(folder, "token.json" if share else f"token{number}.json"))
            case = Case(server.api_url, server.token_url, path)
            if number == 0 or not share:
                contender(name).store(case, issued(server))
            mine, theirs = SPAWN.Pipe()
            processes.append(SPAWN.Process(target=work, args=(theirs, name, case, pause)))
            processes[-1].start()
            theirs.close()
            lines.append(mine)
        for line in lines:
            line.recv()
        before, processor_time = server.stats, time.process_time()
        began = time.monotonic()
        for line in lines:
            line.send(began + seconds)
        works: list[Work] = [line.recv() for line in lines]
        took = time.monotonic() - began
        processor_time = time.process_time() - processor_time
        after = server.stats
        for process in processes:
            process.join()
    return Round(
        took,
        [latency for one in works for latency in one.latencies],
        sum(one.failed for one in works),
        sum(one.waited for one in works),
        processor_time + sum(one.processor_time for one in works),
        after.renewals - before.renewals,
        after.reuse_detections - before.reuse_detections,
    )


# --- the findings -----------------------------------------------------------------------------


def shared(
    loads: Iterable[str], size: int, seconds: float, rounds: int
) -> tuple[Table, list[Claim]]:
    """Processes that share a token."""
    head = ["", "token lives", "requests/s", "failed", "renewals in 10 s", "due", "reused"]
    head += ["waited", "median ms", "99.9 % ms"]
    rows: list[list[str]] = []
    claims: list[Claim] = []
    for load in loads:
        pause = LOADS[load]
        kinds: dict[str, float | None] = {"1 s": LIFETIME, "for ever": None}

        def one(kind: str) -> Round:
            return play(OURS, kinds[kind], pause, size, seconds, share=True)  # noqa: B023

        played = in_turns(kinds, rounds, one)
        for kind, those in played.items():
            lasted = sum(one.seconds for one in those)
            renewals = sum(one.renewals for one in those)
            rows.append(
                [
                    load,
                    kind,
                    f"{median(one.rate for one in those):,.0f}",
                    str(sum(one.failed for one in those)),
                    f"{renewals * 10 / lasted:.1f}",
                    f"{10 / INTERVAL:.1f}" if renewals else "0.0",
                    str(sum(one.reuse_detections for one in those)),
                    str(sum(one.waited for one in those)),
                    f"{1e3 * median(median(one.latencies) for one in those):.1f}",
                    f"{1e3 * median(one.late for one in those):.1f}",
                ]
            )
        short, long = played.values()
        rate = ratio([one.rate for one in short], [one.rate for one in long])
        cost = ratio([one.cost for one in short], [one.cost for one in long])
        most = max(one.renewals * 10 / one.seconds for one in short)
        claims += [
            Claim(f"{load}: at most 13 renewals in 10 s: {most:.1f}", most <= 13),
            Claim(f"{load}: at least 0.95 of the requests: {rate:.3f}", rate >= 0.95),
            Claim(f"{load}: no request fails", not any(one.failed for one in short)),
        ]
        if pause:
            waited = sum(one.waited for one in short)
            claims.append(Claim(f"{load}: no request waits: {waited} did", waited == 0))
        else:
            rows[-2][0] += f" (each {cost:.3f} of the processor time)"
    return Table(head, rows), claims


def own(names: Iterable[str], size: int, seconds: float, rounds: int) -> tuple[Table, Chart]:
    """Processes each of which has a login of its own."""
    kinds = {f"{name} {life}": (name, life) for name in names for life in (LIFETIME, None)}
    del kinds[f"{PLAIN} {LIFETIME}"]

    def one(kind: str) -> Round:
        return play(*kinds[kind], 0.0, size, seconds, share=False)

    played = in_turns(kinds, rounds, one)
    head = [
        "",
        "requests/s",
        "middle half",
        "to a token that never expires",
        "failed",
        "renewals/s",
    ]
    rows, bars = [], []
    for kind, those in played.items():
        name, life = kinds[kind]
        if life is None and name != PLAIN:
            continue
        rates = [one.rate for one in those]
        long = ratio(rates, [one.rate for one in played[f"{name} None"]])
        renewals = sum(one.renewals for one in those) / sum(one.seconds for one in those)
        failed = sum(one.failed for one in those)
        of = sum(len(one.latencies) for one in those)
        shown_name = title(name) + (" (token that never expires)" if name == PLAIN else "")
        rows.append([shown_name, *shown(spread(rates), 0), f"{long:.3f}"])
        rows[-1] += [f"{failed} of {of:,}", f"{renewals:.1f}"]
        bars.append(Bar(shown_name, spread(rates), f"{failed} fail" if failed else ""))
    return Table(head, rows), Chart(
        "bench-steady-state",
        f"{size} processes, each its own token of 1 s: requests/s",
        bars,
    )


def measure(quick: bool) -> Finding:
    if quick:
        table, claims = shared([*LOADS][:1], 1, 0.2, 1)
        others, chart = own([PLAIN, OURS], 1, 0.2, 1)
    else:
        table, claims = shared(LOADS, PROCESSES, 10, 3)
        others, chart = own(installed(), PROCESSES, 3, 3)
    return Finding([table, others], [chart], claims)


if __name__ == "__main__":
    alone(measure)
