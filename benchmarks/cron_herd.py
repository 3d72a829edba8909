"""A herd of scripts

24 scripts start at the same moment, as from cron, read the same token file, whose token has
expired, send a request, and end. The server is the one of the herd of threads.

The figures are for whole scripts, from the start of the first to the end of the last. Each script
imports its own modules, which are compiled beforehand.

The lower bound is the time of the same scripts with plain requests and a valid token, and the 50 ms
that the server takes to issue a token.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cold_start import HERE, SCRIPT
from contenders import OURS
from measuring import Finding, alone, environment, in_turns
from thread_herd import (
    OURS_VALID,
    VALID,
    Herd,
    ended,
    finding,
    in_time,
    members,
    stage,
    who,
)

SCRIPTS = 24


def herd(name: str, size: int, home: Path) -> Herd:
    name, is_valid = who(name)
    settings = environment(home) | {"PYTHONPATH": str(HERE)}
    with stage(name, is_valid=is_valid) as (server, case):
        began = time.monotonic()
        scripts = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, name, *case],
                env=settings,
                stderr=subprocess.DEVNULL,  # most fail, and say so
            )
            for _ in range(size)
        ]
        succeeded = sum(script.wait() == 0 for script in scripts)
        return ended(server, succeeded, time.monotonic() - began)


def measure(quick: bool) -> Finding:
    size, names = (3, [VALID, OURS]) if quick else (SCRIPTS, members())
    names.insert(1, OURS_VALID)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            herd(name, 1, Path(folder))
        herds = in_turns(names, 1 if quick else 9, lambda name: herd(name, size, Path(folder)))
    is_in_time = in_time(herds, VALID, "a herd of plain requests")
    return finding(herds, size, "bench-cron-herd", "scripts", is_in_time)


if __name__ == "__main__":
    alone(measure)
