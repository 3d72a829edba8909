"""Programs that print tokens: their formats, their deadline, and nothing left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import Command, RefreshConfigError, RefreshTemporarilyFailed, TokenKeeper
from tokenadapter.sources import programs

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")


def printing(text: str, **options: Any) -> Command:
    return Command([sys.executable, "-c", "import sys; print(sys.argv[1])", text], **options)


END = int(time.time()) + 86_400
ISO = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(END))


@pytest.mark.parametrize(
    "said",
    [
        {"access_token": "t0ken", "expires_at": END},
        {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": "t0ken", "expirationTimestamp": ISO},
        },
        {"accessToken": "t0ken", "expiresOn": "2026-01-01 10:00:00.000000", "expires_on": END},
        {"credential": {"access_token": "t0ken", "token_expiry": ISO}},
        {"version": 1, "success": True, "id_token": "t0ken", "expiration_time": END},
        {"authorizationToken": "t0ken", "expiration": float(END)},
    ],
)
def test_known_formats_are_read(said: dict[str, Any]) -> None:
    token = printing(json.dumps(said))()
    assert token.access_token == "t0ken"
    assert token.expires_at == pytest.approx(END, abs=1)


def test_a_lifetime_counts_from_the_start_of_the_program() -> None:
    before = time.time()
    token = printing('{"access_token": "t0ken", "expires_in": 1800}', lifetime=60)()
    assert token.lifetime == 1800
    assert before <= token.issued_at <= time.time()


@pytest.mark.parametrize("text", ["t0ken", '"t0ken"', "\ufefft0ken\n"])
def test_a_token_may_stand_alone(text: str) -> None:
    token = TokenKeeper(printing(text, lifetime=60)).current()
    assert (token.access_token, token.lifetime) == ("t0ken", 60)
    assert printing(text)().expires_at is None


def test_other_fields_of_a_token_response_are_kept() -> None:
    said = {"access_token": "t0ken", "token_type": "DPoP", "scope": "a", "tenant": "t"}
    token = printing(json.dumps(said))()
    assert (token.token_type, token.scope, token.extras["tenant"]) == ("DPoP", "a", "t")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "something other than a token"),
        ("Please log in first", "something other than a token"),
        ("<html>", "something other than a token"),
        (
            '{"success": false, "message": "s3cret"}',
            "without a token in a known format: success, m",
        ),
    ],
)
def test_output_that_is_not_a_token_is_explained_without_being_shown(
    text: str, problem: str
) -> None:
    with pytest.raises(RefreshConfigError, match=f"{problem}.*Check what the command p") as caught:
        printing(text)()
    assert "s3cret" not in str(caught.value)


def test_output_that_is_not_text_is_explained() -> None:
    code = "import sys; sys.stdout.buffer.write(bytes([255]))"
    with pytest.raises(RefreshConfigError, match="something other than text"):
        Command([sys.executable, "-c", code])()


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    assert printing("$(touch${IFS}pwned)", directory=tmp_path)().access_token.startswith("$(")
    assert not list(tmp_path.iterdir())


def test_it_runs_in_the_directory_that_is_given(tmp_path: Path) -> None:
    code = "import os; print(os.path.basename(os.getcwd()))"
    source = Command([sys.executable, "-c", code], directory=tmp_path)
    assert source().access_token == tmp_path.name


def test_a_program_that_fails_is_tried_again_later() -> None:
    source = Command([sys.executable, "-c", "import sys; print('t0ken'); sys.exit(3)"])
    with pytest.raises(RefreshTemporarilyFailed, match="failed with exit code 3") as caught:
        source()
    assert caught.value.processed is False


def test_a_program_that_cannot_be_run_is_a_mistake(tmp_path: Path) -> None:
    for path in ("/no/such/program", tmp_path):
        with pytest.raises(RefreshConfigError, match=r"cannot be run: .*Check the comm") as caught:
            Command([str(path)])()
        assert caught.value.is_local


def test_a_program_that_prints_without_end_is_stopped() -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    with pytest.raises(RefreshTemporarilyFailed, match="printed more than 1 MiB"):
        Command([sys.executable, "-c", code])()


@posix
@pytest.mark.parametrize("closes", [False, True], ids=["pipe open", "pipe closed"])
def test_the_deadline_kills_all_that_the_program_started(tmp_path: Path, closes: bool) -> None:
    """Both are known to run: each holds one end of a FIFO, which ends when both are gone."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 9>{alive}; sleep 600 {'>&-' if closes else ''} & echo t0ken; "
    script += f"{'exec >&-; ' if closes else ''}sleep 600"
    with pytest.raises(RefreshTemporarilyFailed, match="did not finish within 1 s"):
        Command(["/bin/sh", "-c", script], timeout=1)()
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""
    os.close(reading)


@posix
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_cannot_be_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with the rights of another user, such as sudo."""

    def refused(group: int, _: int) -> None:
        groups.append(group)
        raise PermissionError

    groups: list[int] = []

    goes_on = tmp_path / "goes-on"
    os.mkfifo(goes_on)
    monkeypatch.setattr(os, "killpg", refused)
    with pytest.raises(RefreshTemporarilyFailed, match="did not finish within 1 s"):
        Command(["/bin/sh", "-c", f"read end < {goes_on}"], timeout=1)()
    goes_on.write_text("end\n")  # this waits for the program, which reads
    os.waitpid(groups[0], 0)


@posix
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        os.read(started, 1)
        raise KeyboardInterrupt

    alive = tmp_path / "alive"
    os.mkfifo(alive)
    started = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    # A writer of our own, so that the first read waits for the program.
    writer = os.open(alive, os.O_WRONLY)
    os.set_blocking(started, True)
    monkeypatch.setattr(programs, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        programs.output_of(["/bin/sh", "-c", f"exec 9>{alive}; echo >&9; sleep 600"], 60)
    os.close(writer)
    assert os.read(started, 1) == b""
    os.close(started)


def test_its_arguments_are_not_shown() -> None:
    source = Command(["/opt/bin/helper", "--password", "s3cret"], account="ada")
    shown = f"{source!r} {dict(source.owner)} {source.client_credential}"
    assert "s3cret" not in shown
    assert "helper" in repr(source)
    assert source.owner["user"] == "ada"
    assert source.owner["command"] != Command(["/opt/bin/helper", "other"]).owner["command"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("gcloud auth",), TypeError, "command must be a list of texts"),
        (([1],), TypeError, "command must be a list of texts"),
        (([],), ValueError, "command is empty"),
    ],
)
def test_a_mistaken_command_is_refused_at_once(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Command(*arguments)


@pytest.mark.parametrize("option", ["timeout", "lifetime"])
@pytest.mark.parametrize("seconds", [0, -1, float("inf")])
def test_a_mistaken_number_is_refused_at_once(option: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must be a number of seconds above 0"):
        printing("t", **{option: seconds})
