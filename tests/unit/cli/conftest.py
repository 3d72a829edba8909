"""A profile in the working directory, and ways to call the command."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter.cli.main import main
from tokenadapter.testing import TokenServer

Command = Callable[..., tuple[int, str, str]]

# How many processes start together; "tox -e chaos" has more of them.
CROWD = int(os.environ.get("CROWD", "8"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(tmp_path / "tokenadapter.toml"))
    return tmp_path


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Restore the log: ``--verbose`` expects a process of its own."""
    log = logging.getLogger("tokenadapter")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.fixture
def profile(server: TokenServer, place: Path) -> Path:
    """The profile ``billing``: client credentials at *server*."""
    return write(place, billing(server, place))


@pytest.fixture
def rotating(place: Path) -> Iterator[TokenServer]:
    """A server that rotates refresh tokens, and the profile ``billing`` with the first of them."""
    with TokenServer(rotate=True) as server:
        first = server.issue()["refresh_token"]
        text = f'refresh_token = "{first}"\nrevocation_url = "{server.revocation_url}"\n'
        write(place, billing(server, place, "refresh_token") + text)
        yield server


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, and returns exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def start(
    *arguments: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tokenadapter", *arguments],
        text=True,
        env={**os.environ, **(env or {})},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def spawn(*arguments: str, stdin: str | None = None, **options: Any) -> tuple[int, str, str]:
    """Run the command in a process of its own, to its end."""
    process = start(*arguments, stdin=subprocess.PIPE, **options)
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err
