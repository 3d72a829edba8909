"""No orderly exit of a worker makes a login necessary: real pools and servers exit while they
renew.

``ENDINGS`` is the number of exits of each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from unit.stores.servers import RedisServer, free_port

from tokenadapter import FileStore, ReauthRequired, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

ROUNDS = int(os.environ.get("ENDINGS", "1"))
NONE = f"0 of {ROUNDS}"
PATIENCE = 60  # seconds: for what happens at once, unless the test fails

pytestmark = pytest.mark.timeout(120 + 30 * ROUNDS)


class Stage(NamedTuple):
    """A login.  Its token is stale, so that the next request begins a renewal in the background."""

    folder: Path
    server: TokenServer
    keeper: TokenKeeper
    environment: dict[str, str]
    is_aimed: bool
    """Whether the API answers no sooner than the token endpoint has spent the refresh token: so
    what ends after a request ends while the token endpoint's answer is on its way."""

    def adopt(self, *, left: float) -> None:
        """Begin with a token that lives for so many more seconds."""
        now = time.time()
        answer = self.server.issue()
        self.keeper.adopt({**answer, "issued_at": now - 3400, "expires_at": now + left})

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A process, once it has sent a request and the API is about to answer."""
        with self.server.hold(endpoint="api") if self.is_aimed else nullcontext():
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if self.is_aimed:
                self.wait_until_spent()
        try:
            yield process
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()

    def wait_until_spent(self) -> None:
        """Wait until the token endpoint is about to answer."""
        self.server.wait_for(lambda stats: stats.refreshes > 0, PATIENCE)

    def is_lost(self) -> bool:
        """Whether a new login is necessary."""
        try:
            self.keeper.refresh()
        except ReauthRequired:
            return True
        return self.server.stats.reuse_detections > 0


@contextmanager
def a_login(folder: Path, is_aimed: bool) -> Iterator[Stage]:
    with TokenServer() as server:
        server.api_latency, server.latency = 0.0 if is_aimed else 0.03, 0.2
        source = RefreshToken(server.token_url, client_id="client", client_secret="secret")
        path = folder / "token.json"
        keeper = TokenKeeper(source, FileStore(path))
        environment = {
            **os.environ,
            "ENDINGS_API": server.api_url,
            "ENDINGS_TOKEN_URL": server.token_url,
            "ENDINGS_STORE": str(path),
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        stage = Stage(folder, server, keeper, environment, is_aimed)
        stage.adopt(left=200.0)
        yield stage


def lost(tmp_path: Path, end: Callable[[Stage], object], *, can_aim: bool = True) -> str:
    """How many of all logins *end* costs."""
    count = renewals = 0
    for number in range(ROUNDS):
        with a_login(tmp_path / str(number), can_aim and number % 2 == 0) as stage:
            end(stage)
            renewals += stage.server.stats.refreshes
            count += stage.is_lost()
    sys.stdout.write(f"{count} of {ROUNDS} lost, {renewals} renewals before the end\n")
    return f"{count} of {ROUNDS}"


def run(stage: Stage, *arguments: str) -> None:
    with stage.started("endings", *arguments) as process:
        pass
    assert process.returncode == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("program", ["pool", "executor"])
def test_pools_of_processes(tmp_path, program, method):
    assert lost(tmp_path, lambda stage: run(stage, program, method)) == NONE


def test_a_pool_forked_by_a_process_that_has_the_session(tmp_path):
    assert lost(tmp_path, lambda stage: run(stage, "pool_of_parent", "fork")) == NONE


def test_a_pool_whose_session_is_not_used_by_the_main_thread(tmp_path):
    end = lambda stage: run(stage, "pool_of_threads", "spawn")  # noqa: E731
    assert lost(tmp_path, end, can_aim=False) == NONE


@pytest.mark.parametrize("program", ["billiard_pool", "billiard_process"])
def test_billiard_without_celery(tmp_path, program):
    end = lambda stage: run(stage, program, "fork")  # noqa: E731
    assert lost(tmp_path, end, can_aim=program == "billiard_process") == NONE


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_script_that_a_signal_ends(tmp_path, name):
    def end(stage: Stage) -> None:
        with stage.started("endings", "script") as process:
            stage.wait_until_spent()
            process.send_signal(getattr(signal, name))
        assert process.returncode == -getattr(signal, name)

    assert lost(tmp_path, end) == NONE


def test_a_process_waits_before_it_calls_os_exit(tmp_path):
    assert lost(tmp_path, lambda stage: run(stage, "leave")) == NONE


# Children that nobody waits for


@pytest.mark.parametrize("program", ["fork", "forking_server"])
def test_a_child_that_leaves_when_its_request_has_returned(tmp_path, program):
    assert lost(tmp_path, lambda stage: run(stage, program)) == NONE


@pytest.mark.parametrize("worker", ["Worker", "SpawnWorker"])
@pytest.mark.parametrize(
    ("job", "left", "timeout"),
    [("fetch", 200.0, 60), ("fetch", 200.0, 1), ("expired", -1.0, 60), ("expired", -1.0, 1)],
    ids=["a stale token", "late, a stale token", "an expired token", "late, an expired token"],
)
def test_rq(tmp_path, worker, job, left, timeout):
    def end(stage: Stage) -> None:
        if timeout == 1:
            stage.server.latency = 2.0  # longer than the job may take, or its request
        stage.adopt(left=left)
        port = free_port()
        with RedisServer(port=port):
            stage.environment["ENDINGS_BROKER"] = f"redis://127.0.0.1:{port}/0"
            run(stage, "rq", worker, job, str(timeout))
        assert stage.server.stats.refreshes == 1

    assert lost(tmp_path, end, can_aim=False) == NONE


@pytest.mark.parametrize("client", ["requests", "httpx", "cancelled"])
@pytest.mark.parametrize("platform", ["AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE"])
def test_a_platform_that_freezes_a_function_when_it_has_answered(tmp_path, platform, client):
    def end(stage: Stage) -> None:
        stage.environment[platform] = "billing"
        stage.server.latency = 0.5
        run(stage, "frozen", client)
        assert stage.server.stats.refreshes == 1

    assert lost(tmp_path, end, can_aim=False) == NONE


def ask(port: int, path: str = "") -> None:
    """Send a request to a server as soon as it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = requests.get(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE)
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            assert answer.status_code == 200
            return


