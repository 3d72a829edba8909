"""The programs on all hosts, and the server that they get their tokens from."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import trustme

from .network import ADDRESS, PATIENCE, Host, Network

HERE = Path(__file__).parent


class Line(NamedTuple):
    """What a program told."""

    host: str
    program: str
    word: str
    token: str


class Programs:
    """So many programs on each host, which share a token.

    :param network: the hosts.
    :param store: the URL of the store in which they share it.
    :param folder: where certificates and the programs' log are.
    :param number: how many programs each host runs.
    :param lifetime: how long a token lives, in seconds.
    :param lease: how long a lock of the store lasts, in seconds.
    :param grace: how long the server takes a refresh token once more, in seconds.
    """

    def __init__(
        self,
        network: Network,
        store: str,
        folder: Path,
        *,
        number: int,
        lifetime: float,
        lease: float,
        grace: float,
    ) -> None:
        self.words: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """What the programs of each host were answered, by its name."""
        self.lifetime = lifetime
        self._network = network
        self._number = number
        self._programs: list[subprocess.Popen[bytes]] = []
        self._log = folder / "log"
        ca_file = certify(folder)
        settings = [folder, str(lifetime), str(grace)]
        self._provider = self._start(network.server, "provider.py", *settings)
        base = self._answer()
        self._arguments = [base, ca_file, store, str(lease), str(grace)]
        self._lines, self._telling = os.pipe()
        self._rest = b""

    def __enter__(self) -> Self:
        login = json.dumps(self.ask("issue")).encode()
        first, *_ = self._network.hosts
        adopting = self._start(first, "../chaos/adopt.py", self._arguments[0], self._arguments[2])
        adopting.communicate(login, PATIENCE)
        assert adopting.returncode == 0, self.log()
        for host in self._network.hosts * self._number:
            arguments = [*self._arguments, str(host.ahead)]
            program = self._start(host, "client.py", *arguments, stdout=self._telling)
            self._programs.append(program)
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self._programs, self._provider]:
            process.communicate(timeout=PATIENCE)
        os.close(self._lines)
        os.close(self._telling)

    def ask(self, command: str) -> Any:
        """Give a command to the server, and wait for its answer."""
        assert self._provider.stdin is not None
        self._provider.stdin.write(f"{command}\n".encode())
        self._provider.stdin.flush()
        return json.loads(self._answer())

    def wait_until_all_have_another_token(self) -> None:
        """Wait until each program on a living host has used a token that no program has now."""
        old = {line.token for line in self._until_all_tell(set())}
        for _ in self._until_all_tell(old):
            pass

    def hear(self, seconds: float) -> None:
        """Hear the programs for so many *seconds*."""
        for _ in self._all_lines(time.monotonic() + seconds):
            pass

    def log(self) -> str:
        """What the programs wrote to their standard error."""
        return self._log.read_text()

    def _until_all_tell(self, old: set[str]) -> Iterator[Line]:
        """Lines until each program has told of a token that is not *old*."""
        names = {host.name for host in self._network.hosts}
        told = set[tuple[str, str]]()
        for line in self._all_lines(time.monotonic() + PATIENCE):
            if line.word == "200" and line.host in names and line.token not in old:
                told.add(line[:2])
                yield line
            if len(told) == len(names) * self._number:
                return
        raise AssertionError(f"not all get there: {told}, {dict(self.words)}\n{self.log()}")

    def _all_lines(self, end: float) -> Iterator[Line]:
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._lines], [], [], left)[0]:
                return
            *whole, self._rest = (self._rest + os.read(self._lines, 65536)).split(b"\n")
            for text in whole:
                line = Line(*text.decode().split())
                self.words[line.host][line.word] += 1
                yield line

    def _start(
        self, host: Host, script: str, *arguments: str | Path, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        with self._log.open("a") as log:
            return host.start(
                *(sys.executable, HERE / script, *arguments), stdout=stdout, stderr=log
            )

    def _answer(self) -> str:
        assert self._provider.stdout is not None
        answer = self._provider.stdout.readline().decode().strip()
        assert answer, self.log()
        return answer


def certify(folder: Path) -> Path:
    """Make a certificate for the server's address, and return the file of those to trust."""
    authority = trustme.CA()
    certificate = authority.issue_cert(ADDRESS)
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
