"""Programs that use gevent, and patch all modules before they import others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sharing import Target, new_adapter
from unit.stores.servers import RedisServer

from tokenadapter.testing import TokenServer

# Seconds: for what happens at once, unless the test fails.
PATIENCE = 60

PROGRAM = """
from gevent import monkey

monkey.patch_all()

import sys

import gevent
import gevent.os
import requests

from tokenadapter import RefreshToken, TokenAdapter

what, api, token_url, first, store = sys.argv[1:]
source = RefreshToken(token_url, first, client_id="client", client_secret="secret")
adapter = TokenAdapter(api, source, store=store, pool_maxsize=50)


def get(number):
    with requests.Session() as session:
        session.mount(api, adapter)
        return session.get(f"{api}{number}", timeout=30).status_code


greenlets = [gevent.spawn(get, number) for number in range(50)]
if what == "all get an answer":
    print([greenlet.get() for greenlet in greenlets] == [200] * 50)
else:
    gevent.os.tp_read(0, 1)  # until the renewal is under way
    if what == "all but one are killed":
        gevent.killall(greenlets[1:])
    print("done", flush=True)
    if what == "all but one are killed":
        print(greenlets[0].get(), get(50))
"""


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> str:
    """The URL of a store."""
    urls = {
        "memory": "memory:gevent",
        "file": f"file:{tmp_path / 'token.json'}",
        "redis": f"redis://127.0.0.1:{redis_server.port}/0#gevent",
    }
    return urls[request.param]


@pytest.fixture
def target(server: TokenServer, tmp_path: Path) -> Target:
    first = server.issue()["refresh_token"]
    return server.api_url, server.token_url, first, str(tmp_path / "token.json")


@contextmanager
def program(what: str, target: Target, store: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process of 50 greenlets that find no token, and send a request each."""
    command = [sys.executable, "-c", PROGRAM, what, *target[:3], store or f"file:{target[3]}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a waiting process continue, and wait until its next step is done."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("!")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def told_by(process: subprocess.Popen[str]) -> str:
    """What a process prints until it ends, in good order."""
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return output


def test_many_greenlets_share_one_renewal_and_are_all_served(
    server: TokenServer, target: Target, store: str
) -> None:
    with program("all get an answer", target, store) as process:
        assert told_by(process) == "True\n"
    assert server.stats.token_requests == 1


def test_processes_full_of_greenlets_share_one_renewal(server: TokenServer, target: Target) -> None:
    with ExitStack() as stack, server.hold() as hold:
        both = [stack.enter_context(program("all get an answer", target)) for _ in range(2)]
        assert hold.arrived.wait(PATIENCE)
        hold.release()
        assert [told_by(process) for process in both] == ["True\n"] * 2
    assert server.stats.token_requests == 1


def test_greenlets_that_are_killed_do_not_end_the_renewal_that_others_wait_for(
    server: TokenServer, target: Target
) -> None:
    with program("all but one are killed", target) as process, server.hold(processed=True) as hold:
        assert hold.arrived.wait(PATIENCE)
        go_on(process)
        hold.release()
        assert told_by(process) == "200 200\n"
    assert server.stats.token_requests == 1


def test_a_program_that_ends_waits_until_the_renewal_under_way_is_saved(
    server: TokenServer, target: Target
) -> None:
    with program("it ends", target) as process, server.hold(processed=True) as hold:
        assert hold.arrived.wait(PATIENCE)
        go_on(process)
        hold.release()
        assert told_by(process) == ""
    assert new_adapter(target).keeper.current()
    assert server.stats.token_requests == 1


def test_a_process_that_is_killed_while_it_renews_is_replaced_by_another(
    server: TokenServer, target: Target
) -> None:
    server.fail_next(hang=True)
    with program("all get an answer", target) as killed:
        server.wait_for(lambda stats: stats.token_requests == 1, timeout=PATIENCE)
        with program("all get an answer", target) as other:
            killed.kill()
            assert told_by(other) == "True\n"
    assert server.stats.token_requests == 2
    assert server.stats.reuse_detections == 0
