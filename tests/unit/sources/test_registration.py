"""Dynamic client registration: what a server may answer, and what is refused."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest

from tokenadapter import ApiUser, RefreshConfigError, RefreshTemporarilyFailed, TokenError
from tokenadapter.testing import TokenServer


def refused(server: TokenServer, **options: Any) -> TokenError:
    """The error of a registration that failed, after which nothing else was sent."""
    with pytest.raises(TokenError) as caught:
        ApiUser(server.api_url, **options).for_login(None, "authorization_code", None)
    assert server.requests[-1].path != "/token"
    return caught.value


def test_a_server_that_registers_no_clients_is_explained(server: TokenServer) -> None:
    server.metadata["registration_endpoint"] = None
    error = refused(server)
    assert isinstance(error, RefreshConfigError)
    assert "registers no clients (RFC 7591)" in str(error)
    assert "pass its client_id" in str(error)


@pytest.mark.parametrize("methods", [None, [], ["plain"]])
def test_a_server_without_pkce_gets_no_client_without_a_secret(
    server: TokenServer, methods: list[str] | None
) -> None:
    server.metadata["code_challenge_methods_supported"] = methods
    assert "PKCE with S256" in str(refused(server))
    assert "/register" not in [request.path for request in server.requests]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ({"status": 400, "error": "invalid_redirect_uri"}, RefreshConfigError, "invalid_redirect"),
        ({"status": 401}, RefreshConfigError, "401"),
        ({"status": 403, "body": "<h1>No</h1>"}, RefreshConfigError, "403, HTML"),
        ({"status": 429}, RefreshTemporarilyFailed, "429"),
        ({"status": 503}, RefreshTemporarilyFailed, "503"),
        ({"reset": True}, RefreshTemporarilyFailed, "Try again later"),
        ({"redirect": "https://evil.example/"}, RefreshConfigError, "30"),
        ({"status": 200, "body": "[]"}, RefreshConfigError, "200"),
        ({"status": 201, "body": {}}, RefreshConfigError, "201"),
    ],
)
def test_a_registration_that_fails_is_explained(
    server: TokenServer, fault: dict[str, Any], kind: type[Exception], message: str
) -> None:
    server.fail_next(endpoint="register", **fault)
    error = refused(server)
    assert isinstance(error, kind)
    assert "did not register a client for this program" in str(error)
    assert message in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"client_id": 7},
        {"client_id": ""},
        {"client_id": "c\n"},
        {"client_id": "c" * 5000},
        {"client_id": "c", "client_secret": 7},
        {"client_id": "c", "client_secret": ""},
        {"client_id": "c", "token_endpoint_auth_method": "private_key_jwt"},
        {"client_id": "c", "token_endpoint_auth_method": ["none"]},
        {"client_id": "c", "token_endpoint_auth_method": "client_secret_post"},
    ],
)
def test_an_answer_without_a_usable_client_is_refused(
    server: TokenServer, body: dict[str, Any]
) -> None:
    server.fail_next(201, body=body, endpoint="register")
    assert isinstance(refused(server), RefreshConfigError)


@pytest.mark.parametrize(
    ("answer", "secret", "auth"),
    [
        ({}, None, "none"),
        ({"client_secret": "s"}, "s", "client_secret_basic"),
        ({"client_secret": "s", "token_endpoint_auth_method": "none"}, None, "none"),
        (
            {"client_secret": "s", "token_endpoint_auth_method": "client_secret_post"},
            "s",
            "client_secret_post",
        ),
        ({"client_secret": "s", "client_secret_expires_at": "soon"}, "s", "client_secret_basic"),
    ],
)
def test_the_server_decides_how_the_client_authenticates(
    server: TokenServer, answer: dict[str, Any], secret: str | None, auth: str
) -> None:
    body = {"client_id": "c", "registration_access_token": "not-kept", **answer}
    server.fail_next(201, body=body, endpoint="register")
    client = ApiUser(server.api_url).for_login(None, "authorization_code", None)._issued_to
    assert (client.client_id, client.client_secret, client.client_auth) == ("c", secret, auth)
    assert "not-kept" not in str(client._asdict())


def test_the_answer_does_not_change_where_a_login_ends(server: TokenServer) -> None:
    body = {"client_id": "c", "redirect_uris": ["https://evil.example/"]}
    server.fail_next(201, body=body, endpoint="register")
    source = ApiUser(server.api_url).for_login(None, "authorization_code", None)
    assert source.login_settings["redirect_uri"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("fault", [{"drip": 0.05}, {"hang": True}])
def test_an_answer_that_takes_too_long_is_not_used(
    server: TokenServer, fault: dict[str, Any]
) -> None:
    server.fail_next(endpoint="register", **fault)
    assert "took too long" in str(refused(server, timeout=0.5))


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_answer_of_any_size_is_bounded(server: TokenServer, is_packed: bool) -> None:
    size = 50 << 20 if is_packed else 10 << 20
    body = json.dumps({"client_id": "c", "padding": "x" * size}).encode()
    headers = {"Content-Encoding": "gzip"} if is_packed else None
    server.fail_next(
        201,
        body=gzip.compress(body) if is_packed else body,
        headers=headers,
        content_type="application/json",
        endpoint="register",
    )
    del body
    tracemalloc.start()
    try:
        assert "longer than 1 MiB" in str(refused(server))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
