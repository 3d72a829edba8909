"""``login``: the first token of a profile, and the messages that lead to the command."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import Command, spawn, start

BROWSER = {"BROWSER": f"{sys.executable} -m tokenadapter.testing.browser %s"}


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
    assert "The stored token is kept. Run `tokenadapter login billing`." in err


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
    assert header.split()[:3] == ["NAME", "STATE", "ACCOUNT"]
    assert row.split()[:3] == ["billing", "fresh", "ada"]
    (state,) = json.loads(command("status", "--json")[1])
    assert state["account"] == "ada"


def test_status_has_no_column_for_accounts_that_nobody_has(profile: Path, command: Command) -> None:
    assert command("header", "billing")[0] == 0
    assert "ACCOUNT" not in command("status")[1]


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
    assert "run `tokenadapter logout billing --local`" in err
    assert command("token", "billing")[0] == 0
    code, _, err = command("logout", "billing", "--local")
    assert (code, "not revoked (--local)" in err) == (0, True)
    assert command("token", "billing")[0] == 4
