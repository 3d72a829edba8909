"""The driver of a fleet: starts the clients, reads their reports, kills them and counts."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import requests

from .client import Page

HERE = Path(__file__).parent
# Seconds that a process may take to start or to end on a busy machine.
PATIENCE = 60


class Provider:
    """The authorization server's process."""

    def __init__(self, folder: Path, *, lifetime: float, grace: float) -> None:
        command = [sys.executable, HERE / "provider.py", folder, str(lifetime), str(grace)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the authorization server did not start"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=PATIENCE)

    def log_in(self) -> dict[str, Any]:
        """The token response to a new login."""
        return self._ask("login")

    def figures(self) -> Counter[str]:
        return Counter(self._ask("figures"))

    def _ask(self, path: str) -> dict[str, Any]:
        response = requests.get(f"{self.url}/{path}", timeout=PATIENCE)
        response.raise_for_status()
        return response.json()


class Line(NamedTuple):
    """A report of a client."""

    client: Client
    kind: str
    word: str


class Client(NamedTuple):
    """A client's process."""

    slot: int
    process: subprocess.Popen[bytes]


class Fleet:
    """Clients of one API that share one token.

    :param base: the URL below which API and token endpoint are.
    :param pause: the longest time between two requests of one client, in seconds.
    :param store: the URL of the store that they share; without one, a file in *folder*.
    :param lease: the lease of its locks in seconds; 0 for the default.
    :param apart: the seconds by which the clocks of two machines differ; each machine has one half
        of the clients.
    :param environment: environment variables that the store needs.
    """

    def __init__(
        self,
        base: str,
        folder: Path,
        size: int,
        *,
        pause: float,
        grace: float = 0.0,
        store: str | None = None,
        lease: float = 0.0,
        apart: float = 0.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.made_at = time.monotonic()
        self.size = size
        self.answers: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.longest = 0.0
        """The longest that a request took, in seconds."""
        self.kills = 0
        self.hits = 0
        """The number of kills of a client whose answer was at stake."""
        self.stalls: list[float] = []
        """The seconds from each kill of a renewing client to the next renewal."""
        self._stalled_since: float | None = None
        self._log_file = folder / "clients.log"
        self._log = self._log_file.open("w")
        page = folder / "page"
        self._page = Page.new(page, size)
        store = store or f"file:{folder / 'state' / 'token.json'}"
        self._arguments = [base, store, str(lease), str(grace), str(pause), str(page)]
        self._apart = apart
        self._environment = {**os.environ, **(environment or {})}
        self._reports, self._reporting = os.pipe()
        self._rest = b""
        self._clients: dict[int, Client] = {}

    # --- begin and end -------------------------------------------------------------------

    def __enter__(self) -> Self:
        for slot in range(self.size):
            self._start(slot)
        return self

    def __exit__(self, *error: object) -> None:
        for client in self:
            client.process.kill()
            self._forget(client)
        os.close(self._reports)
        os.close(self._reporting)
        self._page.close()
        self._log.close()

    def _start(self, slot: int) -> None:
        self._page.stake(slot, False)
        ahead = self._apart * (slot % 2)
        process = subprocess.Popen(
            [sys.executable, HERE / "client.py", *self._arguments, str(slot), str(ahead)],
            stdin=subprocess.PIPE,
            stdout=self._reporting,
            stderr=self._log,
            env=self._environment,
        )
        self._clients[process.pid] = Client(slot, process)

    def _forget(self, client: Client) -> None:
        client.process.communicate()
        del self._clients[client.process.pid]

    def end(self) -> None:
        """Let the clients end, and read their last reports."""
        self._page.arm(None)
        for client in self:
            assert client.process.stdin is not None
            client.process.stdin.close()
        deadline = time.monotonic() + PATIENCE
        while any(client.process.poll() is None for client in self):
            assert time.monotonic() < deadline, "a client does not end"
            self.hear(0.05)
        while self.hear(0):
            pass
        for client in self:
            assert client.process.returncode == 0, self.log()
            self._forget(client)

    # --- what the clients do -------------------------------------------------------------

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def adopt(self, response: dict[str, Any]) -> None:
        """Store a login for all clients."""
        done = subprocess.run(
            [sys.executable, HERE / "adopt.py", *self._arguments[:2]],
            input=json.dumps(response),
            text=True,
            stderr=subprocess.PIPE,
            # It imports the module beside it.
            env={**self._environment, "PYTHONSAFEPATH": ""},
        )
        assert done.returncode == 0, done.stderr

    def hear(self, seconds: float) -> list[Line]:
        """The new reports of the clients.  Waits for up to *seconds* if there are none."""
        if not select.select([self._reports], [], [], seconds)[0]:
            return []
        *whole, self._rest = (self._rest + os.read(self._reports, 65536)).split(b"\n")
        lines = []
        for text in whole:
            pid, kind, word, taken = text.decode().split()
            if kind == "answer":
                self.answers[word] += 1
                self.longest = max(self.longest, float(taken))
            elif kind == "event":
                self.events[word] += 1
                if word == "Renewed" and self._stalled_since is not None:
                    self.stalls.append(time.monotonic() - self._stalled_since)
                    self._stalled_since = None
            client = self._clients.get(int(pid))
            if client is not None:  # not one that was killed
                lines.append(Line(client, kind, word))
        return lines

    def wait_until_all_get(self, answer: str) -> None:
        """Wait until every client has got *answer* after this call."""
        missing = {client.slot for client in self}
        for line in self._all_lines():
            if (line.kind, line.word) == ("answer", answer):
                missing.discard(line.client.slot)
            if not missing:
                return

    def wait_until_a_client_renews(self) -> None:
        for line in self._all_lines():
            if (line.kind, line.word) == ("event", "Renewed"):
                return

    def wait_at(self, point: str) -> Client:
        """Stop the next client that reaches *point*."""
        self.arm(point)
        for line in self._all_lines():
            if line.kind == "point":
                self.arm(None)
                return line.client
        raise AssertionError

    def _all_lines(self) -> Iterator[Line]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            yield from self.hear(0.05)
        pytest.fail(f"timed out after {self.answers}, {self.events}\n{self.log()}")

    def log(self) -> str:
        """What the clients wrote to their standard error."""
        return self._log_file.read_text()

    @property
    def is_stalled(self) -> bool:
        """Whether a renewing client was killed and no client has renewed since."""
        return self._stalled_since is not None

    # --- killing them --------------------------------------------------------------------

    def arm(self, point: str | None) -> None:
        """Let the next client that reaches *point* report it, and wait."""
        self._page.arm(point)

    def replace(self, client: Client) -> None:
        """Kill a client by SIGKILL, and start another one."""
        assert client.process.poll() is None, f"a client ended unexpectedly\n{self.log()}"
        client.process.kill()
        client.process.wait()
        self.kills += 1
        self.hits += self._page.is_at_stake(client.slot)
        self._forget(client)
        self._start(client.slot)

    def replace_renewing(self, client: Client) -> None:
        """Kill a client that waits in the middle of a renewal, and start another one."""
        self.replace(client)
        self._stalled_since = time.monotonic()

    def replace_unless_at_stake(self, client: Client) -> None:
        """Kill a client and start another one, except between a token request and the save of its
        answer."""
        client.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(client.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"a client ended unexpectedly\n{self.log()}"
        if self._page.is_at_stake(client.slot):
            client.process.send_signal(signal.SIGCONT)
        else:
            self.replace(client)
