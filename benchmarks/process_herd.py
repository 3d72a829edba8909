"""A herd of processes

24 processes that have been running for a while wake up at the same moment, read the same token
file, whose token has expired, and send a request.

The server is the one of the herd of threads. If a library does not save tokens itself, the program
saves them. All modules that a renewal needs are imported beforehand; reading the file is included.

The lower bound is the time of the same processes with a valid token, and the 50 ms that the server
takes to issue a token.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from contenders import OURS, Case, contender
from measuring import Finding, alone, in_turns
from thread_herd import (
    OURS_VALID,
    VALID,
    Herd,
    ended,
    expired,
    finding,
    in_time,
    members,
    stage,
    who,
)

PROCESSES = 24
# Seconds for which all sleep before they wake up together.
SLEEP = 0.05
SPAWN, FORK = (multiprocessing.get_context(method) for method in ("spawn", "fork"))


def nest(line: Connection, name: str, warm: Case, case: Case, size: int) -> None:
    """A process that has renewed a token of its own once, and forks the others, who thus have
    imported all."""
    contender(name).sender(warm)("GET", warm.api)
    lines, processes = [], []
    for _ in range(size):
        mine, theirs = FORK.Pipe()
        processes.append(FORK.Process(target=work, args=(theirs, name, case)))
        processes[-1].start()
        lines.append(mine)
    for one in lines:
        one.recv()
    line.send(None)
    line.recv()
    begin = time.monotonic() + SLEEP
    for one in lines:
        one.send(begin)
    done = [one.recv() for one in lines]
    line.send((sum(is_ok for is_ok, _ in done), max(end for _, end in done) - begin))
    for process in processes:
        process.join()


def work(line: Connection, name: str, case: Case) -> None:
    """What each process does: it says when it is ready, hears when to begin, and reports."""
    line.send(None)
    time.sleep(max(0.0, line.recv() - time.monotonic()))
    try:
        is_ok = contender(name).sender(case)("GET", case.api).ok
    except Exception:  # noqa: BLE001 - each has errors of its own
        is_ok = False
    line.send((is_ok, time.monotonic()))


def herd(name: str, size: int) -> Herd:
    name, is_valid = who(name)
    with stage(name, is_valid=is_valid) as (server, case):
        warm = case._replace(path=f"{case.path}.warm")
        contender(name).store(warm, expired(server.issue()))
        line, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=nest, args=(theirs, name, warm, case, size))
        process.start()
        theirs.close()
        line.recv()
        before = server.stats.token_requests
        line.send(None)
        succeeded, seconds = line.recv()
        process.join()
        return ended(server, succeeded, seconds, before)


def measure(quick: bool) -> Finding:
    size, names = (3, [VALID, OURS]) if quick else (PROCESSES, members())
    names.insert(1, OURS_VALID)
    herds = in_turns(names, 1 if quick else 9, lambda name: herd(name, size))
    is_in_time = in_time(herds, OURS_VALID, "a herd with a valid token")
    return finding(herds, size, "bench-process-herd", "processes", is_in_time)


if __name__ == "__main__":
    alone(measure)
