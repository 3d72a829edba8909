"""Hosts in namespaces of their own, on a network that has no way out.

Each host has its own network, name, process numbers, boot id and monotonic clock.  The kernel has
no wall clock of a host's own: programs are told by how much theirs is wrong.  All hosts share the
disk.  One of them is the server, and each other one has a cable to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Self

# Seconds that anything may take on a machine that is busy.
PATIENCE = 90
# Addresses for documentation (RFC 5737): they are nobody's.
_NETWORK = "192.0.2"
ADDRESS = f"{_NETWORK}.1"
"""Of the server."""

_NAMESPACES = ("--net", "--uts", "--ipc", "--pid", "--mount", "--time")


def objection() -> str | None:
    """Why this machine cannot play several; ``None`` if it can."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"this machine has no {' and no '.join(missing)}"
    if os.geteuid() != 0:
        return "only root may make hosts"
    done = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
    )
    return None if done.returncode == 0 else f"namespaces are not permitted: {done.stderr.strip()}"


class Host:
    """One host; all its processes are killed when it is.

    :param folder: where its boot id is.
    :param number: which one it is: 1 is the server.
    :param ahead: by how many seconds its wall clock is wrong.
    """

    def __init__(self, folder: Path, number: int, ahead: float = 0.0) -> None:
        self.name = f"host{number}"
        self.address = f"{_NETWORK}.{number}"
        self.ahead = ahead
        boot_id = folder / f"{self.name}.boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        steps = [
            f"hostname {self.name}",
            f"mount --bind {boot_id} /proc/sys/kernel/random/boot_id",
            "ip link set lo up",
            "echo ready",
            # It ends with its input, and the host with it.
            "exec cat",
        ]
        uptime = str(number * 10_000)
        self._life = subprocess.Popen(
            [
                *("unshare", *_NAMESPACES, "--monotonic", uptime, "--boottime", uptime),
                *("--fork", "--kill-child", "--mount-proc", "sh", "-c", " && ".join(steps)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._life.stdout is not None
        if self._life.stdout.readline() != b"ready\n":
            self.kill()
            raise RuntimeError(f"{self.name} does not start")
        children = Path(f"/proc/{self._life.pid}/task/{self._life.pid}/children")
        self.pid = int(children.read_text())

    def kill(self) -> None:
        """End all its processes at once, as a loss of power does; its cable is gone, too."""
        self._life.kill()
        self._life.communicate(timeout=PATIENCE)

    def within(self, *namespaces: str) -> list[str]:
        """The command that runs another one there; in some *namespaces* only, if they are named."""
        return ["nsenter", f"--target={self.pid}", *(namespaces or _NAMESPACES)]

    def start(self, *command: str | Path, **settings: Any) -> subprocess.Popen[bytes]:
        """Run a program on this host, which knows the modules that the tests know.

        :param settings: those of :class:`subprocess.Popen`.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (*self.within(), *command)
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **settings)

    def run(self, *command: str) -> None:
        """Run a command on the network of this host, by process numbers as they are outside."""
        subprocess.run([*self.within("--net"), *command], check=True)


class Network:
    """The server, and hosts whose wall clocks are wrong by so many seconds, each at a cable.

    :param folder: where their boot ids are.
    """

    def __init__(self, folder: Path, clocks: list[float]) -> None:
        self.server = Host(folder, 1)
        self.hosts: list[Host] = []
        try:
            self.server.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
            for number, ahead in enumerate(clocks, 2):
                host = Host(folder, number, ahead)
                self.hosts.append(host)
                cable = ["name", host.name, "type", "veth", "peer", "name", "cable"]
                self.server.run("ip", "link", "add", *cable, "netns", str(host.pid))
                host.run("ip", "address", "add", f"{host.address}/32", "dev", "cable")
                self.mend(host)
                host.run("ip", "link", "set", "cable", "up")
                host.run("ip", "route", "add", f"{ADDRESS}/32", "dev", "cable")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for host in [*self.hosts, self.server]:
            host.kill()

    def cut(self, host: Host) -> None:
        """Let nothing through the cable of *host*: what is sent gets lost, without a word."""
        self.server.run("ip", "link", "set", host.name, "down")

    def mend(self, host: Host) -> None:
        self.server.run("ip", "link", "set", host.name, "up")
        self.server.run("ip", "route", "add", f"{host.address}/32", "dev", host.name)

    def kill(self, host: Host) -> None:
        self.hosts.remove(host)
        host.kill()
