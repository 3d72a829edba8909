"""Client authentication, and the encoding that keeps odd identifiers and secrets apart."""

from __future__ import annotations

import pickle
from base64 import b64decode
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter import ClientCredentials, RefreshConfigError, RefreshToken, Token
from tokenadapter.protocols import ClientAuth
from tokenadapter.sources import oauth2_client
from tokenadapter.sources.client_auth import (
    BY_NAME,
    ClientSecretBasic,
    ClientSecretPost,
    PublicClient,
)
from tokenadapter.testing import TokenServer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ODD = {"client": "a:b%2F+é ~", "secret": "p:%+=& ü☃"}
URL = "https://id.example/token"


class Assertion:
    """An authentication of the program's own."""

    credential = "key-1"

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        form["client_assertion"] = assertion = f"s1gned.for.{client_id}"
        headers["X-Endpoint"] = url
        return [assertion]


def added(auth: ClientAuth, client_id: str = "app") -> tuple[Any, Any, set[str]]:
    """What *auth* adds to the form and to the headers, and what of that is secret."""
    form: dict[str, Any] = {}
    headers: dict[str, str] = {}
    secrets = auth.authenticate(client_id, URL, form, headers)
    return form, headers, set(secrets)


# What each adds


@given(TEXTS, TEXTS)
def test_basic_can_be_decoded_whatever_the_identifier_and_the_secret_contain(
    client_id: str, secret: str
) -> None:
    form, headers, secrets = added(ClientSecretBasic(secret), client_id)
    encoded = headers["Authorization"].removeprefix("Basic ")
    pair = b64decode(encoded).decode("ascii")
    assert [unquote_plus(part) for part in pair.split(":")] == [client_id, secret]
    assert form == {}
    assert secrets == {secret, encoded}


def test_basic_sends_an_empty_secret() -> None:
    _, headers, _ = added(ClientSecretBasic(""))
    assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"app:"


def test_post_adds_the_secret_to_the_form() -> None:
    form = {"client_id": "app", "client_secret": "s3cret"}
    assert added(ClientSecretPost("s3cret")) == (form, {}, {"s3cret"})


def test_a_public_client_sends_its_identifier_only() -> None:
    assert added(PublicClient()) == ({"client_id": "app"}, {}, set())


# At a server


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_server_recognises_an_odd_client(method: str) -> None:
    with TokenServer(clients={ODD["client"]: ODD["secret"]}) as server:
        source = ClientCredentials(
            server.token_url,
            client_id=ODD["client"],
            client_secret=ODD["secret"],
            client_auth=method,
        )
        assert source().access_token


def test_basic_adds_nothing_to_the_form(server: TokenServer) -> None:
    ClientCredentials(server.token_url, client_id="client", client_secret="secret")()
    (request,) = server.requests
    assert request.form == {"grant_type": "client_credentials"}
    assert request.headers["authorization"] == "Basic Y2xpZW50OnNlY3JldA=="


def test_post_sends_no_authorization_header(server: TokenServer) -> None:
    ClientCredentials(
        server.token_url,
        client_id="client",
        client_secret="secret",
        client_auth="client_secret_post",
    )()
    (request,) = server.requests
    assert request.form["client_secret"] == "secret"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("method", ["none", "client_secret_basic"])
def test_a_client_without_a_secret_sends_only_its_identifier(method: str) -> None:
    with TokenServer(clients={"app": None}) as server:
        assert ClientCredentials(server.token_url, client_id="app", client_auth=method)()
        (request,) = server.requests
    assert request.form["client_id"] == "app"
    assert "client_secret" not in request.form
    assert "authorization" not in request.headers


# An object of the program's own


def test_an_object_authenticates_every_request_of_its_client(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "abc"})
    server.fail_next(200, body={}, endpoint="revoke")
    source = RefreshToken(
        server.token_url,
        "r3fresh",
        client_id="app",
        client_auth=Assertion(),
        revocation_url=server.revocation_url,
    )
    source()
    source.revoke(Token("abc"))
    for request, url in zip(
        server.requests, [server.token_url, server.revocation_url], strict=True
    ):
        assert request.form["client_assertion"] == "s1gned.for.app"
        assert request.headers["x-endpoint"] == url
        assert "authorization" not in request.headers


def test_values_sent_by_a_client_authentication_are_masked_in_messages(server: TokenServer) -> None:
    body = {"error": "invalid_client", "error_description": "bad: s1gned.for.app"}
    server.fail_next(401, body=body)
    source = ClientCredentials(server.token_url, client_id="app", client_auth=Assertion())
    with pytest.raises(RefreshConfigError, match="repeats a secret"):
        source()


def test_a_single_secret_may_be_returned_as_a_text(server: TokenServer) -> None:
    class Single(Assertion):
        def authenticate(self, *request: Any) -> str:
            (secret,) = super().authenticate(*request)
            return secret

    body = {"error": "invalid_client", "error_description": "bad: s1gned.for.app"}
    server.fail_next(401, body=body)
    with pytest.raises(RefreshConfigError, match="repeats a secret"):
        ClientCredentials(server.token_url, client_id="app", client_auth=Single())()


def test_objects_with_other_credentials_are_other_clients() -> None:
    def credential(auth: ClientAuth) -> str:
        return ClientCredentials(URL, client_id="app", client_auth=auth).client_credential

    other = Assertion()
    other.credential = "key-2"
    assert credential(Assertion()) != credential(other)
    assert credential(ClientSecretBasic("s")) != credential(ClientSecretPost("s"))


def test_a_source_with_an_object_can_be_pickled() -> None:
    source = ClientCredentials(URL, client_id="app", client_auth=Assertion())
    assert pickle.loads(pickle.dumps(source)).client_credential == source.client_credential


# What is refused


def test_each_name_has_an_object() -> None:
    assert tuple(BY_NAME) == oauth2_client._NAMES


@pytest.mark.parametrize(
    ("method", "secret", "message"),
    [
        (
            "basic",
            "secret",
            "client_secret_jwt, none, tls_client_auth, self_signed_tls_client_auth, not",
        ),
        ("client_secret_post", None, "needs a client_secret"),
        ("none", "secret", "remove one of the two"),
        (Assertion(), "secret", "give it the client_secret, if it needs one"),
    ],
)
def test_a_method_that_does_not_fit_the_secret_is_refused_at_once(
    method: Any, secret: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClientCredentials(URL, client_id="a", client_secret=secret, client_auth=method)


class WithoutCredential:
    authenticate = Assertion.authenticate


@pytest.mark.parametrize("auth", [("app", "secret"), Assertion, WithoutCredential()])
def test_an_object_that_cannot_authenticate_is_refused_at_once(auth: Any) -> None:
    with pytest.raises(TypeError, match=r"client_auth must be one of .* method authenticate\(\)"):
        ClientCredentials(URL, client_id="app", client_auth=auth)
