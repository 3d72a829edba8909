"""The fixtures of all tests: a token server, an isolated environment, and a check for leftovers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import coverage_forks  # noqa: F401 - its fork handler must come first
import pytest
from databases import MariaDB, PostgreSQL
from doubles import Authority, Clockwork, Shelf
from hypothesis import settings
from imports import Unguarded
from unit.stores.servers import Memcached, RedisServer, free_port

from tokenadapter.testing import TokenServer

# On top of hypothesis' own choice, which is a reproducible one where CI is set.
settings.register_profile("tokenadapter", settings(), deadline=None)
settings.load_profile("tokenadapter")


# A shell makes background jobs ignore SIGINT, and nohup makes them ignore SIGHUP.  Programs that
# the tests start would inherit that, and could not be tested with these signals.
for name, action in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # no SIGHUP on Windows
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, action)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which may be turned off
def pytest_xdist_auto_num_workers() -> int:
    """One and a half workers for each core: many tests wait for processes and leases."""
    cores = os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_finish() -> None:
    """Exempt the thousands of collected tests from garbage collection."""
    gc.freeze()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    """A token endpoint and the API that it protects; clients poll it every second for a login."""
    with TokenServer(device_interval=1.0) as server:
        yield server


@pytest.fixture
def other() -> Iterator[TokenServer]:
    """Another server, which must not get a token."""
    with TokenServer() as other:
        yield other


@pytest.fixture(autouse=True)
def no_metadata() -> None:
    """Forget the metadata of issuers: a later server may have the port of an earlier one."""
    discovery = sys.modules.get("tokenadapter.sources.discovery")
    if discovery is not None:
        discovery._known.clear()


@pytest.fixture(autouse=True)
def no_nonces() -> None:
    """Forget the nonces of servers, for the same reason."""
    dpop = sys.modules.get("tokenadapter.http.dpop")
    if dpop is not None:
        dpop._servers.clear()


@pytest.fixture
def clock() -> Clockwork:
    """A runtime whose clocks move only when a test moves them."""
    return Clockwork()


@pytest.fixture
def shelf(clock: Clockwork) -> Shelf:
    """A store that several keepers can share, as processes share a file."""
    return Shelf(clock)


@pytest.fixture
def authority() -> Authority:
    """An authorization server with rotation and reuse detection, and its grant."""
    return Authority()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL for all tests; each test takes its own database or slot."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB, if the machine has one."""
    if not MariaDB.is_here():
        pytest.skip("this machine has no MariaDB server")
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for all tests; each test takes its own key."""
    with RedisServer(port=free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    """A Memcached for all tests, if the machine has one; each test takes its own key."""
    with Memcached() as server:
        yield server


@pytest.fixture(scope="session")
def project(
    redis_server: RedisServer, memcached: Memcached, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Make this process part of a Django project with caches in Redis, Memcached and a database."""
    from unit.stores import django_project

    folder = str(tmp_path_factory.mktemp("project"))
    django_project.configure(folder, redis_server.url, memcached.location)
    django_project.create_table()


@pytest.fixture(autouse=True, scope="session")
def _quiet_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ignore proxies, netrc, certificates and home directory of the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE") or name == "NETRC":
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Check that every thread and child process of a test ends soon after the test."""
    threads, children = set(threading.enumerate()), _children()
    yield
    deadline = time.monotonic() + 10
    while left := [*(set(threading.enumerate()) - threads), *(_children() - children)]:
        if time.monotonic() > deadline:
            pytest.fail(f"left running (threads, and children by their id): {left}")
        time.sleep(0.005)


@pytest.fixture(scope="session")
def unguarded() -> Iterator[Unguarded]:
    """A record of the library's imports that a fork may interrupt."""
    with Unguarded() as unguarded:
        yield unguarded


@pytest.fixture(autouse=True)
def _no_fork_interrupts_an_import(unguarded: Unguarded) -> Iterator[None]:
    """Check that every late import of the library is guarded against forks."""
    yield
    if found := unguarded.found():
        pytest.fail("a fork may interrupt these imports:\n" + "\n".join(found))


def _children() -> set[int]:
    """The child processes, without the helper processes of multiprocessing."""
    children: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            children.update(map(int, task.read_text().split()))
        except OSError:
            # The thread has ended.
            continue
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    forkserver = sys.modules.get("multiprocessing.forkserver")
    kept = {
        tracker and tracker._resource_tracker._pid,
        forkserver and forkserver._forkserver._forkserver_pid,
    }
    return children - kept
