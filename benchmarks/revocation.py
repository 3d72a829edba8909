"""A token that is revoked before it expires

8 threads share a session, and each sends a request every 5 ms. After one second the server revokes
the access token, which should have lasted an hour; the refresh token stays valid. From then on the
API answers 401.

A library that only looks at the clock does not notice this. The table counts the requests of the
second that follows. The server is the one of the herds.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from contenders import OURS, Case, contender, installed, title
from measuring import Bar, Chart, Claim, Finding, Table, alone, in_turns, issued, shown, spread
from thread_herd import LATENCY, span

from tokenadapter.testing import TokenServer

THREADS = 8
PAUSE = 0.005


class Aftermath(NamedTuple):
    """What became of the requests that were sent, or under way, after the token had died."""

    succeeded: int
    failed: int
    longest: float
    """In seconds, of those that succeeded."""
    token_requests: int
    is_logged_out: bool


def revoke_under_load(name: str, seconds: float) -> Aftermath:
    with TokenServer() as server, tempfile.TemporaryDirectory() as folder:
        server.latency = LATENCY
        case = Case(server.api_url, server.token_url, str(Path(folder, "token.json")))
        contender(name).store(case, issued(server))
        send = contender(name).sender(case)
        done: list[tuple[float, float, bool]] = []
        end = time.monotonic() + 2 * seconds

        def work() -> None:
            while (called := time.monotonic()) < end:
                try:
                    is_ok = send("GET", case.api).ok
                except Exception:  # noqa: BLE001 - each has errors of its own
                    is_ok = False
                done.append((called, time.monotonic(), is_ok))
                time.sleep(PAUSE)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        server.expire_now()
        died = time.monotonic()
        for thread in threads:
            thread.join()
        stats = server.stats
    after = [(back - called, is_ok) for called, back, is_ok in done if back > died]
    took = [latency for latency, is_ok in after if is_ok]
    return Aftermath(
        len(took),
        len(after) - len(took),
        max(took, default=0.0),
        stats.token_requests,
        stats.families_revoked > 0,
    )


def measure(quick: bool) -> Finding:
    rounds, seconds = (1, 0.1) if quick else (5, 1.0)
    taken = in_turns(installed(), rounds, lambda name: revoke_under_load(name, seconds))
    head = ["", "failed", "succeeded", "longest, ms", "middle half", "token requests", "user"]
    rows, bars = [], []
    for name, values in taken.items():
        longest = spread([1e3 * one.longest for one in values])
        outs = sum(one.is_logged_out for one in values)
        rows.append(
            [
                title(name),
                span(one.failed for one in values),
                span(one.succeeded for one in values),
                *(shown(longest, 0) if values[0].token_requests else ("", "")),
                span(one.token_requests for one in values),
                f"logged out in {outs} of {len(values)}" if outs else "stays logged in",
            ]
        )
        share = [100 * one.failed / max(1, one.failed + one.succeeded) for one in values]
        note = "logged out" if outs else "" if values[0].token_requests else "sees no 401"
        bars.append(Bar(title(name), spread(share), note))
    chart = Chart("bench-revocation", "Requests that fail after the token was revoked: %", bars)
    ours = taken[OURS]
    claims = [
        Claim("One renewal", all(one.token_requests == 1 for one in ours)),
        Claim("No request fails", all(one.failed == 0 for one in ours)),
    ]
    return Finding([Table(head, rows)], [chart], claims)


if __name__ == "__main__":
    alone(measure)
