"""The refresh token grant."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from tokenadapter import ApiUser, Password, ReauthRequired, RefreshToken, Token
from tokenadapter.protocols import Credential
from tokenadapter.testing import TokenServer

URL = "https://id.example/token"


def presented(secret: str, *, first: bool) -> Credential:
    return Credential("refresh_token", secret, single_use=True, first=first, refusal_is_final=True)


STORED = presented("stored", first=False)
FIRST = presented("first", first=True)


def source(url: str, refresh_token: str | None = None) -> RefreshToken:
    return RefreshToken(url, refresh_token, client_id="client", client_secret="secret")


@pytest.mark.parametrize(
    ("grace", "timeout"), [(None, 10.0), (0.0, 10.0), (30.0, 10.0), (10.0, 4.5), (5.0, 2.0)]
)
def test_the_usual_timeout_leaves_time_for_a_repetition_within_the_grace(
    grace: float | None, timeout: float
) -> None:
    made = RefreshToken(URL, grace=grace, client_id="client")
    assert (made.deadline, made.grace) == (timeout, grace or 0.0)
    assert RefreshToken(URL, grace=grace, client_id="client", timeout=3.0).deadline == 3.0
    password = Password(URL, "user", "password", grace=grace or 0.0, client_id="client")
    assert password.deadline == timeout


@pytest.mark.parametrize("grace", [-5.0, math.nan, "30", True])
def test_a_grace_that_is_no_time_is_refused(grace: Any) -> None:
    for make in (
        partial(RefreshToken, URL, client_id="client"),
        partial(Password, URL, "user", "password", client_id="client"),
        partial(ApiUser, "https://api.example.com/"),
    ):
        with pytest.raises(ValueError, match=f"grace must be a number of seconds, .* {grace!r}"):
            make(grace=grace)


def test_the_usual_timeout_knows_the_grace_of_the_provider() -> None:
    assert RefreshToken(provider="atlassian", client_id="client").grace == 600
    made = RefreshToken(provider="atlassian", grace=9.0, client_id="client")
    assert (made.deadline, made.grace) == (4.0, 9.0)


@pytest.mark.parametrize(
    ("stored", "configured", "expected"),
    [
        (None, None, []),
        (None, "first", [FIRST]),
        ("stored", None, [STORED]),
        ("stored", "first", [STORED, FIRST]),
        # The stored refresh token is still the configured one, which begins the grant.
        ("first", "first", [FIRST]),
    ],
)
def test_the_stored_refresh_token_is_presented_before_the_configured_one(
    stored: str | None, configured: str | None, expected: list[Credential]
) -> None:
    previous = Token("a", refresh_token=stored)
    assert source(URL, configured).credentials(previous) == expected
    if stored is None:
        assert source(URL, configured).credentials(None) == expected


def test_a_chain_of_refreshes_presents_each_refresh_token_once(server: TokenServer) -> None:
    first = server.issue()["refresh_token"]
    grant = source(server.token_url, first)
    second = grant()
    third = grant(second)
    presented = [request.form["refresh_token"] for request in server.requests]
    assert presented == [first, second.refresh_token]
    assert third.refresh_token not in presented
    assert server.stats.reuse_detections == 0


def test_the_form_has_the_refresh_token_and_a_scope_only_if_configured(server: TokenServer) -> None:
    source(server.token_url, server.issue()["refresh_token"])()
    (request,) = server.requests
    assert request.form.keys() == {"grant_type", "refresh_token"}
    assert request.form["grant_type"] == "refresh_token"


def test_an_answer_without_a_refresh_token_is_returned_as_it_is() -> None:
    with TokenServer(rotate=False) as server:
        assert source(server.token_url, server.issue()["refresh_token"])().refresh_token is None


def test_a_revoked_refresh_token_requires_a_new_login(server: TokenServer) -> None:
    first = server.issue()["refresh_token"]
    server.revoke_all()
    with pytest.raises(ReauthRequired, match=r"refused the refresh token.*adopt") as caught:
        source(server.token_url, first)()
    assert caught.value.reason == caught.value.error == "invalid_grant"


def test_the_owner_names_the_account() -> None:
    grant = RefreshToken(URL, client_id="client", account="ada", grace=30)
    assert grant.owner == {
        "grant": "refresh_token",
        "endpoint": URL,
        "client": "client",
        "user": "ada",
    }
    assert grant.grace == 30
    assert "user" not in source(URL).owner


@pytest.mark.parametrize("wrong", ["", 1, "def\n"])
def test_a_refresh_token_is_a_text(wrong: str) -> None:
    with pytest.raises((TypeError, ValueError), match="refresh_token"):
        source(URL, wrong)
