"""Real processes, spawned and forked, that share a file."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from sharing import Target, new_adapter, together

from tokenadapter import FileStore, ReauthRequired, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer


@pytest.fixture
def target(server: TokenServer, tmp_path: Path) -> Target:
    first = server.issue()["refresh_token"]
    return (server.api_url, server.token_url, first, str(tmp_path / "state" / "token.json"))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_spawned_processes_with_an_expired_token_send_one_token_request(server, target):
    answers = together(target, 12, multiprocessing.get_context("spawn"))
    assert answers == [200] * 12
    assert server.stats.token_requests == 1


def test_forked_processes_share_through_the_file(server, target):
    answers = together(target, 8, multiprocessing.get_context("fork"))
    assert answers == [200] * 8
    server.expire_now()
    answers = together(target, 8, multiprocessing.get_context("fork"))
    assert answers == [200] * 8
    assert server.stats.token_requests == 2


def test_a_child_forked_during_a_renewal_neither_hangs_nor_renews_twice(server, target):
    with requests.Session() as session:
        adapter = new_adapter(target).mount(session)
        session.get(target[0] + "x")
        server.expire_now()
        with server.hold(processed=True) as hold:
            keeper = adapter.keeper
            old = keeper.current()
            renewing = threading.Thread(target=keeper.renew, args=[old])
            renewing.start()
            assert hold.arrived.wait(10)
            child = os.fork()
            if child == 0:
                # It has no helper thread; it waits for the parent's lock, and sees its token.
                code = 1
                try:
                    with requests.Session() as mine:
                        adapter.mount(mine)
                        code = 0 if mine.get(target[0] + "y", timeout=30).ok else 2
                finally:
                    os._exit(code)
            server.wait_for(lambda stats: stats.api_refused >= 1)
        renewing.join(10)
        assert keeper.wait(10)
        assert os.waitpid(child, 0)[1] == 0
        assert session.get(target[0] + "z").ok
    assert server.stats.token_requests == 2
    assert server.stats.reuse_detections == 0


def test_a_forked_child_does_not_present_a_refresh_token_that_its_parent_has_spent(server, target):
    source = RefreshToken(server.token_url, client_id="client", client_secret="secret")
    keeper = TokenKeeper(source, FileStore(target[3]))
    first = keeper.adopt(server.issue())
    gate, opener = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(opener)
            os.read(gate, 1)
            keeper.renew(first)
        except ReauthRequired:
            code = 0
        finally:
            os._exit(code)
    second = keeper.renew(first)
    # The record and the hash of the first refresh token are lost; only the parent remembers them.
    shutil.rmtree(Path(target[3]).parent)
    os.write(opener, b"!")
    assert os.waitpid(child, 0)[1] == 0
    for end in (gate, opener):
        os.close(end)
    assert server.stats.reuse_detections == 0
    assert keeper.renew(second)
    assert server.stats.token_requests == 2


@pytest.mark.timeout(240)  # as many processes as fit into one run, on a machine that is busy
def test_children_forked_while_threads_import_do_not_hang(server, tmp_path):
    grant = RefreshToken(server.token_url, client_id="client", client_secret="secret")
    expired = {**server.issue(), "expires_at": time.time() - 1}
    TokenKeeper(grant, FileStore(tmp_path / "expired")).adopt(expired)
    program = Path(__file__).parents[1] / "preforking.py"
    command = [sys.executable, program, server.api_url, server.token_url, tmp_path, "30"]
    done = subprocess.run(command, capture_output=True, text=True)
    well, forked = done.stdout.split(" of ")
    assert int(well) == int(forked) > 0, done.stderr
    assert server.stats.reuse_detections == 0


WAITS = """
import sys
from tokenadapter import FileStore, RefreshToken, TokenKeeper
from tokenadapter.core.runtime import Runtime

class Telling(Runtime):
    def sleep(self, seconds):
        print("waits", flush=True)
        super().sleep(seconds)

