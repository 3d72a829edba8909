"""Client authentication, and the encoding that keeps odd identifiers and secrets apart."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter import ClientCredentials
from tokenadapter.sources.client_auth import authenticate
from tokenadapter.sources.oauth2 import checked_method
from tokenadapter.testing import TokenServer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ODD = {"client": "a:b%2F+é ~", "secret": "p:%+=& ü☃"}


@given(TEXTS, TEXTS)
def test_basic_can_be_read_back_whatever_is_in_it(client_id: str, secret: str) -> None:
    form: dict[str, str] = {}
    headers: dict[str, str] = {}
    authenticate("client_secret_basic", client_id, secret, form, headers)
    pair = b64decode(headers["Authorization"].removeprefix("Basic ")).decode("ascii")
    assert [unquote_plus(part) for part in pair.split(":")] == [client_id, secret]
    assert not form


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_odd_client_is_known_to_the_server(method: str) -> None:
    with TokenServer(clients={ODD["client"]: ODD["secret"]}) as server:
        source = ClientCredentials(
            server.token_url,
            client_id=ODD["client"],
            client_secret=ODD["secret"],
            client_auth=method,
        )
        assert source().access_token


def test_basic_puts_nothing_into_the_form(server: TokenServer) -> None:
    ClientCredentials(server.token_url, client_id="client", client_secret="secret")()
    (request,) = server.requests
    assert request.form == {"grant_type": "client_credentials"}
    assert request.headers["authorization"] == "Basic Y2xpZW50OnNlY3JldA=="


def test_post_puts_both_into_the_form(server: TokenServer) -> None:
    ClientCredentials(
        server.token_url,
        client_id="client",
        client_secret="secret",
        client_auth="client_secret_post",
    )()
    (request,) = server.requests
    assert request.form["client_id"] == "client"
    assert request.form["client_secret"] == "secret"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("method", ["none", "client_secret_basic"])
def test_client_without_a_secret_just_names_itself(method: str) -> None:
    with TokenServer(clients={"app": None}) as server:
        assert ClientCredentials(server.token_url, client_id="app", client_auth=method)()
        (request,) = server.requests
    assert request.form["client_id"] == "app"
    assert "client_secret" not in request.form
    assert "authorization" not in request.headers


def test_an_empty_secret_is_a_secret() -> None:
    form: dict[str, str] = {}
    headers: dict[str, str] = {}
    assert checked_method("client_secret_basic", "") == "client_secret_basic"
    authenticate("client_secret_basic", "app", "", form, headers)
    assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"app:"


@pytest.mark.parametrize(
    ("method", "secret", "message"),
    [
        ("basic", "secret", "client_secret_basic, client_secret_post, none, not 'basic'"),
        ("client_secret_post", None, "needs a client_secret"),
        ("none", "secret", "leave one of them out"),
    ],
)
def test_methods_that_cannot_be_are_refused_at_once(
    method: str, secret: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClientCredentials(
            "https://id.example/token", client_id="a", client_secret=secret, client_auth=method
        )