def serve(stage: Stage, *arguments: str, port: int) -> None:
    """End a server while it renews."""
    stage = stage._replace(is_aimed=False)
    with stage.started(*arguments) as process:
        ask(port)
        stage.wait_until_spent()
        process.terminate()


@pytest.mark.parametrize("options", ["", "--preload", "--threads 2"])
def test_gunicorn(tmp_path, options):
    def end(stage: Stage) -> None:
        port = free_port()
        command = ["gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", *options.split()]
        serve(stage, *command, "endings:wsgi", port=port)

    assert lost(tmp_path, end) == NONE


@pytest.mark.parametrize("options", ["--workers 1", "--workers 2"])
def test_uvicorn(tmp_path, options):
    def end(stage: Stage) -> None:
        port = free_port()
        command = ["uvicorn", "endings:asgi", "--port", str(port), *options.split()]
        serve(stage, *command, port=port)

    assert lost(tmp_path, end) == NONE


def test_uvicorn_started_by_a_program_that_has_the_session(tmp_path):
    def end(stage: Stage) -> None:
        port = free_port()
        serve(stage, "endings", "uvicorn_of_program", str(port), port=port)

    assert lost(tmp_path, end) == NONE


def test_uvicorn_answers_requests_from_before_its_termination_with_a_new_token(tmp_path):
    with a_login(tmp_path, is_aimed=False) as stage:
        stage.adopt(left=-1.0)
        port = free_port()
        with (
            ThreadPoolExecutor(1) as pool,
            stage.started("uvicorn", "endings:asgi", "--port", str(port)) as process,
        ):
            answer = pool.submit(ask, port, "late")
            while process.stdout.readline() != "late\n":
                pass
            process.terminate()
            answer.result()
    assert stage.server.stats.refreshes == 1


@pytest.mark.parametrize(
    "options",
    ["-P prefork", "-P prefork --max-tasks-per-child 1", "-P threads", "-P solo"],
    ids=["prefork", "a task per child", "threads", "solo"],
)
def test_celery(tmp_path, options):
    def end(stage: Stage) -> None:
        port = free_port()
        with RedisServer(port=port):
            stage.environment["ENDINGS_BROKER"] = f"redis://127.0.0.1:{port}/0"
            enqueue = "import endings; [endings.task.delay() for _ in range(4)]"
            subprocess.run(
                [sys.executable, "-c", enqueue],
                env=stage.environment,
                cwd=stage.folder,
                check=True,
            )
            command = ["-A", "endings", "worker", "--concurrency=2", "--without-gossip"]
            command += ["--without-mingle", "--without-heartbeat"]
            with stage.started("celery", *command, *options.split()) as process:
                if "child" in options and not stage.is_aimed:
                    stage.server.wait_for(lambda stats: stats.api_requests == 4, PATIENCE)
                else:
                    stage.wait_until_spent()
                process.terminate()

    assert lost(tmp_path, end) == NONE
