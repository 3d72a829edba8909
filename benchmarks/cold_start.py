"""What a script that runs once pays: cron starts it, it does one request, it ends.

The same GET to a server on loopback, by a script with plain requests and a header that is fixed,
and by one with a ``TokenAdapter`` whose ``FileStore`` holds a valid token.  Whole processes are
measured, from start to end, and the scripts take turns: wall time, and the processor time of the
process.  The ratio is the median of those of neighbours.

With ``--instructions`` valgrind counts what a whole process executes; that hardly depends on what
else the machine does.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --instructions
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from tokenadapter import ClientCredentials, FileStore, TokenKeeper
from tokenadapter.testing import TokenServer

PLAIN = """
import sys
import requests

api, token_url, path, access_token = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = f"Bearer {access_token}"
session.get(f"{api}invoices").raise_for_status()
"""

TOKENADAPTER = """
import sys
import requests
from tokenadapter import ClientCredentials, FileStore, TokenAdapter

api, token_url, path, access_token = sys.argv[1:]
session = requests.Session()
grant = ClientCredentials(token_url, client_id="client", client_secret="secret")
TokenAdapter(api, grant, store=FileStore(path)).mount(session)
session.get(f"{api}invoices").raise_for_status()
"""

CONTENDERS = {"plain": PLAIN, "tokenadapter": TOKENADAPTER}

# What a script with a valid stored token must not load.
NEEDLESS = ("cachetools", "dataclasses", "filelock", "inspect")


class Scripts:
    """The contenders' scripts, ready to be run: all they import is compiled beforehand."""

    def __init__(self, server: TokenServer, directory: Path) -> None:
        path = directory / "state" / "token.json"
        grant = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
        token = TokenKeeper(grant, FileStore(path)).current()
        self.lock = Path(f"{path}.lock")
        self.lock.unlink()
        self._arguments = (server.api_url, server.token_url, str(path), token.access_token)
        self._environment = {
            "HOME": str(directory),
            "PATH": os.environ["PATH"],
            "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
            "PYTHONHASHSEED": "0",
        }
        for name in CONTENDERS:
            self.run(name)

    def run(self, name: str, after: str = "", tool: tuple[str, ...] = ()) -> str:
        """Run a script to its end, under a *tool* perhaps, and return what was said."""
        command = [*tool, sys.executable, "-c", CONTENDERS[name] + after, *self._arguments]
        done = subprocess.run(
            command, env=self._environment, check=True, text=True, capture_output=True
        )
        return done.stdout + done.stderr


def check(scripts: Scripts) -> None:
    """A valid stored token costs neither a lock nor any import that only a renewal needs."""
    loaded = scripts.run("tokenadapter", after="print(*sys.modules)").split()
    needless = sorted({*NEEDLESS} & {*loaded})
    assert not needless, f"loaded, but not needed: {needless}"
    assert not scripts.lock.exists(), "the lock was touched"


def seconds(scripts: Scripts, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall time and processor time of each process, by contender and round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        order = list(CONTENDERS)
        for name in order if number % 2 else reversed(order):
            before, started = os.times(), time.perf_counter()
            scripts.run(name)
            wall, after = time.perf_counter() - started, os.times()
            processor = after.children_user + after.children_system
            processor -= before.children_user + before.children_system
            taken[name].append((wall, processor))
    return taken


def report_time(scripts: Scripts, rounds: int) -> None:
    taken = seconds(scripts, rounds)
    for kind, unit in enumerate(("wall time", "processor")):
        print(f"{unit:16}{'ms a process':>14}{'middle half':>18}{'to plain':>10}")
        floor = [values[kind] for values in taken["plain"]]
        for name, values in taken.items():
            mine = [value[kind] for value in values]
            low, middle, high = (1e3 * value for value in quantiles(mine, n=4))
            ratio = median(mine / plain for mine, plain in zip(mine, floor, strict=True))
            print(f"{name:16}{middle:14.1f}{f'{low:.1f} – {high:.1f}':>18}{ratio:10.3f}")


def report_instructions(scripts: Scripts) -> None:
    valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    if shutil.which(valgrind[0]) is None:
        sys.exit("Counting instructions needs valgrind: install it, or measure time alone.")
    floor = 0
    print(f"{'':16}{'instructions':>16}{'to plain':>10}")
    for name in CONTENDERS:
        collected = re.search(r"Collected : (\d+)", scripts.run(name, tool=valgrind))
        assert collected is not None
        count = int(collected[1])
        floor = floor or count
        print(f"{name:16}{count:16,}{count / floor:10.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instructions", action="store_true", help="count them, by valgrind")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with TokenServer() as server, tempfile.TemporaryDirectory() as directory:
        scripts = Scripts(server, Path(directory))
        check(scripts)
        if options.instructions:
            report_instructions(scripts)
        else:
            report_time(scripts, options.rounds)


if __name__ == "__main__":
    main()
