"""``status`` and ``check`` say in time that the server is about to end a login."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter import FileStore, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

from .conftest import Command

DAY = 86_400.0
ADVICE = "however often the token is renewed. Run `tokenadapter login billing` before that."


@pytest.fixture
def yearly(server: TokenServer, place: Path) -> Path:
    """The profile ``billing`` of a user whose logins last a year."""
    text = billing(server, place, "refresh_token")
    login = f'authorization_url = "{server.authorization_url}"\n'
    return write(place, f"{text}{login}login_lifetime = {365 * DAY:.0f}\n")


def logged_in(server: TokenServer, place: Path, days_ago: float) -> TokenKeeper:
    """A keeper whose user logged in so many days ago."""
    source = RefreshToken(server.token_url, client_id="client", client_secret="secret")
    keeper = TokenKeeper(source, FileStore(place / "state" / "token.json"))
    keeper.adopt(server.issue())
    keeper.refresh()
    path = place / "state" / "token.json"
    stored = json.loads(path.read_text())
    stored["document"]["begun"] -= days_ago * DAY
    path.write_text(json.dumps(stored))
    return keeper


def shown(command: Command) -> tuple[dict[str, Any], str, str]:
    """The state as JSON, and what ``status`` and ``check`` print."""
    (state,) = json.loads(command("status", "billing", "--json")[1])
    return state, command("status")[1], command("check", "billing", "--offline")[1]


def test_status_warns_before_a_login_expires(
    command: Command, yearly: Path, server: TokenServer, place: Path
) -> None:
    logged_in(server, place, days_ago=355)
    state, status, check = shown(command)
    assert state["login_at"] == pytest.approx(time.time() - 355 * DAY, abs=60)
    assert state["login_ends_at"] == pytest.approx(time.time() + 10 * DAY, abs=60)
    assert state["login_ends_in"] == pytest.approx(10 * DAY, abs=60)
    for text in (status, check):
        day = time.strftime("%Y-%m-%d", time.localtime(state["login_at"]))
        assert f"The login of {day} ends in 9 d 23 h (" in text
        assert ADVICE in text
    assert "note" in check


def test_a_renewal_does_not_put_the_end_off(
    command: Command, yearly: Path, server: TokenServer, place: Path
) -> None:
    logged_in(server, place, days_ago=355)
    assert command("refresh", "billing", "--force")[0] == 0
    assert ADVICE in shown(command)[1]


def test_a_new_login_puts_the_end_off(
    command: Command, yearly: Path, server: TokenServer, place: Path
) -> None:
    logged_in(server, place, days_ago=355).adopt(server.issue())
    state, status, check = shown(command)
    assert state["login_ends_in"] == pytest.approx(365 * DAY, abs=60)
    assert "The login of" not in status + check


@pytest.mark.parametrize(("days_ago", "is_near"), [(330, False), (336, True), (366, True)])
def test_status_warns_only_if_the_login_expires_soon(
    command: Command, yearly: Path, server: TokenServer, place: Path, days_ago: float, is_near: bool
) -> None:
    logged_in(server, place, days_ago)
    _, status, check = shown(command)
    assert (ADVICE in status, ADVICE in check) == (is_near, is_near)
    assert ("about now" in status) is (days_ago > 365)


def test_the_advice_for_a_profile_without_a_login_is_adopt(
    command: Command, server: TokenServer, place: Path
) -> None:
    write(place, f"{billing(server, place, 'refresh_token')}login_lifetime = {DAY:.0f}\n")
    logged_in(server, place, days_ago=0.99)
    assert "pass the token response to `tokenadapter adopt billing`." in shown(command)[1]


def test_a_login_without_a_known_end_has_none(
    command: Command, server: TokenServer, place: Path
) -> None:
    write(place, billing(server, place, "refresh_token"))
    logged_in(server, place, days_ago=1000)
    state, status, check = shown(command)
    assert state["login_at"] == pytest.approx(time.time() - 1000 * DAY, abs=60)
    assert state["login_ends_at"] is None
    assert "The login of" not in status + check


def test_the_provider_says_how_long_a_login_lasts(
    command: Command, server: TokenServer, place: Path
) -> None:
    text = billing(server, place, "refresh_token").replace(
        f'token_url = "{server.token_url}"', 'provider = "spotify"'
    )
    write(place, text)
    source = RefreshToken(provider="spotify", client_id="client", client_secret="secret")
    TokenKeeper(source, place / "state" / "token.json").adopt(server.issue())
    state, status, _ = shown(command)
    assert state["login_ends_in"] == pytest.approx(181 * DAY, abs=60)
    assert "The login of" not in status
