"""``helper``: which URL gets a token, which token is renewed, and what a call costs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import Command, spawn, start
from .test_tokens import aged, outlive


def ask(server: TokenServer, *more: str, path: str = "") -> str:
    """What git writes for a URL of the API."""
    host = server.api_url.split("/")[2]
    lines = ["protocol=http", f"host={host}", f"path=api/{path}", *more]
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def write_to(monkeypatch: pytest.MonkeyPatch):
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8"))))

    return give


def test_a_program_gets_the_token_of_the_profile(
    command: Command, profile: Path, server: TokenServer, write_to
) -> None:
    write_to(ask(server))
    code, out, err = command("helper", "git", "billing", "get")
    assert (code, err) == (0, "")
    fields = dict(line.split("=", 1) for line in out.splitlines())
    assert fields["username"] == "oauth2"
    assert fields["password"] == command("token", "billing")[1].strip()
    # A little before its end, from when it would be renewed.
    end = json.loads(command("token", "billing", "--json")[1])["expires_at"]
    assert int(fields["password_expiry_utc"]) == int(end - 60)
    assert server.stats.renewals == 1


@pytest.mark.parametrize("path", ["../other", "x/../../other", "%2e%2e/other"])
def test_a_path_that_leaves_the_prefix_gets_no_token(
    path: str, command: Command, profile: Path, server: TokenServer, write_to
) -> None:
    asked = {"uri": f"{server.api_url}{path}"}
    write_to(json.dumps(asked))
    code, out, err = command("helper", "bazel", "billing", "get")
    assert (code, out) == (3, "")
    assert f"The URL is outside {server.api_url}" in err
    assert server.stats.token_requests == 0


def test_the_token_endpoint_gets_no_token(
    command: Command, place: Path, server: TokenServer, write_to
) -> None:
    write(place, billing(server, place).replace(server.api_url, server.url))
    write_to(json.dumps({"uri": server.token_url}))
    assert command("helper", "bazel", "billing", "get")[:2] == (3, "")


def test_a_valid_token_is_not_given_to_an_endpoint_of_its_source_either(
    command: Command, place: Path, server: TokenServer, write_to
) -> None:
    """Neither by the comparison that needs no requests."""
    text = billing(server, place)
    write(place, text)
    command("token", "billing")
    stored = place / "state" / "token.json"
    stored.write_text(stored.read_text().replace(server.token_url, "https://id.example.com/token"))
    text = text.replace(server.api_url, "https://id.example.com/")
    write(place, text.replace(server.token_url, "https://id.example.com/token"))
    for uri, expected in (("/token", 3), ("/token?x", 3), ("/tokens", 0), ("/other", 0)):
        write_to(json.dumps({"uri": f"https://id.example.com{uri}"}))
        assert command("helper", "bazel", "billing", "get")[0] == expected


def test_the_user_is_that_of_the_profile(
    command: Command, place: Path, server: TokenServer, write_to
) -> None:
    text = billing(server, place).replace("[billing.source]", 'username = "AWS"\n[billing.source]')
    write(place, text)
    write_to(server.api_url)
    code, out, _ = command("helper", "docker", "billing", "get")
    assert (code, json.loads(out)["Username"]) == (0, "AWS")


def test_only_the_token_that_was_refused_is_renewed(
    command: Command, profile: Path, server: TokenServer, place: Path, write_to
) -> None:
    first = command("token", "billing")[1].strip()
    aged(place, left=3000, lifetime=3600)
    for rejected, renewals in (("another", 1), (first, 2), (first, 2)):
        write_to(ask(server, f"password={rejected}"))
        assert command("helper", "git", "billing", "erase") == (0, "", "")
        assert server.stats.renewals == renewals
    write_to(ask(server, f"password={command('token', 'billing')[1].strip()}").replace("api", "x"))
    command("helper", "git", "billing", "erase")
    assert server.stats.renewals == 2


def test_a_token_that_is_refused_when_it_is_new_is_not_renewed(
    command: Command, profile: Path, server: TokenServer, write_to
) -> None:
    """As where the user has no access to a repository: each call would renew the token."""
    token = command("token", "billing")[1].strip()
    for _ in range(3):
        write_to(ask(server, f"password={token}"))
        assert command("helper", "git", "billing", "erase") == (0, "", "")
    assert server.stats.renewals == 1


def test_programs_that_ask_together_cost_one_renewal(rotating: TokenServer, place: Path) -> None:
    assert spawn("token", "billing")[0] == 0
    outlive(place)
    before = rotating.stats.renewals
    with rotating.hold(endpoint="token"):
        crowd = [start("helper", "git", "billing", "get", stdin=subprocess.PIPE) for _ in range(4)]
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write(ask(rotating))
            process.stdin.flush()
            process.stdin.close()
            process.stdin = None
        rotating.wait_for(lambda stats: stats.token_requests > before)
    said = [process.communicate(timeout=60) for process in crowd]
    assert {err for _, err in said} == {""}
    (answer,) = {out for out, _ in said}
    assert "password=" in answer
    assert rotating.stats.renewals == before + 1
    assert rotating.stats.reuse_detections == 0


def test_a_token_that_could_not_be_renewed_is_offered_to_its_end(
    command: Command, profile: Path, server: TokenServer, place: Path, write_to
) -> None:
    command("token", "billing")
    aged(place, left=50, lifetime=3600)
    server.fail_next(503)
    write_to(ask(server))
    code, out, err = command("helper", "git", "billing", "get")
    assert code == 0
    assert "renewal failed" in err
    end = float(out.rpartition("=")[2])
    assert time.time() < end <= time.time() + 50


def test_a_token_that_is_no_bearer_token_is_not_given_as_one(
    command: Command, profile: Path, server: TokenServer, write_to
) -> None:
    server.fail_next(200, body={"access_token": "made-up", "token_type": "DPoP"})
    write_to(ask(server))
    code, out, err = command("helper", "git", "billing", "get")
    assert (code, out) == (3, "")
    assert "must not be sent as a Bearer token" in err


def test_a_closed_standard_input_is_an_empty_one(command: Command, profile: Path) -> None:
    code, out, _ = spawn("helper", "bazel", "billing", "get", stdin="")
    assert (code, out) == (3, "")


def test_an_unknown_program_is_wrong_usage(command: Command, profile: Path) -> None:
    code, _, err = command("helper", "svn", "billing")
    assert code == 2
    assert "git" in err


ANSWERS = {
    "git": ("get",),
    "docker": ("get",),
    "bazel": ("get",),
    "kubectl": (),
    "google": (),
    "keyring": ("--mode=creds", "get", "https://git.example.com/"),
}


@pytest.mark.parametrize("program", ANSWERS)
@pytest.mark.parametrize("option", [("--config", "none.toml"), ("--config=none.toml",)])
def test_an_option_of_the_command_may_come_after_the_name_of_the_profile(
    program: str, option: tuple[str, ...], command: Command, profile: Path
) -> None:
    code, out, err = command("helper", program, "billing", *option, *ANSWERS[program])
    assert (code, out) == (3, "")
    assert "none.toml: The file does not exist." in err


@pytest.mark.parametrize("program", ["git", "docker", "bazel", "keyring"])
@pytest.mark.parametrize("word", ["--config=evil.toml", "-v", "--help", "--debug"])
def test_a_word_after_the_first_of_the_program_is_no_option_of_the_command(
    program: str, word: str, command: Command, profile: Path, server: TokenServer, write_to
) -> None:
    """pip appends the user of a URL, which may come from a repository that somebody else wrote."""
    evil = Path("evil.toml")
    evil.write_text(profile.read_text().replace(server.api_url, "https://git.example.com/"))
    write_to(json.dumps({"uri": "https://git.example.com/"}))
    code, out, err = command("helper", program, "billing", *ANSWERS[program], word)
    assert out == ""
    assert code in (1, 2, 3)
    assert "evil.toml: " not in err
    assert "tokenadapter helper" not in out
    assert server.stats.token_requests == 0


@pytest.mark.parametrize("user", ["--config=evil.toml", "-v", "-h", "--help"])
def test_an_option_as_the_user_of_an_index_gets_nothing(
    user: str, command: Command, profile: Path, server: TokenServer
) -> None:
    code, out, _ = command("helper", "keyring", "billing", "get", server.api_url, user)
    assert (code, out) == (2, "")
    assert server.stats.token_requests == 0


def test_the_words_of_the_program_may_follow_two_hyphens(
    command: Command, profile: Path, server: TokenServer
) -> None:
    token = command("token", "billing")[1]
    for words in (("--",), ("-v", "--config", str(profile)), ("-v", "--")):
        asked = ("get", server.api_url)
        assert command("helper", "keyring", "billing", *words, *asked)[:2] == (0, token)


@pytest.mark.parametrize("program", ANSWERS)
def test_what_neither_the_command_nor_the_program_means_is_wrong_usage(
    program: str, command: Command, profile: Path, server: TokenServer
) -> None:
    for wrong in (["--confg", "none.toml"], ["--confg=none.toml"]):
        assert command("helper", program, "billing", *wrong, *ANSWERS[program])[:2] == (2, "")
    assert server.stats.token_requests == 0


@pytest.mark.parametrize("words", [(), ("-x",), ("get", "more")])
def test_git_appends_one_word(words: tuple[str, ...], command: Command, profile: Path) -> None:
    code, out, err = command("helper", "git", "billing", *words)
    assert (code, out) == (2, "")
    assert (
        f"git appends one word to this command, but the command line ends with {' '.join(words)!r}"
        in err
    )


def test_a_call_for_a_valid_token_needs_no_requests_and_no_errors(
    place: Path, server: TokenServer
) -> None:
    """A prefix of https and a plain URL are compared without them."""
    text = billing(server, place)
    write(place, text)
    assert spawn("token", "billing")[0] == 0
    write(place, text.replace(server.api_url, "https://git.example.com/"))
    program = (
        "import sys; from tokenadapter.cli.main import main; "
        "code = main(['helper', 'git', 'billing', 'get']); "
        "print('requests' in sys.modules, 'tokenadapter.errors' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="protocol=https\nhost=git.example.com\npath=team/code.git\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "password=" in done.stdout
    assert done.stdout.endswith("\nFalse False\n")
