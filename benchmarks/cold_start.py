"""A script that runs once

What a cron job costs: the script starts, reads a valid stored token, sends one request to a server
on this machine, and ends.

The figures are for whole processes: wall time and processor time. Each contender takes turns with
the script with plain requests alone. If all nine took turns, the modules that they share would stay
in the processor's caches, and a contender's own would not. All imported modules are compiled
beforehand. The peak memory is read once per contender, and the instructions are counted once, by
valgrind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from contenders import OURS, PLAIN, Case, contender, installed, title
from measuring import (
    TELL_MEMORY,
    VALGRIND,
    Bar,
    Chart,
    Claim,
    Finding,
    Spread,
    Table,
    alone,
    better_than,
    collected,
    environment,
    in_turns,
    issued,
    peak_memory,
    ratio,
    shown,
    spread,
)

from tokenadapter.testing import TokenServer

SCRIPT = """
import sys
from contenders import Case, contender

name, *where = sys.argv[1:]
case = Case(*where)
contender(name).sender(case)("GET", case.api).raise_for_status()
"""
HERE = Path(__file__).parent
LIMIT = 1.07
# What a script with a valid stored token must not load, unless plain requests does: urllib3 loads
# inspect, from Python 3.12 on.
NEEDLESS = ("cachetools", "dataclasses", "filelock", "inspect")


class Taken(NamedTuple):
    """What one process took, in seconds."""

    wall: float
    processor: float


class Scripts:
    """The contenders' scripts, ready to be run: a token is stored, and all is compiled."""

    def __init__(self, server: TokenServer, folder: Path, names: list[str]) -> None:
        self._environment = environment(folder) | {"PYTHONPATH": str(HERE), "PYTHONHASHSEED": "0"}
        self._cases: dict[str, Case] = {}
        for name in names:
            path = folder / name / "token.json"
            path.parent.mkdir(mode=0o700)
            case = self._cases[name] = Case(server.api_url, server.token_url, str(path))
            contender(name).store(case, issued(server))
            Path(f"{path}.lock").unlink(missing_ok=True)
            self.output(name)

    def command(self, name: str, script: str) -> list[str]:
        return [sys.executable, "-c", script, name, *self._cases[name]]

    def output(self, name: str, after: str = "", tool: tuple[str, ...] = ()) -> str:
        """What a script says, under a *tool* perhaps."""
        done = subprocess.run(
            [*tool, *self.command(name, SCRIPT + after)],
            env=self._environment,
            check=True,
            text=True,
            capture_output=True,
        )
        return done.stdout + done.stderr

    def taken(self, name: str) -> Taken:
        started = time.perf_counter()
        process = subprocess.Popen(self.command(name, SCRIPT), env=self._environment)
        _, process.returncode, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        assert process.returncode == 0
        return Taken(wall, usage.ru_utime + usage.ru_stime)

    def memory(self, name: str) -> float:
        return peak_memory(self.output(name, after=TELL_MEMORY))

    def instructions(self, name: str) -> int:
        return collected(self.output(name, tool=VALGRIND))

    def check(self) -> None:
        """A valid stored token costs neither a lock nor an import that only a renewal needs."""
        plain, ours = (
            {*self.output(name, after="print(*sys.modules)").split()} for name in (PLAIN, OURS)
        )
        needless = sorted({*NEEDLESS} & (ours - plain))
        assert not needless, f"loaded, but not needed: {needless}"
        assert not Path(f"{self._cases[OURS].path}.lock").exists(), "the lock was touched"


def measure(quick: bool) -> Finding:
    with TokenServer() as server, tempfile.TemporaryDirectory() as folder:
        names = [PLAIN, OURS] if quick else installed()
        scripts = Scripts(server, Path(folder), names)
        scripts.check()
        pairs = {
            name: in_turns([PLAIN, name], 1 if quick else 100, scripts.taken)
            for name in names
            if name != PLAIN
        }
        memory = {name: scripts.memory(name) for name in names}
        counts: dict[str, int] = {}
        if shutil.which(VALGRIND[0]) and not quick:
            counts = {name: scripts.instructions(name) for name in names}
        assert not server.stats.token_requests, "a good token was renewed"
    return finding(pairs, memory, counts)


def finding(
    pairs: dict[str, dict[str, list[Taken]]], memory: dict[str, float], counts: dict[str, int]
) -> Finding:
    """:param pairs: what each contender and plain requests took, when they took turns."""
    plain = [one for pair in pairs.values() for one in pair[PLAIN]]
    beside = {PLAIN: (plain, plain)}
    beside |= {name: (pair[name], pair[PLAIN]) for name, pair in pairs.items()}
    head = ["", "ms", "middle half", "to plain", "processor ms", "to plain", "MiB", "instructions"]
    rows, time_bars, memory_bars, walls = [], [], [], {}
    for name, (values, plain) in beside.items():
        wall = [one.wall for one in values]
        processor = [one.processor for one in values]
        walls[name] = ratio(wall, [one.wall for one in plain])
        others = ratio(processor, [one.processor for one in plain])
        row = [title(name), *shown(spread(wall).times(1e3)), f"{walls[name]:.3f}"]
        row += [shown(spread(processor).times(1e3))[0], f"{others:.3f}", f"{memory[name]:.1f}"]
        if name in counts:
            times = counts[name] / counts[PLAIN]
            row.append(f"{counts[name] / 1e6:,.0f} million ({times:.3f})")
        else:
            row.append("")
        rows.append(row)
        time_bars.append(Bar(title(name), spread(wall).times(1e3)))
        memory_bars.append(Bar(title(name), Spread(*[memory[name]] * 3)))
    charts = [
        Chart("bench-cold-start", "A script with one request, from start to end: ms", time_bars),
        Chart("bench-memory", "The peak memory of that script: MiB", memory_bars, decimals=1),
    ]
    text = f"tokenadapter: at most {LIMIT} of the wall time of plain requests: {walls[OURS]:.3f}"
    compared = {title(name): wall for name, wall in walls.items()}
    remark = better_than(title(OURS), compared, "times the wall time of plain requests")
    return Finding([Table(head, rows)], charts, [Claim(text, walls[OURS] <= LIMIT)], [remark])


if __name__ == "__main__":
    alone(measure)
