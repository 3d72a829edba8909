"""The programs on all hosts, and their authorization server."""

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
    """A report of a program."""

    host: str
    program: str
    word: str
    token: str


class Programs:
    """Programs on each host, which share a token.

    :param network: the hosts.
    :param store: the URL of the shared store.
    :param folder: the folder for certificates and the log of the programs.
    :param number: the number of programs on each host.
    :param lifetime: the lifetime of a token in seconds.
    :param lease: the lease of a lock in seconds.
    :param grace: the grace period of a refresh token in seconds.
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
        """The counts of the reports, by the name of the host."""
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
        self._reports, self._reporting = os.pipe()
        self._rest = b""

    def __enter__(self) -> Self:
        login = json.dumps(self.ask("issue")).encode()
        first, *_ = self._network.hosts
        adopting = self._start(first, "../chaos/adopt.py", self._arguments[0], self._arguments[2])
        adopting.communicate(login, PATIENCE)
        assert adopting.returncode == 0, self.log()
        for host in self._network.hosts * self._number:
            arguments = [*self._arguments, str(host.ahead)]
            program = self._start(host, "client.py", *arguments, stdout=self._reporting)
            self._programs.append(program)
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self._programs, self._provider]:
            process.communicate(timeout=PATIENCE)
        os.close(self._reports)
        os.close(self._reporting)

    def ask(self, command: str) -> Any:
        """Send a command to the server, and wait for its answer."""
        assert self._provider.stdin is not None
        self._provider.stdin.write(f"{command}\n".encode())
        self._provider.stdin.flush()
        return json.loads(self._answer())

    def wait_until_all_have_another_token(self) -> None:
        """Wait until each program on a living host has used a later token than all current ones."""
        old = {line.token for line in self._until_all_report(set())}
        for _ in self._until_all_report(old):
            pass

    def hear(self, seconds: float) -> None:
        """Read the reports of the programs for *seconds*."""
        for _ in self._all_lines(time.monotonic() + seconds):
            pass

    def log(self) -> str:
        """What the programs wrote to their standard error."""
        return self._log.read_text()

    def _until_all_report(self, old: set[str]) -> Iterator[Line]:
        """Reports until each program has reported a token that is not in *old*."""
        names = {host.name for host in self._network.hosts}
        reported = set[tuple[str, str]]()
        for line in self._all_lines(time.monotonic() + PATIENCE):
            if line.word == "200" and line.host in names and line.token not in old:
                reported.add(line[:2])
                yield line
            if len(reported) == len(names) * self._number:
                return
        raise AssertionError(f"timed out after {reported}, {dict(self.words)}\n{self.log()}")

    def _all_lines(self, end: float) -> Iterator[Line]:
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._reports], [], [], left)[0]:
                return
            *whole, self._rest = (self._rest + os.read(self._reports, 65536)).split(b"\n")
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
    """Create a certificate for the server's address.

    :returns: the file of the CA that issued it.
    """
    authority = trustme.CA()
    certificate = authority.issue_cert(ADDRESS)
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
