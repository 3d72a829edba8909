"""Hosts in namespaces of their own, on a network without a gateway.

Each host has its own network, name, process numbers, boot id and monotonic clock.  The kernel has
only one wall clock: an argument of each program is the error of its clock.  All hosts share the
disk. One host is the server, and a cable connects each other host to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Self

# Seconds that any step may take on a busy machine.
PATIENCE = 90
# Addresses for documentation (RFC 5737), which no real host has.
_NETWORK = "192.0.2"
ADDRESS = f"{_NETWORK}.1"
"""The address of the server."""

_NAMESPACES = ("--net", "--uts", "--ipc", "--pid", "--mount", "--time")


def objection() -> str | None:
    """The reason why this machine cannot run several hosts; ``None`` if it can."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"this machine has no {' and no '.join(missing)}"
    if os.geteuid() != 0:
        return "only root may create namespaces"
    done = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
    )
    return None if done.returncode == 0 else f"namespaces are not permitted: {done.stderr.strip()}"


class Host:
    """One host; its end kills all its processes.

    :param folder: the folder for its boot id.
    :param number: its number; 1 is the server.
    :param ahead: the seconds by which its wall clock is fast.
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
            # Ends with its input, and ends the host.
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
        """Kill all its processes and remove its cable, as a loss of power does."""
        self._life.kill()
        self._life.communicate(timeout=PATIENCE)

    def within(self, *namespaces: str) -> list[str]:
        """A command prefix that runs a command in *namespaces* of this host, by default in all."""
        return ["nsenter", f"--target={self.pid}", *(namespaces or _NAMESPACES)]

    def start(self, *command: str | Path, **settings: Any) -> subprocess.Popen[bytes]:
        """Run a program on this host, with the import path of the tests.

        :param settings: arguments of :class:`subprocess.Popen`.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (*self.within(), *command)
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **settings)

    def run(self, *command: str) -> None:
        """Run a command on the network of this host, with the process numbers of this machine."""
        subprocess.run([*self.within("--net"), *command], check=True)


class Network:
    """The server, and hosts that are connected to it.

    :param folder: the folder for the boot ids.
    :param clocks: the error of the wall clock of each host in seconds.
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
        """Cut the cable of *host*: packets are lost silently."""
        self.server.run("ip", "link", "set", host.name, "down")

    def mend(self, host: Host) -> None:
        self.server.run("ip", "link", "set", host.name, "up")
        self.server.run("ip", "route", "add", f"{host.address}/32", "dev", host.name)

    def kill(self, host: Host) -> None:
        self.hosts.remove(host)
        host.kill()
