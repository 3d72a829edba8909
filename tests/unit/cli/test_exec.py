"""``exec``: runs any program with the token in its environment or on a descriptor."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tokenadapter import ProfileError
from tokenadapter.cli.exec import _offer
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.testing import TokenServer

from .conftest import spawn, start

pytestmark = pytest.mark.usefixtures("profile")


def token() -> str:
    return spawn("token", "billing")[1].strip()


def test_the_token_is_in_the_environment() -> None:
    code, out, err = spawn("exec", "billing", "--", "sh", "-c", 'echo "$ACCESS_TOKEN"; exit 7')
    assert (code, err) == (7, "")
    assert out.strip() == token()
    out = spawn("exec", "billing", "--env", "API_KEY", "--", "sh", "-c", 'echo "$API_KEY"')[1]
    assert out.strip() == token()


def test_the_token_is_on_a_descriptor_and_not_in_the_environment() -> None:
    for fd in ("3", "4", "9"):
        program = f"cat /dev/fd/{fd}; echo; env"
        code, out, err = spawn("exec", "billing", "--fd", fd, "--", "sh", "-c", program)
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == token()
        assert out.count(token()) == 1


def test_a_descriptor_never_has_half_a_token() -> None:
    with pytest.raises(
        ProfileError, match=r"too long for a pipe, which has room for \d+ bytes here: use --env"
    ):
        _offer("x" * 10_000_000, 9)


def test_the_arguments_are_left_as_they_are() -> None:
    arguments = ["--", "--env", "a b", "", "-x"]
    line = 'for a in "$@"; do echo "<$a>"; done'
    out = spawn("exec", "billing", "--", "sh", "-c", line, "sh", *arguments)[1]
    assert out.splitlines() == [f"<{argument}>" for argument in arguments]


@pytest.mark.parametrize("way", [[], ["--env", "API_KEY"], ["--fd", "3"]], ids=" ".join)
def test_the_program_gets_no_secret_that_obtains_the_token(
    way: list[str], profile: Path, server: TokenServer
) -> None:
    text = profile.read_text().replace('"secret"', '{ env = "SECRET_OF_MINE" }')
    store = re.search(r"store = (.*)", text)[1]  # type: ignore[index]
    profile.write_text(
        text.replace(f"store = {store}", 'store = { env = "STORE_OF_MINE" }')
        + '[billing.source.extra]\nstate = { env = "STATE_OF_MINE" }\n'
    )
    secrets = {
        "SECRET_OF_MINE": "secret",
        "STORE_OF_MINE": store.strip('"'),
        "STATE_OF_MINE": "state",
    }
    code, out, err = spawn("exec", "billing", *way, "--", "env", env={**secrets, "OTHER": "kept"})
    assert (code, err) == (0, "")
    names = {line.partition("=")[0] for line in out.splitlines()}
    assert not names & secrets.keys()
    assert {"OTHER", "PATH"} <= names


def test_the_token_may_be_in_a_variable_that_had_a_secret(profile: Path) -> None:
    profile.write_text(profile.read_text().replace('"secret"', '{ env = "KEY" }'))
    line = ["exec", "billing", "--env", "KEY", "--", "sh", "-c", 'echo "$KEY"']
    assert spawn(*line, env={"KEY": "secret"})[1].strip() == token()


def test_dashes_before_the_program_are_optional() -> None:
    for line in (
        ["exec", "billing", "--env", "KEY", "sh", "-c", 'echo "$KEY" "$@"', "--", "--env", "x"],
        ["exec", "--env=KEY", "billing", "sh", "-c", 'echo "$KEY" "$@"', "--", "--env", "x"],
    ):
        code, out, err = spawn(*line)
        assert (code, err) == (0, "")
        assert out == f"{token()} --env x\n"


def test_exec_replaces_the_process() -> None:
    process = start("exec", "billing", "--", "sh", "-c", "echo $$; read forever", stdin=-1)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_a_renewal_in_the_background_ends_first_and_the_program_gets_the_new_token(
    rotating: TokenServer, place: Path
) -> None:
    now = time.time()
    stale = {**rotating.issue(), "issued_at": now - 3400, "expires_at": now + 200}
    Profile(ConfigFile.read(), "billing").keeper().adopt(stale)
    with rotating.hold(processed=True) as hold:
        process = start("exec", "billing", "--", "sh", "-c", 'echo "$ACCESS_TOKEN"')
        assert hold.arrived.wait(60)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.strip() not in (stale["access_token"], "")
    assert out.strip() == token()
    assert rotating.stats.reuse_detections == 0


def test_a_program_that_cannot_be_run_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    code, out, err = spawn("exec", "billing", "--", "no-such-program")
    assert (code, out) == (127, "")
    assert err == "tokenadapter: there is no program no-such-program\n"
    (tmp_path / "data").write_text("not a program")
    code, _, err = spawn("exec", "billing", "--", str(tmp_path / "data"))
    assert code == 126
    assert err.endswith(f"data cannot be run: {os.strerror(13)}\n")


def test_the_error_for_a_script_names_a_missing_interpreter(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/gone/bin/python3\n")
    tool.chmod(0o755)
    code, _, err = spawn("exec", "billing", "--", str(tool))
    assert code == 126
    assert err.endswith(
        "tool cannot be run: the interpreter in its first line, after #!, does not exist\n"
    )
