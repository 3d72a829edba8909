"""A herd of threads

32 threads share a session whose token has expired, and send a request at the same moment.

The server takes 50 ms to issue a token. It rotates refresh tokens, and revokes the grant when a
spent one is presented again, as the best current practice demands (RFC 9700); the user is then
logged out. Each round has its own server.

requests-auth knows the user's password here, and logs in again.

The lower bound is the time of plain requests with a valid token, and 50 ms.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from contenders import OURS, PLAIN, Case, contender, installed, title
from measuring import Bar, Chart, Claim, Finding, Table, alone, in_turns, shown, spread

from tokenadapter.testing import TokenServer

THREADS = 32
LATENCY = 0.05
VALID, OURS_VALID = "plain requests, valid token", "tokenadapter, valid token"
# By how much a herd may take longer than what is least.
LIMIT = 1.1


class Herd(NamedTuple):
    """What became of one herd."""

    token_requests: int
    succeeded: int
    is_logged_out: bool
    seconds: float
    """Until the last was done."""


def members() -> list[str]:
    """Who takes part: plain requests have a token that is valid, since they never renew."""
    return [VALID, *(name for name in installed() if name != PLAIN)]


def expired(token: dict[str, object]) -> dict[str, object]:
    return token | {"expires_at": time.time() - 60, "expires_in": -60}


def who(name: str) -> tuple[str, bool]:
    """The contender of that name, and whether its token is valid."""
    return {VALID: PLAIN, OURS_VALID: OURS}.get(name, name), name in (VALID, OURS_VALID)


@contextmanager
def stage(name: str, *, is_valid: bool) -> Iterator[tuple[TokenServer, Case]]:
    """A server, and where a token of a contender is stored that is valid or has expired."""
    with TokenServer() as server, tempfile.TemporaryDirectory() as folder:
        server.latency = LATENCY
        case = Case(server.api_url, server.token_url, str(Path(folder, "token.json")))
        token = server.issue()
        if not is_valid:
            token = expired(token)
            server.expire_now()
        contender(name).store(case, token)
        yield server, case


def herd(name: str) -> Herd:
    name, is_valid = who(name)
    with stage(name, is_valid=is_valid) as (server, case):
        send = contender(name).sender(case)
        start = threading.Barrier(THREADS + 1)
        succeeded: list[bool] = []

        def work() -> None:
            start.wait()
            try:
                succeeded.append(send("GET", case.api).ok)
            except Exception:  # noqa: BLE001 - each has errors of its own
                succeeded.append(False)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.monotonic()
        for thread in threads:
            thread.join()
        return ended(server, sum(succeeded), time.monotonic() - began)


def ended(server: TokenServer, succeeded: int, seconds: float, asked_before: int = 0) -> Herd:
    """What became of a herd at *server*."""
    stats = server.stats
    requested = stats.token_requests - asked_before
    return Herd(requested, succeeded, stats.families_revoked > 0, seconds)


def table(herds: dict[str, list[Herd]], size: int) -> Table:
    head = ["", "token requests", "succeeded", "user", "last one finished, ms", "middle half"]
    rows = []
    for name, rounds in herds.items():
        outs = sum(one.is_logged_out for one in rounds)
        user = "logged out" if outs == len(rounds) else f"logged out in {outs} of {len(rounds)}"
        rows.append(
            [
                title(name),
                span(one.token_requests for one in rounds),
                f"{span(one.succeeded for one in rounds)} of {size}",
                user if outs else "stays logged in",
                *shown(spread([one.seconds * 1e3 for one in rounds]), 0),
            ]
        )
    return Table(head, rows)


def charts(herds: dict[str, list[Herd]], file: str, what: str) -> list[Chart]:
    bars = []
    for name, rounds in herds.items():
        failed = sum(one.token_requests and one.succeeded == 0 for one in rounds)
        note = "all fail, " if failed == len(rounds) else ""
        note += "logged out" if any(one.is_logged_out for one in rounds) else ""
        bars.append(Bar(title(name), spread([one.token_requests for one in rounds]), note))
    return [Chart(file, f"{what}: requests to the token endpoint", bars)]


def claims(herds: list[Herd], size: int) -> list[Claim]:
    """What is promised of a herd of ours."""
    everyone = all(one.succeeded == size and not one.is_logged_out for one in herds)
    return [
        Claim("One renewal", all(one.token_requests == 1 for one in herds)),
        Claim("Every request succeeds, and nobody is logged out", everyone),
    ]


def in_time(herds: dict[str, list[Herd]], reference: str, text: str) -> Claim:
    """Whether ours is done in time, by the herd *reference*, which *text* names."""
    took, plain = (median(one.seconds for one in herds[name]) for name in (OURS, reference))
    least = (LATENCY + plain) * LIMIT
    text = f"The last one has finished within {LIMIT:g} times a token's latency and {text}"
    return Claim(f"{text}: {took * 1e3:,.0f} ms of {least * 1e3:,.0f}", took <= least)


def finding(herds: dict[str, list[Herd]], size: int, file: str, what: str, *more: Claim) -> Finding:
    """What was found of *size* at once, which *what* names."""
    return Finding(
        [table(herds, size)],
        charts(herds, file, f"{size} {what}, expired token"),
        [*claims(herds[OURS], size), *more],
    )


def span(numbers: Iterable[int]) -> str:
    """The least and the most of them, if they differ."""
    few, *_, many = sorted(numbers) * 2
    return str(few) if few == many else f"{few} – {many}"


def measure(quick: bool) -> Finding:
    herds = in_turns(members(), 1 if quick else 9, herd)
    return finding(herds, THREADS, "bench-thread-herd", "threads")


if __name__ == "__main__":
    alone(measure)
