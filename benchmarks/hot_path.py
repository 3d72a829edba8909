"""What a valid token in memory adds to a request: time, and instructions.

The same GET through each contender, with the whole of requests, urllib3 and http.client at work;
only the network is missing: connections are opened to a socket that takes everything and always
has the same answer ready.

Time is measured in rounds in which the contenders take turns; each gets the median of its rounds
and the middle half of them.  Instructions are counted by valgrind in processes that do nothing
else: the difference between a run with many requests and one with few, so that starting Python
does not matter.  Unlike time, they do not depend on what else the machine does; but where things
happen to lie in memory decides what meets in the interpreter's caches, and makes up to 1 %, so
they are counted in several layouts of it.

A header costs something whoever sets it: "session header" is the same request without any token
handling, and the floor for all who send a token.

    python benchmarks/hot_path.py
    python benchmarks/hot_path.py --instructions
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import mean, median, quantiles

import requests
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from tokenadapter import Token, TokenAdapter

PREFIX = "https://api.example.com/v1"
URL = f"{PREFIX}/invoices?page=2"
ACCESS_TOKEN = "0123456789abcdef" * 4
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


# --- the contenders: each gives a function that does one request ------------------------------


def plain() -> Callable[[], requests.Response]:
    """No token at all."""
    session = requests.Session()
    return lambda: session.get(URL)


def session_header() -> Callable[[], requests.Response]:
    """A header of the session, set once: the price of the header alone."""
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {ACCESS_TOKEN}"
    return lambda: session.get(URL)


def by_hand() -> Callable[[], requests.Response]:
    """A header set with each request."""
    session = requests.Session()
    return lambda: session.get(URL, headers={"Authorization": f"Bearer {ACCESS_TOKEN}"})


def tokenadapter() -> Callable[[], requests.Response]:
    """The token of an adapter, valid for another hour."""
    session = requests.Session()
    adapter = TokenAdapter(PREFIX, _no_renewal).mount(session)
    adapter.keeper.adopt(Token(ACCESS_TOKEN, expires_at=time.time() + 3600))
    return lambda: session.get(URL)


def _no_renewal(previous: Token | None) -> Token:
    raise AssertionError("a token that is valid was renewed")


CONTENDERS: dict[str, Callable[[], Callable[[], requests.Response]]] = {
    "plain": plain,
    "session header": session_header,
    "header by hand": by_hand,
    "tokenadapter": tokenadapter,
}


# --- the measurements -------------------------------------------------------------------------


def seconds(rounds: int, requests_per_round: int) -> dict[str, list[float]]:
    """The seconds that one request took, by contender and round."""
    gets = {name: contender() for name, contender in CONTENDERS.items()}
    for get in gets.values():
        get()
    taken: dict[str, list[float]] = {name: [] for name in gets}
    for _ in range(rounds):
        for name, get in gets.items():
            started = time.perf_counter()
            for _ in range(requests_per_round):
                get()
            taken[name].append((time.perf_counter() - started) / requests_per_round)
    return taken


def instructions(name: str, layouts: int, few: int = 20, many: int = 120) -> float:
    """The instructions that one request takes, the mean of several layouts of memory."""
    _instructions(name, 1, layout=0)  # now all that is imported is compiled
    return mean(
        (_instructions(name, many, layout) - _instructions(name, few, layout)) / (many - few)
        for layout in range(layouts)
    )


def _instructions(name: str, count: int, layout: int) -> int:
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, sys.executable, "-c", LAYOUT, __file__, "--run", name, str(count)],
        # Few variables, always the same: requests reads them all with each request.
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONHASHSEED": str(layout)},
        check=True,
        capture_output=True,
        text=True,
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    assert collected is not None, done.stderr
    return int(collected[1])


def run(name: str, count: int) -> None:
    """What valgrind looks at."""
    # A full collection more in one run than in the other would outweigh what is looked for.
    gc.disable()
    get = CONTENDERS[name]()
    for _ in range(count):
        get()


# --- the report -------------------------------------------------------------------------------


def report_time(rounds: int, requests_per_round: int) -> None:
    taken = seconds(rounds, requests_per_round)
    floor = median(taken["plain"])
    print(f"{'':16}{'µs a request':>14}{'middle half':>18}{'to plain':>10}")
    for name, values in taken.items():
        low, middle, high = (1e6 * value for value in quantiles(values, n=4))
        print(f"{name:16}{middle:14.1f}{f'{low:.1f} – {high:.1f}':>18}{middle / 1e6 / floor:10.3f}")


def report_instructions(layouts: int) -> None:
    if shutil.which("valgrind") is None:
        sys.exit("Counting instructions needs valgrind: install it, or measure time alone.")
    counts: dict[str, float] = {}
    print(f"{'':16}{'instructions':>14}{'to plain':>10}{'to session header':>19}")
    for name in CONTENDERS:
        count = counts[name] = instructions(name, layouts)
        ratios = f"{count / counts['plain']:10.4f}"
        if "session header" in counts:
            ratios += f"{count / counts['session header']:19.4f}"
        print(f"{name:16}{count:14,.0f}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instructions", action="store_true", help="count them, by valgrind")
    parser.add_argument("--layouts", type=int, default=6, help="in which to count them")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=100, help="in each round")
    parser.add_argument("--run", nargs=2, metavar=("CONTENDER", "COUNT"), help="just do requests")
    options = parser.parse_args()
    if options.run:
        run(options.run[0], int(options.run[1]))
    elif options.instructions:
        report_instructions(options.layouts)
    else:
        report_time(options.rounds, options.requests)


if __name__ == "__main__":
    HTTPSConnectionPool.ConnectionCls = Unplugged
    main()
