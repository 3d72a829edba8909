"""Plays one run: the server, the processes, and trouble at the server."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenadapter.demo.recording import Demand, Incident, Run, Setting
from tokenadapter.demo.ways import Place, Way, work
from tokenadapter.testing import TokenServer

_LATENCY = 0.05  # seconds that the token endpoint takes
_FRAME = 0.1  # from one picture to the next
_LOOK = 0.02  # from one look at the server to the next
_OVERTIME = 30.0  # for processes that are still busy after the end of the run
_EXIT = 30.0  # for the interpreters' exit


def play(way: Way, setting: Setting, show: Callable[[Run, float], object], *, trouble: bool) -> Run:
    """Let processes that share one token file call an API, and return what happened.

    :param show: called with the run so far and its age in seconds, ten times a second.
    :param trouble: whether the server has trouble meanwhile.
    """
    with (
        TemporaryDirectory(prefix="tokenadapter-demo-") as folder,
        TokenServer(lifetime=setting.lifetime) as server,
    ):
        server.latency = _LATENCY
        run = Run(way.title, setting, [[] for _ in range(setting.processes)], server.stats)
        show(run, 0.0)
        place = Place(server.token_url, server.api_url, Path(folder, "token.json"))
        with _processes(way, place, setting.processes) as processes:
            for pipe in processes:
                pipe.recv()  # the process is ready
            begin = time.time()
            way.log_in(place, server.issue())
            for pipe in processes:
                pipe.send((begin, begin + setting.seconds))
            with _trouble(server, run, begin) if trouble else nullcontext():
                _watch(list(processes), server, run, begin, show)
        run.crashed = sum(process.exitcode != 0 for process in processes.values())
        run.stats = server.stats
    return run


@contextmanager
def _processes(way: Way, place: Place, count: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """Running processes, by the pipes to them; all have ended afterwards."""
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    try:
        # Inherited, so that Ctrl-C reaches this process alone, which then ends the others.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for _ in range(count):
                pipe, far_end = context.Pipe()
                process = context.Process(target=work, args=(way, place, far_end))
                process.start()
                far_end.close()
                processes[pipe] = process
        finally:
            signal.signal(signal.SIGINT, handler)
        yield processes
        for process in processes.values():
            process.join(_EXIT)
    finally:
        for pipe, process in processes.items():
            process.terminate()
            process.join()
            pipe.close()


def _watch(
    pipes: list[Connection],
    server: TokenServer,
    run: Run,
    begin: float,
    show: Callable[[Run, float], object],
) -> None:
    """Record what the processes and the server report, until the last process has ended."""
    running = dict(zip(pipes, run.lanes, strict=True))
    seen = 0
    while running and time.time() < begin + run.setting.seconds + _OVERTIME:
        time.sleep(_FRAME)
        for pipe, lane in list(running.items()):
            try:
                while pipe.poll():
                    lane.append(pipe.recv())
            except (EOFError, ConnectionError):
                del running[pipe]
        now, requested = time.time() - begin, server.stats.token_requests
        if requested > seen:
            run.demand.append(Demand(now, requested - seen))
            seen = requested
        show(run, min(now, run.setting.seconds))


@contextmanager
def _trouble(server: TokenServer, run: Run, begin: float) -> Iterator[None]:
    """Make trouble at the server while a block runs."""
    over = threading.Event()
    thread = threading.Thread(target=_make_trouble, args=(server, run, begin, over))
    try:
        # Ctrl-C may arrive here too.
        thread.start()
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def _make_trouble(server: TokenServer, run: Run, begin: float, over: threading.Event) -> None:
    """Revoke a token in the middle of its life, and later delay a renewal."""
    _, seconds, lifetime = run.setting

    def wait_until(reached: Callable[[], bool]) -> None:
        while not reached() and not over.wait(_LOOK):
            pass

    over.wait(0.2 * seconds)
    renewals = server.stats.renewals
    wait_until(lambda: server.stats.renewals > renewals)
    if not over.wait(lifetime / 2):
        at = time.time()
        server.expire_now()
        run.incidents.append(Incident(at - begin, "revoked", time.time() - at))
    over.wait(begin + 0.7 * seconds - time.time())
    delay = 0.4 * lifetime
    with server.hold() as hold:
        wait_until(hold.arrived.is_set)
        if not over.is_set():
            run.incidents.append(Incident(time.time() - begin, "delayed", delay))
        over.wait(delay)
