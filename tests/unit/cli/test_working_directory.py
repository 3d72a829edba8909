"""Nothing in the working directory is used: it may be an untrusted repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import spawn

pytestmark = pytest.mark.skipif(os.name == "nt", reason="its programs are for a Unix shell")


@pytest.fixture
def repository(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a configuration that runs a program when a secret is needed."""
    (place / "home").mkdir()
    repository = place / "cloned"
    repository.mkdir()
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HOME", str(place / "home"))
    for name in ("TOKENADAPTER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return repository


def trap(directory: Path, name: str = "trap") -> Path:
    """A program in *directory* that leaves a file when it is run."""
    path = directory / name
    path.write_text(f"#!/bin/sh\ntouch {directory}/was-run\necho secret\n")
    path.chmod(0o755)
    return path


COMMANDS = {
    "header billing": 3,
    "token billing": 3,
    "status": 3,
    "check": 3,
    "refresh billing": 3,
    "forget billing": 3,
    "request billing http://127.0.0.1:1/": 3,
    "run -- -c pass": 3,
    "exec billing -- true": 3,
    "file billing token": 3,
    "helper git billing get": 3,
    "completion names": 3,
}


@pytest.mark.parametrize("line", COMMANDS)
def test_no_command_reads_a_configuration_from_it(
    line: str, repository: Path, server: TokenServer
) -> None:
    command = f'{{ command = ["{trap(repository)}"] }}'
    text = billing(server, repository).replace('"secret"', command)
    write(repository, text.replace('"client"', command))
    code, out, err = spawn(*line.split())
    assert (code, out) == (COMMANDS[line], "")
    assert "There is no configuration file" in err
    assert "The tokenadapter.toml in the working directory is not read, since somebody" in err
    assert not (repository / "was-run").exists()
    assert not server.requests


def test_a_session_reads_no_configuration_from_it(repository: Path, server: TokenServer) -> None:
    write(repository, billing(server, repository))
    program = "import tokenadapter; tokenadapter.session('billing')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no configuration file" in done.stderr


def users(repository: Path, text: str) -> Path:
    """The user's own configuration."""
    directory = repository.parent / "home" / ".config" / "tokenadapter"
    directory.mkdir(parents=True)
    return write(directory, text)


def test_a_configuration_in_it_is_read_if_named(repository: Path, server: TokenServer) -> None:
    write(repository, billing(server, repository))
    assert spawn("header", "billing", "--config", "tokenadapter.toml")[0] == 0
    assert spawn("header", "billing", env={"TOKENADAPTER_CONFIG": "tokenadapter.toml"})[0] == 0


def test_a_relative_program_is_not_run_from_it(repository: Path, server: TokenServer) -> None:
    trap(repository)
    text = billing(server, repository).replace('"secret"', '{ command = ["./trap"] }')
    path = users(repository, text)
    code, _, err = spawn("header", "billing")
    assert code == 3
    assert "./trap cannot be run" in err
    trap(path.parent)
    assert spawn("header", "billing")[0] == 0
    assert not (repository / "was-run").exists()
    assert (path.parent / "was-run").exists()


@pytest.mark.parametrize("line", ["status", "status billing", "check --offline"])
def test_status_and_check_run_no_program(line: str, repository: Path, server: TokenServer) -> None:
    text = billing(server, repository).replace('"secret"', '{ command = ["./trap"] }')
    path = users(repository, text)
    trap(path.parent)
    assert spawn(*line.split())[0] == 0
    assert not (path.parent / "was-run").exists()


@pytest.mark.parametrize("line", ["header billing", "check --offline"])
def test_no_function_is_imported_from_it(
    line: str, repository: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    (repository / "vault_of_mine.py").write_text(
        f"open({str(repository / 'was-run')!r}, 'w')\ndef token(previous):\n    return 'theirs'\n"
    )
    text = billing(server, repository)
    start = text.index("[billing.source]")
    users(repository, text[:start] + '[billing.source]\ncallable = "vault_of_mine:token"\n')
    code, out, err = spawn(*line.split())
    assert code == (1 if line.startswith("check") else 3)
    assert "There is no module 'vault_of_mine' here" in out + err
    assert "theirs" not in out
    assert not (repository / "was-run").exists()
    elsewhere = repository.parent / "lib"
    (repository / "vault_of_mine.py").rename(elsewhere.with_suffix(".py"))
    elsewhere.mkdir()
    elsewhere.with_suffix(".py").rename(elsewhere / "vault_of_mine.py")
    assert spawn(*line.split(), env={"PYTHONPATH": str(elsewhere)})[0] == 0
