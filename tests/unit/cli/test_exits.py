"""Usage, and exit codes."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

import tokenadapter
from tokenadapter.cli.main import COMMANDS, parser_of
from tokenadapter.testing import TokenServer

from .conftest import Command, spawn
from .test_tokens import outlive


def test_help_lists_the_commands_and_the_exit_codes(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for name, summary in COMMANDS.items():
        assert f"  {name:12}{summary}\n" in out
    assert "exit codes:\n  0    success\n" in out
    code, _, err = command()
    assert (code, err) == (2, out)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_text(name: str, command: Command) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.startswith(f"usage: tokenadapter {name} ")
    assert COMMANDS[name][1:] in out


def test_the_version(command: Command) -> None:
    assert command("--version") == (0, f"tokenadapter {tokenadapter.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["haeder"], "unknown command 'haeder'. Did you mean 'header'? See `tokenadapter --help`."),
        (["sync"], "unknown command 'sync'. See `tokenadapter --help`."),
        (["--colour"], "unknown option '--colour'. Options of a command come after the command."),
        (["header"], "the following arguments are required: NAME"),
        (["header", "a", "b"], "unrecognized arguments: b"),
        (["header", "a", "--config", ""], "argument --config: the path is empty"),
        (["header", "a", "--jsn"], "unrecognized arguments: --jsn"),
        (["run", "--proflie", "a", "script.py"], "unrecognized arguments: --proflie"),
        (["run"], "the program to run is missing: put it at the end of the line"),
        (["exec", "a", "--"], "the program to run is missing"),
        (["exec", "a"], "the program to run is missing"),
        (["exec"], "the following arguments are required: NAME"),
        (
            ["exec", "a", "--fd", "1", "--", "b"],
            "invalid file descriptor '1': give one from 3 to 255",
        ),
        (
            ["exec", "a", "--env", "A=B", "--", "b"],
            "'A=B' cannot be the name of an environment variable",
        ),
        (["exec", "a", "--env", "", "--", "b"], "'' cannot be the name of an environment variable"),
        (["exec", "a", "--fd", "3", "--env", "A", "--", "b"], "not allowed with argument"),
        (["completion", "fish"], "invalid choice: 'fish'"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(arguments: list[str], said: str, command: Command) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_wrong_configuration_is_3(command: Command, profile: Path, place: Path) -> None:
    code, out, err = command("header", "biling")
    assert (code, out) == (3, "")
    assert err.startswith(f"tokenadapter: {profile}: There is no profile 'biling'. Did you mean")
    assert command("header", "billing", "--config", "gone.toml")[0] == 3
    profile.unlink()
    assert "The file does not exist, but TOKENADAPTER_CONFIG" in command("header", "billing")[2]


def test_a_client_that_is_refused_is_3_too(
    command: Command, place: Path, server: TokenServer
) -> None:
    write(place, billing(server, place).replace('"secret"', '"wrong-one"'))
    code, out, err = command("header", "billing")
    assert (code, out) == (3, "")
    assert "invalid_client" in err
    assert "wrong-one" not in err
    assert len(err.splitlines()) == 1
    assert err.count("invalid_client") == 1


def test_a_failure_is_reported_once_although_a_function_listens_to_events(
    command: Command, profile: Path, server: TokenServer
) -> None:
    listens = 'on_event = "builtins:repr"\n[billing.source]'
    profile.write_text(profile.read_text().replace("[billing.source]", listens))
    server.fail_next(503)
    code, _, err = spawn("header", "billing")
    assert code == 5
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "completion")])
def test_every_command_has_verbose_and_debug(name: str, command: Command) -> None:
    parser = parser_of(name)
    known = {option for action in parser._actions for option in action.option_strings}
    assert {"-v", "--verbose", "--debug"} <= known


def test_verbose_and_debug_show_what_happens(
    profile: Path, place: Path, server: TokenServer
) -> None:
    code, _, err = spawn("header", "billing", "--verbose")
    assert code == 0
    said = r"renewed: token [0-9a-f]{8} by client in .* s \[FileStore\('.*'\)\]"
    assert re.fullmatch(rf"tokenadapter: {said}\n", err)
    assert spawn("header", "billing", "-v")[2] == ""
    outlive(place)
    assert "tokenadapter: waited " in spawn("header", "billing", "--debug")[2]


def test_debug_shows_the_traceback_of_a_function(place: Path, server: TokenServer) -> None:
    (place / "lib").mkdir()
    (place / "lib" / "of_mine.py").write_text("def token(previous):\n    return 1 + ''\n")
    text = billing(server, place)
    start = text.index("[billing.source]")
    write(place, text[:start] + '[billing.source]\ncallable = "of_mine:token"\n')
    env = {"PYTHONPATH": str(place / "lib")}
    for flag in ([], ["--verbose"]):
        code, _, err = spawn("header", "billing", *flag, env=env)
        assert code == 3
        assert err.count("The token source has a bug") == 1
        assert "Traceback" not in err
    code, _, err = spawn("header", "billing", "--debug", env=env)
    assert code == 3
    assert re.search(r"^tokenadapter: the token source raised \[.*\]\nTraceback", err, re.MULTILINE)
    assert "    return 1 + ''" in err


def test_a_refused_grant_is_4_and_names_the_command_to_run(
    command: Command, rotating: TokenServer
) -> None:
    command("header", "billing")
    rotating.revoke_all()
    for _ in range(2):
        code, out, err = command("refresh", "billing")
        assert (code, out) == (4, "")
        assert "`tokenadapter adopt billing`" in err
        assert len(err.splitlines()) == 1


def test_an_outage_is_5(command: Command, profile: Path, server: TokenServer) -> None:
    server.fail_next(503, count=None)
    for _ in range(2):
        code, out, err = command("header", "billing")
        assert (code, out) == (5, "")
        assert "503" in err
        assert len(err.splitlines()) == 1
    assert server.stats.token_requests == 1


def test_a_store_that_cannot_be_used_is_6(command: Command, rotating: TokenServer) -> None:
    command("header", "billing")
    Path("state/token.json").chmod(0o644)
    code, out, err = command("header", "billing")
    assert (code, out) == (6, "")
    assert "run `chmod 600 " in err


def test_a_bug_is_a_traceback(
    command: Command, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.cli.header.named_profile", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("header", "billing")


def test_ctrl_c_is_130(command: Command, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenadapter.cli.header.named_profile", interrupted)
    assert command("header", "billing") == (130, "", "")


def test_a_reader_that_has_gone_gets_no_traceback(profile: Path) -> None:
    spawn("header", "billing")
    reader = subprocess.Popen(["true"])
    reader.wait()
    line = f"trap '' PIPE; ({sys.executable} -m tokenadapter status; echo $? >&2) | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"(141|0)\n", done.stderr), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("arguments", ["header billing", "status", "check --offline"])
def test_output_that_cannot_be_written_gets_no_traceback(arguments: str, profile: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = spawn(*arguments.split(), stdout=full)
    assert code == 1
    reason = os.strerror(errno.ENOSPC)
    said = f"Standard output cannot be written: {reason}. The stored token is kept."
    assert err == f"tokenadapter: {said}\n"


def test_streams_may_be_closed(profile: Path) -> None:
    command = f"{sys.executable} -m tokenadapter"
    for line, code in [
        (f"{command} header billing >&- 2>&-", 0),
        (f"{command} run -- -c 'raise SystemExit(7)' >&- 2>&-", 7),
        (f"{command} header nobody >&- 2>&-", 3),
    ]:
        assert subprocess.run(["sh", "-c", line], timeout=60).returncode == code


def test_characters_that_the_locale_lacks_are_escaped(profile: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii:strict"}
    code, out, err = spawn("run", "--help", env=ascii_only)
    assert (code, err) == (0, "")
    assert out.startswith("usage: tokenadapter run [--profile NAME]\\u2026 ")
    code, out, err = spawn("status", env=ascii_only)
    assert (code, err) == (0, "")
    assert "absent  \\u2013" in out


def test_no_command_line_contains_the_token(place: Path, profile: Path) -> None:
    """``ps`` shows the command line of the program that replaces ``exec``."""
    code, out, _ = spawn("exec", "billing", "--", "sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline")
    assert code == 0
    token = spawn("token", "billing")[1].strip()
    assert token
    assert token not in out


def test_the_command_runs_the_demo(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    monkeypatch.setattr(
        "tokenadapter.demo.show.show", lambda *given, **more: played.append((*given, more)) or 0
    )
    assert (
        command("demo")[0] == command("demo", "--quick", "--seconds=5", "--no-comparison")[0] == 0
    )
    assert played == [
        ((8, 10.0, 2.0), {"comparison": True}),
        ((4, 5.0, 1.0), {"comparison": False}),
    ]
