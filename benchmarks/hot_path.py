"""A request with a valid token

What token handling adds to a request when there is nothing to do: time, and instructions.

Each contender sends the same GET, through all of requests, urllib3 and http.client. Only the
network is missing: connections are opened to a socket that accepts everything and always has the
same response ready. The contenders take turns, with some requests each.

Valgrind counts the instructions in processes that do nothing else, as the difference between a run
with many requests and one with few, so that starting Python does not matter. Unlike time,
instructions do not depend on the load of the machine. They do depend, by up to 1 %, on the memory
layout, which decides what collides in the interpreter's caches. Therefore they are counted in
several layouts.

Setting a header has a cost, whatever sets it. So there are two references: no token at all, and
plain requests with a fixed header. Libraries that pass an `auth=` to requests save it the search
for a `.netrc` file, and are below the second reference.
"""

from __future__ import annotations

import gc
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import requests
from contenders import OURS, PLAIN, Case, Send, contender, installed, title
from measuring import (
    VALGRIND,
    Bar,
    Chart,
    Claim,
    Finding,
    Table,
    alone,
    better_than,
    collected,
    in_turns,
    ratio,
    shown,
    spread,
)
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

API = "https://api.example.com/v1/"
URL = f"{API}invoices?page=2"
TOKEN = {"access_token": "0123456789abcdef" * 4, "refresh_token": "fedcba9876543210" * 4}
NO_TOKEN = "no token"
LIMIT = 1.02
ANSWER = b"""\
HTTP/1.1 200 OK\r
Date: Thu, 01 Jan 2026 00:00:00 GMT\r
Server: example\r
Content-Type: application/json\r
Content-Length: 35\r
Cache-Control: no-store\r
\r
{"invoices": [1, 2, 3], "page": 2}
"""


class NoNetwork:
    """A socket that takes everything, and has the same answer ready each time it is read."""

    def __init__(self) -> None:
        # Never readable: urllib3 asks before each request whether the connection still stands.
        self._reading, self._writing = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def sendall(self, data: bytes) -> None:
        pass

    def makefile(self, mode: str) -> io.BufferedIOBase:
        return io.BytesIO(ANSWER)

    def settimeout(self, seconds: float | None) -> None:
        pass

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


class Unplugged(HTTPSConnection):
    def connect(self) -> None:
        self.sock = NoNetwork()
        self.is_verified = True


# What is run first in a process in which instructions are counted: it leaves holes of all sizes
# for the names that the imports bring, and takes some of the numbers by which types are cached.
LAYOUT = """
import os, random, runpy, sys
dice = random.Random(os.environ["PYTHONHASHSEED"])
holes = [bytes(dice.randrange(500)) for _ in range(20_000)]
types = [type(f"Type{number}", (), {}) for number in range(dice.randrange(2000))]
assert all(kind().__class__ is kind for kind in types)
holes = dice.sample(holes, 10_000)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# --- what is measured -------------------------------------------------------------------------


def case(name: str, folder: str) -> Case:
    """Nobody renews a token that is valid for another hour: there is no token endpoint."""
    return Case(API, "http://127.0.0.1:9/token", str(Path(folder, f"{name}.json")))


def sender(name: str, folder: str) -> Send:
    if name == NO_TOKEN:
        return requests.Session().request
    return contender(name).sender(case(name, folder))


def seconds(names: list[str], folder: str, rounds: int, count: int) -> dict[str, list[float]]:
    """The seconds that one request took, by contender and round."""
    senders = {name: sender(name, folder) for name in names}
    for send in senders.values():
        send("GET", URL).raise_for_status()

    def one(name: str) -> float:
        send = senders[name]
        started = time.perf_counter()
        for _ in range(count):
            send("GET", URL)
        return (time.perf_counter() - started) / count

    return in_turns(names, rounds, one)


def instructions(
    names: list[str],
    folder: str,
    layouts: int,
    few: int = 20,
    many: int = 120,
    script: str = __file__,
) -> dict[str, float]:
    """The instructions that one request takes, the mean of several layouts of memory.

    :param script: what valgrind runs, with the names and counts as this one.
    """

    def count(name: str) -> float:
        valgrind(script, name, folder, 1, layout=0)  # now all that is imported is compiled
        return mean(
            (
                valgrind(script, name, folder, many, layout)
                - valgrind(script, name, folder, few, layout)
            )
            / (many - few)
            for layout in range(layouts)
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(count, names), strict=True))


def valgrind(script: str, name: str, folder: str, count: int, layout: int) -> int:
    done = subprocess.run(
        [*VALGRIND, sys.executable, "-c", LAYOUT, script, "--run", name, folder, str(count)],
        # Few variables, always the same: requests reads them all with each request.
        env={
            "HOME": "/nonexistent",
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": str(layout),
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTHONSAFEPATH": "1",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return collected(done.stderr)


def run(name: str, folder: str, count: int) -> None:
    """What valgrind looks at."""
    # A full collection more in one run than in the other would outweigh what is looked for.
    gc.disable()
    send = sender(name, folder)
    for _ in range(count):
        send("GET", URL)


# --- the finding ------------------------------------------------------------------------------


def measure(quick: bool) -> Finding:
    HTTPSConnectionPool.ConnectionCls = Unplugged
    names = [NO_TOKEN, *installed()]
    with tempfile.TemporaryDirectory() as folder:
        for name in names[1:]:
            token = TOKEN | {"expires_in": 3600, "expires_at": time.time() + 3600}
            contender(name).store(case(name, folder), token)
        rounds, count = (3, 5) if quick else (60, 100)
        taken = seconds(names, folder, rounds, count)
        has_valgrind = shutil.which(VALGRIND[0]) is not None and not quick
        counts = instructions(names, folder, layouts=4) if has_valgrind else {}
    return finding(taken, counts)


def finding(taken: dict[str, list[float]], counts: dict[str, float]) -> Finding:
    head = ["", "instructions", "to no token", "to a fixed header"]
    head += ["µs", "middle half", "to no token", "to a fixed header"]
    floors = (NO_TOKEN, PLAIN)
    rows, bars = [], []
    for name, values in taken.items():
        row = [title(name)]
        if name in counts:
            row += [f"{counts[name]:,.0f}", *(f"{counts[name] / counts[n]:.3f}" for n in floors)]
        else:
            row += ["", "", ""]
        row += [*shown(spread(values).times(1e6), 0)]
        row += [f"{ratio(values, taken[floor]):.3f}" for floor in floors]
        rows.append(row)
        bars.append(Bar(title(name), spread(values).times(1e6)))
    chart = Chart("bench-hot-path", "A request with a valid token, without the network: µs", bars)
    claims, remarks = [], []
    if counts:
        compared = {title(name): counts[name] / counts[PLAIN] for name in installed()}
        remarks.append(better_than(title(OURS), compared, "times the instructions"))
        more = counts[OURS] / counts[NO_TOKEN]
        text = f"tokenadapter: at most {LIMIT} of the instructions without a token: {more:.4f}"
        claims.append(Claim(text, more <= LIMIT))
    return Finding([Table(head, rows)], [chart], claims, remarks)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        HTTPSConnectionPool.ConnectionCls = Unplugged
        run(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        alone(measure)
