"""The programs in docs/howto/ that are separate files, run as real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from unit.stores.servers import RedisServer, free_port

from tokenadapter.testing import TokenServer

PAGES = Path(__file__).parents[2] / "docs" / "howto"


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"billing": "made-up"}) as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {**os.environ, "HOME": str(tmp_path), "BILLING_SECRET": "made-up"}
    ours.pop("PYTHONSAFEPATH", None)  # their modules are in the working directory
    return ours


@pytest.fixture
def written(tmp_path: Path, server: TokenServer) -> Callable[..., Path]:
    """Writes the block of a page that begins with the name of a file into that file."""

    def write(page: str, name: str, **others: str) -> Path:
        text = (PAGES / page).read_text(encoding="utf-8")
        block = re.search(rf"^```python\n# {name}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        assert block is not None
        code = block[1].replace("https://api.example.com/", server.api_url)
        code = code.replace("https://id.example.com/token", server.token_url)
        for old, new in others.items():
            assert old in code
            code = code.replace(old, new)
        path = tmp_path / name
        path.write_text(code)
        return path

    return write


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_pool_of_processes_obtains_one_token(server, written, environment, way):
    path = written("processes.md", "report.py")
    code = path.read_text()
    assert "multiprocessing.Pool(" in code
    path.write_text(code.replace("multiprocessing.", f"multiprocessing.get_context({way!r})."))
    done = subprocess.run(
        [sys.executable, path], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{[200] * 20}\n", "")
    assert server.stats.token_requests == 1


@pytest.mark.parametrize(
    ("options", "workers"),
    [("--preload -w 3", 3), ("-w 3", 3), ("-w 1 --threads 3", 1), ("-w 2 -k gevent", 2)],
    ids=["forked", "each its own", "threads", "greenlets"],
)
def test_the_workers_of_gunicorn_share_one_token(
    server, written, environment, options, workers, tmp_path
):
    written("servers.md", "shop.py")
    port = free_port()
    command = ["-m", "gunicorn", *options.split(), "-b", f"127.0.0.1:{port}", "shop:app"]
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        booted, lines = 0, []
        while booted < workers:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
            booted += "Booting worker" in lines[-1]
        url = f"http://127.0.0.1:{port}/invoices"
        with ThreadPoolExecutor(3) as pool:
            with server.hold(endpoint="api"):
                answers = [pool.submit(requests.get, url, timeout=30) for _ in range(3)]
                # Every worker or thread is sending its request now.
                server.wait_for(lambda stats: stats.api_requests == 3)
            assert [answer.result().status_code for answer in answers] == [200] * 3
        assert server.stats.token_requests == 1
        server.revoke_all()
        with server.outage():
            answer = requests.get(url, timeout=30)
        assert (answer.status_code, "invoices" in answer.text) == (503, True)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_workers_of_celery_share_one_token(server, written, environment, tmp_path):
    port = free_port()
    broker = f"redis://127.0.0.1:{port}/0"
    written("servers.md", "tasks.py", **{"redis://broker.example.com:6379/0": broker})
    enqueue = "from tasks import pay; [pay.delay(number) for number in range(8)]"
    worker = ["-m", "celery", "-A", "tasks", "worker", "--concurrency=2", "--without-gossip"]
    worker += ["--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    with RedisServer(port=port):
        subprocess.run(
            [sys.executable, "-c", enqueue], env=environment, cwd=tmp_path, check=True, timeout=60
        )
        # The first attempts fail, and are repeated after the backoff.
        server.fail_next(503, retry_after=1, count=1)
        with subprocess.Popen(
            [sys.executable, *worker],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            watchdog = threading.Timer(120, process.kill)
            watchdog.start()
            assert process.stdout is not None
            try:
                with server.hold(endpoint="api"):
                    # Both processes are sending their request now.
                    server.wait_for(lambda stats: stats.api_requests == 2, timeout=60)
                output = ""
                for line in process.stdout:
                    output += line
                    if output.count("succeeded in") == 8:
                        break
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate()
                watchdog.cancel()
                watchdog.join()
    assert "RefreshTemporarilyFailed" in output
    assert output.count("succeeded in") == 8
    paid = [request.path for request in server.requests if request.path.startswith("/api/")]
    assert sorted(paid) == [f"/api/invoices/{number}" for number in range(8)]
    assert server.stats.token_requests == 2
