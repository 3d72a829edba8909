"""A login that is dead is called dead by each command, with its reason, and with exit code 4."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter import FileStore, ReauthRequired, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

from .conftest import spawn
from .test_login import BROWSER, as_user
from .test_tokens import aged

FETCH = """
import sys
import requests
requests.get(sys.argv[1])
"""
CATCH = """
import sys
import requests
try:
    requests.get(sys.argv[1])
except requests.RequestException as error:
    print(type(error).__name__)
"""


@pytest.fixture
def dead(rotating: TokenServer) -> TokenServer:
    """The server of ``billing``, whose token the API has refused since the grant was revoked."""
    assert spawn("header", "billing")[0] == 0
    rotating.revoke_all()
    assert spawn("request", "billing", rotating.api_url)[0] == 4
    return rotating


@pytest.fixture
def unrenewable(rotating: TokenServer) -> TokenServer:
    """The server of ``billing``, which has refused the refresh token.  The API accepts the access
    token."""
    assert spawn("header", "billing")[0] == 0
    rotating.fail_next(400, error="invalid_grant")
    assert spawn("refresh", "billing")[0] == 4
    return rotating


def the_state() -> dict[str, Any]:
    code, out, _ = spawn("status", "--json")
    assert code == 0
    (state,) = json.loads(out)
    return state


def the_problem() -> str:
    code, out, _ = spawn("check", "--offline", "--json")
    assert code == 1
    (problem,) = [found["text"] for found in json.loads(out) if found["level"] == "problem"]
    return problem


# --- the API has refused the token --------------------------------------------------------


def test_status_and_check_say_since_when_and_why(dead: TokenServer) -> None:
    state = the_state()
    assert state["state"] == "reauth_required"
    assert (state["reason"], state["renewable"]) == ("invalid_grant", False)
    assert state["since"] == pytest.approx(time.time(), abs=60)
    said = r"reauth_required since (\d{4}-\d\d-\d\d )?\d\d:\d\d \(invalid_grant\)"
    assert re.search(
        rf"^billing +reauth_required .*\n +{said}\.\n", spawn("status")[1], re.MULTILINE
    )
    assert re.match(rf"{said}: .* refused the refresh token", the_problem())


@pytest.mark.parametrize(
    "command",
    [
        ("header", "billing"),
        ("token", "billing"),
        ("exec", "billing", "true"),
        ("file", "billing", "the-token"),
        ("helper", "keyring", "billing", "get", "URL", "oauth2"),
        ("request", "billing", "URL"),
        ("refresh", "billing"),
        ("run", "fetch.py", "URL"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_hands_the_token_out(
    dead: TokenServer, place: Path, command: tuple[str, ...]
) -> None:
    (place / "fetch.py").write_text(FETCH)
    before, requests = dead.stats.token_requests, len(dead.requests)
    code, out, err = spawn(*(dead.api_url if word == "URL" else word for word in command))
    assert (code, out) == (4, "")
    assert re.fullmatch(r"tokenadapter: .* refused the refresh token .*\n", err)
    assert "`tokenadapter adopt billing`" in err
    assert "token.json" in err  # whose login it is
    assert dead.stats.token_requests == before
    assert len(dead.requests) == requests  # the API was not asked either
    assert not (place / "the-token").exists()


def test_another_process_learns_it_from_the_record(dead: TokenServer, place: Path) -> None:
    first = re.search('refresh_token = "(.*)"', (place / "tokenadapter.toml").read_text())
    assert first is not None
    source = RefreshToken(dead.token_url, first[1], client_id="client", client_secret="secret")
    keeper = TokenKeeper(source, FileStore(place / "state/token.json"))
    keeper.look()
    assert keeper.fresh() is None
    with pytest.raises(ReauthRequired) as caught:
        keeper.current()
    error, state = caught.value, keeper.state()
    assert state.state == "reauth_required"
    assert (
        (error.reason, error.since) == (state.reason, state.since) == ("invalid_grant", error.since)
    )
    assert error.store == repr(keeper.store)
    assert error.slot == str(place / "state/token.json")
    # This program has no command.
    assert "Log in with tokenadapter.login(), or in a web app" in str(error)
    assert "`" not in str(error)


def test_a_new_login_ends_it(dead: TokenServer) -> None:
    assert spawn("adopt", "billing", stdin=json.dumps(dead.issue()))[0] == 0
    assert the_state()["state"] == "usable"
    assert spawn("request", "billing", dead.api_url)[0] == 0


def test_force_tries_again(dead: TokenServer, place: Path) -> None:
    assert spawn("refresh", "billing", "--force")[0] == 4
    assert the_state()["state"] == "reauth_required"


# --- only the grant is dead ---------------------------------------------------------------


def test_a_token_that_cannot_be_renewed_is_usable_for_so_long(unrenewable: TokenServer) -> None:
    state = the_state()
    assert (state["state"], state["reason"]) == ("usable", "invalid_grant")
    assert (state["renewable"], state["expires_in"] > 3000) == (False, True)
    clock = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d"
    said = rf"usable until {clock}, cannot be renewed since {clock} \(invalid_grant\)"
    assert re.search(rf"^billing +usable .*\n +{said}\.\n", spawn("status")[1], re.MULTILINE)
    assert re.match(rf"{said}: .*`tokenadapter adopt billing`", the_problem())
    assert spawn("request", "billing", unrenewable.api_url)[0] == 0
    assert spawn("header", "billing")[0] == 0


def test_at_its_end_the_login_is_dead(unrenewable: TokenServer, place: Path) -> None:
    aged(place, left=5, lifetime=3600)
    assert the_state()["state"] == "usable"  # nobody waits for a renewal in vain
    aged(place, left=-1, lifetime=3600)
    assert the_state()["state"] == "reauth_required"
    assert spawn("header", "billing")[0] == 4


# --- a program that is run ----------------------------------------------------------------


def test_a_program_may_catch_the_error(dead: TokenServer, place: Path) -> None:
    (place / "catch.py").write_text(CATCH)
    assert spawn("run", "catch.py", dead.api_url) == (0, "ReauthRequired\n", "")


def test_with_debug_the_traceback_is_shown_too(dead: TokenServer, place: Path) -> None:
    (place / "fetch.py").write_text(FETCH)
    code, _, err = spawn("run", "--debug", "--", "fetch.py", dead.api_url)
    assert code == 4
    assert "Traceback (most recent call last)" in err


def test_errors_of_the_program_itself_are_as_without_us(dead: TokenServer, place: Path) -> None:
    (place / "bug.py").write_text("import requests\n1 / 0\n")
    code, _, err = spawn("run", "bug.py")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")


def test_an_outage_has_the_exit_code_of_an_outage(rotating: TokenServer, place: Path) -> None:
    (place / "fetch.py").write_text(FETCH)
    rotating.fail_next(503, count=9, retry_after="100")
    code, _, err = spawn("run", "fetch.py", rotating.api_url)
    assert code == 5
    assert err.count("\n") == 1


# --- after a logout ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("logout",), ("logout", "--local"), ("forget", "--force")])
def test_after_a_logout_no_file_lists_the_user(
    server: TokenServer, place: Path, command: tuple[str, ...]
) -> None:
    text = billing(server, place, "refresh_token")
    text = text.replace(f'token_url = "{server.token_url}"', f'issuer = "{server.issuer}"')
    path = write(place, text + 'scope = "openid"\naccount = "ada-of-accounting"\n')
    assert spawn("login", "billing", env=as_user("ada-lovelace"))[0] == 0
    assert spawn("refresh", "billing")[0] == 0
    spent = json.loads((place / "state/token.json").read_text())["document"]["spent"]
    assert b"ada-of-accounting" in b"".join(contents(place / "state"))
    (place / "state/token.json.spent").unlink()  # a cleaner took it
    name, *options = command
    assert spawn(name, "billing", *options)[0] == 0
    assert not re.search(b"ada-(lovelace|of-accounting)", b"".join(contents(place / "state")))
    # What was spent is still known, and the same user or another one can log in.
    assert set(spent) <= set(re.findall(r"\w{32}", (place / "state/token.json.spent").read_text()))
    assert spawn("status", "--json")[1].count('"absent"') == 1
    path.write_text(path.read_text().replace("ada-of-accounting", "bob"))
    assert spawn("login", "billing", env=BROWSER)[0] == 0
    assert spawn("token", "billing")[0] == 0


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
