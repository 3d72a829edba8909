"""The resource owner password credentials grant."""

from __future__ import annotations

from typing import Any

import pytest

from tokenadapter import Password, ReauthRequired, Token
from tokenadapter.testing import TokenServer

URL = "https://id.example/token"


def source(url: str, username: str = "user", password: str = "password") -> Password:
    return Password(url, username, password, client_id="client", client_secret="secret")


def test_after_the_password_the_refresh_token_is_presented(server: TokenServer) -> None:
    grant = source(server.token_url)
    first = grant()
    grant(first)
    login, refresh = (request.form for request in server.requests)
    assert login == {"grant_type": "password", "username": "user", "password": "password"}
    assert refresh == {"grant_type": "refresh_token", "refresh_token": first.refresh_token}


def test_the_password_is_presented_when_the_refresh_token_is_refused(server: TokenServer) -> None:
    grant = source(server.token_url)
    previous = grant()
    server.revoke_all()
    refresh, login = grant.credentials(previous)
    assert refresh.single_use
    assert not login.single_use
    assert not refresh.first
    # A refused refresh token stays refused, and retries of a wrong password lock accounts.
    assert refresh.refusal_is_final
    assert login.refusal_is_final
    with pytest.raises(ReauthRequired):
        grant.fetch(refresh, previous)
    assert grant.fetch(login, previous).access_token


def test_the_password_is_presented_if_there_is_no_refresh_token() -> None:
    grant = source(URL)
    assert grant.credentials(None) == grant.credentials(Token("a"))
    assert [credential.kind for credential in grant.credentials(None)] == ["password"]


def test_a_wrong_password_requires_a_new_login(server: TokenServer) -> None:
    with pytest.raises(ReauthRequired, match="refused the user's name or password") as caught:
        source(server.token_url, password="wrong")()
    assert "wrong" not in str(caught.value).replace("wrong password", "")


def test_a_changed_password_is_another_credential_than_the_refused_one() -> None:
    credentials = [
        source(URL, name, password).credentials(None)[0]
        for name, password in [("a", "bc"), ("ab", "c"), ("a", "d")]
    ]
    assert len(set(credentials)) == 3


def test_the_owner_names_the_user() -> None:
    assert source(URL).owner == {
        "grant": "password",
        "endpoint": URL,
        "client": "client",
        "user": "user",
    }


@pytest.mark.parametrize(
    "arguments", [{"username": None}, {"username": ""}, {"password": None}, {"password": "p\n"}]
)
def test_user_and_password_are_texts(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        source(URL, **arguments)
