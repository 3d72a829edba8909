"""``login``: the first token of a profile, and the messages that lead to the command."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import Browser, TokenServer

from .conftest import Command, spawn, start

BROWSER = {"BROWSER": f"{sys.executable} -m tokenadapter.testing.browser %s"}


@pytest.fixture(autouse=True)
def state(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory for the stores of profiles that name none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))


@pytest.fixture
def login_profile(server: TokenServer, place: Path) -> Path:
    """The profile ``billing`` of a user who has not logged in."""
    urls = (
        f'authorization_url = "{server.authorization_url}"\n'
        f'device_authorization_url = "{server.device_authorization_url}"\n'
        f'iss = "{server.url}"\n'
    )
    return write(place, billing(server, place, "refresh_token") + urls)


def test_a_login_in_the_browser_gives_the_first_token(
    login_profile: Path, server: TokenServer
) -> None:
    code, out, err = spawn("login", "billing", env=BROWSER)
    assert (code, out) == (0, "")
    assert err.endswith("tokenadapter: billing: logged in, valid for 59 min\n")
    assert spawn("token", "billing")[1].startswith("access-")
    assert server.stats.token_requests == 1


def test_an_error_names_the_command_that_logs_in(
    login_profile: Path, command: Command, server: TokenServer
) -> None:
    code, _, err = command("token", "billing")
    assert code == 4
    assert "`tokenadapter login billing`" in err
    assert spawn("login", "billing", env=BROWSER)[0] == 0
    server.revoke_all()
    code, _, err = command("refresh", "billing")
    assert code == 4
    assert "Nothing stored was lost. Run `tokenadapter login billing`." in err


def test_advice_names_a_configuration_file_that_the_command_would_not_find(
    login_profile: Path, command: Command, server: TokenServer, place: Path
) -> None:
    elsewhere = place / "prod things"
    elsewhere.mkdir()
    login_profile.rename(elsewhere / "tokens.toml")
    line = ["billing", "--config", "prod things/tokens.toml"]
    advice = f"`tokenadapter login billing --config '{elsewhere}/tokens.toml'`"
    assert advice in command("token", *line)[2]
    assert advice in command("check", "--offline", *line)[1]
    assert spawn("login", *line, env=BROWSER)[0] == 0
    server.revoke_all()
    assert advice in command("refresh", *line)[2]
    assert advice in command("status", *line)[1]


def test_advice_of_the_core_names_the_configuration_file_too(
    command: Command, rotating: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("header", "billing")
    path = place / "tokenadapter.toml"
    path.write_text(path.read_text().replace('client_id = "client"', 'client_id = "other"'))
    for found_by_itself in (True, False):
        if not found_by_itself:
            monkeypatch.delenv("TOKENADAPTER_CONFIG")
        option = "" if found_by_itself else f" --config {path}"
        for advice, *arguments in (
            ("check billing{}", "header", "billing"),
            ("forget billing{} --force", "check", "--offline"),
            ("forget billing{} --force", "status"),
        ):
            _, out, err = command(*arguments, "--config", "tokenadapter.toml")
            assert f"`tokenadapter {advice.format(option)}`" in out + err


@pytest.mark.parametrize("first", ["login", "adopt"])
def test_no_login_is_made_for_a_store_in_memory(
    first: str, login_profile: Path, server: TokenServer
) -> None:
    login_profile.write_text(re.sub("file:.*json", "memory:billing", login_profile.read_text()))
    code, out, err = spawn(first, "billing", env=BROWSER, stdin='{"access_token": "made-up"}')
    assert (code, out) == (3, "")
    assert "tokenadapter.toml, line 4: billing.store: The store of this profile is in memory" in err
    assert not server.requests


def test_check_names_the_command_that_logs_in(login_profile: Path, command: Command) -> None:
    code, out, err = command("check", "billing", "--offline")
    assert code == 1
    assert "Run `tokenadapter login billing`." in out + err


def test_a_device_login_shows_its_code(login_profile: Path, server: TokenServer) -> None:
    process = start("login", "billing", "--device")
    assert process.stderr is not None
    shown = ""
    while "Waiting for the approval" not in shown:
        shown += process.stderr.readline()
    server.approve_device()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "logged in" in err
    assert f"{server.url}/device" in shown


def test_ctrl_c_ends_a_login(login_profile: Path, server: TokenServer) -> None:
    process = start("login", "billing", "--device")
    assert process.stderr is not None
    while "Waiting for the approval" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")


def test_a_pasted_text_is_read_from_standard_input(
    login_profile: Path, server: TokenServer
) -> None:
    code, _, err = spawn("login", "billing", "--paste", stdin="made-up\n")
    assert code == 4
    assert "paste the whole address" in err
    assert "made-up" not in err
    address = f"http://127.0.0.1/?code=made-up&iss={server.url}"
    assert "its state differs" in spawn("login", "billing", "--paste", stdin=address)[2]


def test_a_profile_without_an_address_to_log_in_at_is_explained(
    rotating: TokenServer, command: Command
) -> None:
    code, _, err = command("login", "billing", "--browser")
    assert code == 3
    assert "authorization_url is missing: a login by browser needs it." in err


def test_a_source_without_a_user_is_explained(profile: Path, command: Command) -> None:
    with profile.open("a") as file:
        file.write('authorization_url = "https://id.example.com/authorize"\n')
    code, _, err = command("login", "billing")
    assert code == 3
    assert "authorization_url" in err


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://id.example.com/authorize"])
def test_an_address_that_must_not_be_opened_is_refused_when_the_profile_is_read(
    place: Path, server: TokenServer, command: Command, url: str
) -> None:
    text = billing(server, place, "refresh_token") + f'authorization_url = "{url}"\n'
    write(place, text)
    code, _, err = command("status", "billing")
    assert code != 0
    assert "billing.source" in err


def test_a_token_without_a_refresh_token_is_reported(
    login_profile: Path, server: TokenServer
) -> None:
    server.fail_next(200, body={"access_token": "a", "expires_in": 60})
    code, _, err = spawn("login", "billing", env=BROWSER)
    assert code == 0
    assert "without a refresh token: it cannot be renewed" in err


# --- whose login it is, and its end ----------------------------------------------------------


@pytest.fixture
def openid_profile(server: TokenServer, place: Path) -> Path:
    """The profile ``billing`` at an issuer whose logins have ID tokens."""
    text = billing(server, place, "refresh_token")
    text = text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"')
    return write(place, text + 'scope = "openid"\n')


def as_user(name: str) -> dict[str, str]:
    return {"BROWSER": f"{BROWSER['BROWSER']} {name}"}


def test_the_command_and_status_name_the_user(openid_profile: Path, command: Command) -> None:
    err = spawn("login", "billing", env=as_user("ada"))[2]
    assert err.endswith("tokenadapter: billing: logged in as ada, valid for 59 min\n")
    header, row = command("status")[1].splitlines()
    assert header.split()[:5] == ["NAME", "STATE", "LOGGED", "IN", "AS"]
    assert row.split()[:3] == ["billing", "usable", "ada"]
    (state,) = json.loads(command("status", "--json")[1])
    assert state["logged_in_as"] == "ada"


def test_status_has_no_column_for_users_who_logged_in_if_there_are_none(
    profile: Path, command: Command
) -> None:
    assert command("header", "billing")[0] == 0
    assert "LOGGED IN AS" not in command("status")[1]


def test_another_user_needs_the_option_switch(openid_profile: Path, command: Command) -> None:
    spawn("login", "billing", env=as_user("ada"))
    kept = command("token", "billing")
    code, _, err = spawn("login", "billing", env=as_user("bob"))
    assert code == 4
    assert "made as 'bob'" in err
    assert "`tokenadapter login billing --switch`" in err
    assert command("token", "billing") == kept
    assert spawn("login", "billing", "--switch", env=as_user("bob"))[0] == 0
    assert " bob " in command("status")[1]


def test_logout_revokes_and_forgets(
    openid_profile: Path, command: Command, server: TokenServer
) -> None:
    spawn("login", "billing", env=BROWSER)
    said = "tokenadapter: billing: logged out: revoked and forgotten\n"
    assert command("logout", "billing") == (0, "", said)
    assert [request.path for request in server.requests].count("/revoke") == 2
    assert command("token", "billing")[0] == 4
    said = "tokenadapter: billing: logged out: there was no token\n"
    assert command("logout", "billing") == (0, "", said)


def test_a_logout_that_the_server_does_not_carry_out_keeps_the_token(
    openid_profile: Path, command: Command, server: TokenServer
) -> None:
    spawn("login", "billing", env=BROWSER)
    server.fail_next(503, endpoint="revoke")
    code, _, err = command("logout", "billing")
    assert code == 5
    assert "use `tokenadapter logout billing --local`" in err
    assert command("token", "billing")[0] == 0
    code, _, err = command("logout", "billing", "--local")
    assert (code, "not revoked (--local)" in err) == (0, True)
    assert command("token", "billing")[0] == 4


# --- an API of which only the URL is known ---------------------------------------------------


def test_the_url_of_an_api_gives_a_login_and_a_profile(
    place: Path, server: TokenServer, command: Command
) -> None:
    path = place / "tokenadapter.toml"
    code, out, err = spawn("login", "--api", server.api_url, env=BROWSER)
    assert (code, out) == (0, ""), err
    assert err.endswith(
        f"tokenadapter: 127.0.0.1: added to {path}\n"
        "tokenadapter: 127.0.0.1: logged in, valid for 59 min\n"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == (
        f'["127.0.0.1"]\nprefix = "{server.api_url}"\n\n'
        f'["127.0.0.1".source]\ntype = "api_user"\nurl = "{server.api_url}"\n'
    )
    assert spawn("request", "127.0.0.1", f"{server.api_url}notes")[0] == 0
    # Again: the same profile, and the same client.
    code, _, err = spawn("login", "--api", server.api_url, env=BROWSER)
    assert (code, "added" in err) == (0, False)
    assert [request.path for request in server.requests].count("/register") == 1
    assert spawn("refresh", "127.0.0.1")[0] == 0
    assert command("check")[0] == 0
    assert spawn("logout", "127.0.0.1")[2].endswith("revoked and forgotten\n")


def test_an_api_that_requires_bound_tokens_needs_no_option(place: Path) -> None:
    with TokenServer(dpop=True, dpop_nonces=True) as server:
        code, _, err = spawn("login", "notes", "--api", server.api_url, env=BROWSER)
        assert code == 0, err
        assert "dpop" not in (place / "tokenadapter.toml").read_text()
        assert spawn("refresh", "notes")[0] == 0
        assert spawn("request", "notes", f"{server.api_url}notes")[0] == 0
        assert "Bound to the key" in spawn("status")[1]


def test_an_option_binds_the_tokens_for_an_api(
    place: Path, server: TokenServer, command: Command
) -> None:
    code, _, err = spawn("login", "notes", "--api", server.api_url, "--dpop", env=BROWSER)
    assert code == 0, err
    assert (place / "tokenadapter.toml").read_text().endswith("dpop = true\n")
    (proven,) = [each for each in server.requests if each.path == "/token"]
    assert "dpop" in proven.headers
    assert spawn("login", "notes", "--api", server.api_url, "--dpop", env=BROWSER)[0] == 0
    # A profile that binds no tokens is not changed.
    path = place / "tokenadapter.toml"
    bound = path.read_text()
    for line in ("", "dpop = false\n"):
        path.write_text(bound.replace("dpop = true\n", line))
        code, _, err = command("login", "notes", "--api", server.api_url, "--dpop")
        assert (code, "notes.source.dpop" in err, "Set dpop = true" in err) == (3, True, True)
    code, _, err = command("login", "notes", "--dpop")
    assert (code, "--dpop belongs to --api" in err) == (2, True)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_profile_is_added_to_those_that_are_there(
    profile: Path, server: TokenServer, command: Command, end: str
) -> None:
    before = profile.read_text().rstrip("\n") + end
    profile.write_text(before)
    assert spawn("login", "notes", "--api", server.api_url, env=BROWSER)[0] == 0
    assert profile.read_text().startswith(before)
    for name in ("notes", "billing"):
        assert command("token", name)[0] == 0
    assert command("check")[0] == 0


def test_the_profile_of_something_else_is_not_changed(
    profile: Path, server: TokenServer, command: Command
) -> None:
    before = profile.read_text()
    code, _, err = command("login", "billing", "--api", f"{server.api_url}?a&b")
    assert code == 3
    assert f"`tokenadapter login OTHER --api '{server.api_url}?a&b'`" in err
    assert profile.read_text() == before


def test_a_login_that_fails_adds_no_profile(
    place: Path, server: TokenServer, command: Command
) -> None:
    server.fail_next(404, endpoint="resource_metadata", count=None)
    code, _, err = command("login", "--api", server.api_url)
    assert code == 3
    assert "The metadata of http" in err
    assert not (place / "tokenadapter.toml").exists()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://api.example.com/", "clear text"),
        ("file:///etc/passwd", "https://"),
        ("api.example.com", "https://"),
        ('https://x"]\n[evil]', "notes.source"),
    ],
)
def test_an_invalid_api_url_is_refused(
    place: Path, command: Command, url: str, advice: str
) -> None:
    code, _, err = command("login", "notes", "--api", url)
    assert code == 3
    assert advice in err
    assert not (place / "tokenadapter.toml").exists()


@pytest.mark.parametrize("url", ["api.example.com", "access-token", "https://[x/", ""])
def test_an_api_without_a_name_needs_a_url_in_full(place: Path, command: Command, url: str) -> None:
    code, out, err = command("login", "--api", url)
    assert (code, out) == (3, "")
    assert err == (
        "tokenadapter: --api needs the URL of the API in full, such as "
        "https://mcp.example.com/mcp.\n"
    )
    assert not (place / "tokenadapter.toml").exists()


def test_a_login_needs_a_profile_or_an_api(profile: Path, command: Command) -> None:
    code, _, err = command("login")
    assert code == 2
    assert "Name a profile, or the URL of an API after --api." in err


def test_a_profile_that_cannot_be_added_is_shown(
    profile: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    from tokenadapter.cli import api_profile

    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(api_profile, "open", read_only, raising=False)
    monkeypatch.setattr("webbrowser.open", Browser())
    monkeypatch.setenv("DISPLAY", ":0")
    code, _, err = command("login", "notes", "--api", server.api_url)
    assert code == 3
    assert "The token is stored, but the profile cannot be added: Read-only file system" in err
    assert '["notes"]\nprefix = ' in err
