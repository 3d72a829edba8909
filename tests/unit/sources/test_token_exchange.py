"""Token exchange: tokens that something else keeps, for those of another party."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    ClientCredentials,
    MemoryStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    TokenExchange,
    TokenKeeper,
)
from tokenadapter.testing import TokenServer

TYPE = "urn:ietf:params:oauth:token-type:"
CLIENT: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}


def keeper_of(server: TokenServer) -> TokenKeeper:
    return TokenKeeper(ClientCredentials(server.token_url, **CLIENT))


def test_the_token_of_another_keeper_is_exchanged(server: TokenServer) -> None:
    subject = keeper_of(server)
    exchange = TokenExchange(
        server.token_url, subject_token=subject, audience="orders", scope="read", **CLIENT
    )
    token = TokenKeeper(exchange, MemoryStore()).current()
    assert token.scope == "read"
    assert token.extras["issued_token_type"] == f"{TYPE}access_token"
    form = server.requests[-1].form
    assert form["subject_token"] == subject.current().access_token
    assert form["subject_token_type"] == f"{TYPE}access_token"
    assert (form["audience"], form["scope"]) == ("orders", "read")
    assert "actor_token" not in form


def test_an_actor_may_act_for_the_subject(server: TokenServer, tmp_path: Path) -> None:
    path = tmp_path / "subject"
    path.write_text(server.issue()["access_token"])
    actor = keeper_of(server)
    exchange = TokenExchange(
        server.token_url,
        subject_token=path,
        subject_token_type="jwt",
        actor_token=actor.current,
        actor_token_type="urn:example:badge",
        requested_token_type="jwt",
        **CLIENT,
    )
    assert exchange().access_token
    form = server.requests[-1].form
    assert form["actor_token"] == actor.current().access_token
    assert form["actor_token_type"] == "urn:example:badge"
    assert (form["subject_token_type"], form["requested_token_type"]) == (f"{TYPE}jwt",) * 2


def test_a_renewal_exchanges_the_token_of_that_moment(server: TokenServer) -> None:
    subject = keeper_of(server)
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    keeper.current()
    subject.renew(subject.current())
    keeper.renew(keeper.current())
    forms = [it.form for it in server.requests if "subject_token" in it.form]
    assert forms[0]["subject_token"] != forms[1]["subject_token"]


def test_some_servers_know_no_client(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "federated", "expires_in": 3600})
    assert TokenExchange(server.token_url, subject_token=lambda: "t0ken")().access_token
    assert set(server.requests[-1].form) == {"grant_type", "subject_token", "subject_token_type"}


def test_the_exchanged_tokens_are_masked(server: TokenServer) -> None:
    body = {"error": "invalid_request", "error_description": "bad s3cret-subject-t0ken"}
    server.fail_next(400, body=body)
    with pytest.raises(RefreshConfigError, match="repeats a secret"):
        TokenExchange(server.token_url, subject_token=lambda: "s3cret-subject-t0ken", **CLIENT)()


def test_a_subject_without_a_token_is_explained(server: TokenServer) -> None:
    subject = TokenKeeper(RefreshToken(server.token_url, **CLIENT))
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    with pytest.raises((ReauthRequired, RefreshConfigError), match="Correct subject_token"):
        keeper.current()
    assert not server.requests


def test_a_function_that_fails_keeps_its_traceback(server: TokenServer) -> None:
    def broken() -> str:
        raise KeyError("s3cret")

    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=broken, **CLIENT))
    with pytest.raises(Exception, match="subject_token raised KeyError") as caught:
        keeper.current()
    assert "s3cret" not in str(caught.value)


def test_an_account_tells_subjects_apart(server: TokenServer) -> None:
    exchange = TokenExchange(server.token_url, subject_token="token", account="ada", **CLIENT)
    assert exchange.owner["user"] == "ada"