token_url, path = sys.argv[1:]
grant = RefreshToken(token_url, client_id="client", client_secret="secret")
keeper = TokenKeeper(grant, FileStore(path), runtime=Telling())
keeper.current()
dear = {"dataclasses", "filelock", "inspect"}
dear |= {"tokenadapter.core.worker", "tokenadapter.core.renewal"}
print(keeper.stats["Waited"], sorted(dear & set(sys.modules)))
"""


def test_a_process_that_waits_for_another_imports_nothing_for_renewals(server, target):
    keeper = new_adapter(target).keeper
    keeper.adopt({**server.issue(), "expires_at": time.time() - 1})
    with (
        FileStore(target[3]).reserve(),
        subprocess.Popen(
            [sys.executable, "-c", WAITS, target[1], target[3]], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout.readline() == "waits\n"
        keeper.adopt(server.issue())
        lines = process.stdout.read().splitlines()
    assert lines[-1] == "1 []"


KILLED = """
import os, sys
from tokenadapter import FileStore, RefreshToken, TokenKeeper
token_url, first, path = sys.argv[1:]
TokenKeeper(
    RefreshToken(token_url, first, client_id="client", client_secret="secret"), FileStore(path)
).current()
"""


def killed_in_mid_renewal(target: Target, arrived: Callable[[], object]) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, *target[1:]])
    arrived()
    process.kill()
    process.wait()


def test_a_process_killed_before_the_rotation_costs_nothing(server, target, session):
    server.fail_next(hang=True)
    killed_in_mid_renewal(target, lambda: server.wait_for(lambda stats: stats.token_requests))
    new_adapter(target).mount(session)
    assert session.get(target[0] + "x").ok
    assert server.stats.reuse_detections == 0


def test_a_process_killed_after_the_rotation_requires_a_login(server, target, session):
    # The answer died with its process, and this server has no grace period.
    with server.hold(processed=True) as hold:
        killed_in_mid_renewal(target, lambda: hold.arrived.wait(30))
    new_adapter(target).mount(session)
    with pytest.raises(ReauthRequired) as info:
        session.get(target[0] + "x")
    assert info.value.reason == "uncertain_rotation"
    assert server.stats.token_requests == 2
    new_adapter(target).keeper.adopt(server.issue())
    assert session.get(target[0] + "x").ok


INTERRUPTED = """
import signal, sys, threading
from tokenadapter import FileStore, RefreshToken, TokenKeeper
token_url, first, path = sys.argv[1:]
keeper = TokenKeeper(
    RefreshToken(token_url, first, client_id="client", client_secret="secret"), FileStore(path)
)
try:
    keeper.current()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_does_not_lose_a_token_that_is_being_obtained(server, target):
    command = [sys.executable, "-c", INTERRUPTED, *target[1:]]
    with server.hold(processed=True) as hold:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with process:
            assert hold.arrived.wait(30)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            said = process.stdout.readline()
            hold.release()
    assert said == "interrupted\n"
    assert process.returncode == 0
    with requests.Session() as session:
        new_adapter(target).mount(session)
        assert session.get(target[0] + "x").ok
    assert server.stats.token_requests == 1


def test_a_cron_script_with_a_stored_token_reads_one_file_and_takes_no_lock(target, server):
    new_adapter(target).keeper.current()
    lock = Path(target[3] + ".lock")
    lock.unlink()
    script = """
import sys
import requests
early = set(sys.modules)
from tokenadapter import FileStore, RefreshToken, TokenAdapter
api, token_url, first, path = sys.argv[1:]
source = RefreshToken(token_url, first, client_id="client", client_secret="secret")
adapter = TokenAdapter(api, source, store=FileStore(path))
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
adapter.keeper.current()
assert opened.count(path) == 1, opened
assert not [name for name in opened if str(name).endswith(".lock")], opened
late = {"dataclasses", "inspect", "filelock", "cachetools", "tokenadapter.events"}
assert not late & (set(sys.modules) - early), late & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, *target], check=True)
    assert not lock.exists()
    assert server.stats.token_requests == 1
