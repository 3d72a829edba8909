"""The grants: which requests get a token, and which are refused."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import pytest
import requests
from requests.auth import HTTPBasicAuth

from tokenadapter import Login, TokenAdapter
from tokenadapter.testing import TokenServer
from unit.testing.helpers import CLIENT, TIMEOUT, ask, call, refresh


def test_client_credentials_give_an_access_token_and_no_refresh_token(server: TokenServer) -> None:
    response = ask(server, grant_type="client_credentials", scope="a b")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    token = response.json()
    assert token == {
        "access_token": token["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "a b",
    }
    assert call(server, token).ok


def test_a_password_gives_a_refresh_token_too(server: TokenServer) -> None:
    response = ask(server, grant_type="password", username="user", password="password")
    assert call(server, response.json()).ok
    assert refresh(server, response.json()).ok


def test_the_secret_may_be_in_the_form(server: TokenServer) -> None:
    form = {"grant_type": "client_credentials", "client_id": "client"}
    assert ask(server, None, client_secret="secret", **form).ok
    assert ask(server, None, client_secret="wrong", **form).status_code == 401
    assert ask(server, None, **form).status_code == 401


@pytest.mark.parametrize("auth", [None, ("app", "")])
def test_a_client_without_a_secret_gives_its_name_alone(auth: tuple[str, str] | None) -> None:
    with TokenServer(clients={"app": None}) as server:
        assert ask(server, auth, grant_type="client_credentials", client_id="app").ok


def test_name_and_secret_are_form_encoded_in_basic() -> None:
    name, secret = "https://app:1/", "p+ss w%rd:ü"
    with TokenServer(clients={name: secret}) as server:
        encoded = HTTPBasicAuth(quote(name, safe=""), quote(secret, safe=""))
        assert ask(server, encoded, grant_type="client_credentials").ok
        plain = HTTPBasicAuth(name.encode(), secret.encode())
        assert ask(server, plain, grant_type="client_credentials").status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic " + base64.b64encode(b"client:wrong").decode(),
        "Basic " + base64.b64encode(b"nobody:secret").decode(),
        "Basic " + base64.b64encode(b"client").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic ???",
        "Bearer " + base64.b64encode(b"client:secret").decode(),
        "Basic",
    ],
)
def test_an_unknown_client_gets_invalid_client(server: TokenServer, authorization: str) -> None:
    response = requests.post(
        server.token_url,
        data={"grant_type": "client_credentials"},
        headers={"Authorization": authorization},
        timeout=TIMEOUT,
    )
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert server.stats.refusals == 1


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "secret"}, "invalid_request"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "user", "password": "no"}, "invalid_grant"),
        ({"grant_type": "password", "username": "no", "password": "password"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "no"}, "invalid_grant"),
    ],
)
def test_a_bad_request_gets_its_oauth_error(
    server: TokenServer, form: dict[str, str], error: str
) -> None:
    response = ask(server, CLIENT, **form)
    assert response.status_code == 400
    assert response.json()["error"] == error
    assert response.json()["error_description"]
    assert server.stats.refusals == 1
    assert server.stats.renewals == 0


def test_a_refresh_token_belongs_to_its_client() -> None:
    with TokenServer(clients={"one": "1", "two": "2"}) as server:
        token = server.issue(client="two")["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token}
        assert ask(server, ("one", "1"), **form).json()["error"] == "invalid_grant"
        assert ask(server, ("two", "2"), **form).ok


def test_a_refresh_may_narrow_the_scope_and_not_widen_it(server: TokenServer) -> None:
    token = server.issue(scope="read write")
    narrow = refresh(server, token, scope="read").json()
    assert narrow["scope"] == "read"
    assert refresh(server, narrow, scope="read admin").json()["error"] == "invalid_scope"
    assert refresh(server, narrow).json()["scope"] == "read write"
    assert refresh(server, server.issue(), scope="x").json()["error"] == "invalid_scope"


def test_the_token_endpoints_require_post(server: TokenServer) -> None:
    for url in (server.token_url, server.revocation_url):
        response = requests.get(url, timeout=TIMEOUT)
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "arguments",
    [
        {"json": {"username": "user", "password": "password"}},
        {"data": {"username": "user", "password": "password"}},
        {"auth": ("user", "password")},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_a_login_that_is_not_oauth_gives_only_an_access_token(
    server: TokenServer, arguments: dict[str, Any]
) -> None:
    response = requests.post(server.login_url, timeout=TIMEOUT, **arguments)
    assert response.status_code == 200
    token = response.json()
    assert token == {
        "access_token": token["access_token"],
        "token_type": "Bearer",
        "expires_in": 3600,
    }
    assert call(server, token).ok
    assert server.stats.token_requests == server.stats.renewals == 1
    assert server.stats.refreshes == 0


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (401, {"json": {"username": "user", "password": "no"}}),
        (401, {"data": {"username": "nobody", "password": "password"}}),
        (401, {"headers": {"Authorization": "Basic !"}}),
        (400, {"json": {"username": "user"}}),
        (400, {"json": ["user", "password"]}),
        (400, {"data": "{", "headers": {"Content-Type": "application/json"}}),
        (400, {}),
    ],
)
def test_a_login_with_wrong_credentials_is_refused(
    server: TokenServer, status: int, arguments: dict[str, Any]
) -> None:
    response = requests.post(server.login_url, timeout=TIMEOUT, **arguments)
    assert response.status_code == status
    assert response.json()["error"]
    assert server.stats.refusals == 1
    assert server.stats.renewals == 0


def test_a_login_serves_the_source_of_that_name(server: TokenServer) -> None:
    source = Login(server.login_url, json={"username": "user", "password": "password"})
    with requests.Session() as session:
        TokenAdapter(server.api_url, source).mount(session)
        for _ in range(2):
            assert session.get(server.api_url, timeout=TIMEOUT).ok
            server.expire_now()
    assert server.stats.renewals == 2


def test_a_login_can_be_made_to_fail(server: TokenServer) -> None:
    server.fail_next(429, endpoint="login")
    assert requests.post(server.login_url, timeout=TIMEOUT).status_code == 429
    assert server.stats.failures == 1


def test_the_json_of_a_login_is_not_parsed_as_a_form(server: TokenServer) -> None:
    requests.post(server.login_url, json={"password": "a=b"}, timeout=TIMEOUT)
    assert server.requests[0].form == {}
    assert server.requests[0].body == b'{"password": "a=b"}'


@pytest.mark.parametrize("issuer_path", ["", "/tenant"])
def test_each_url_of_the_server_is_an_issuer_with_metadata(
    server: TokenServer, issuer_path: str
) -> None:
    inserted = f"{server.issuer}/.well-known/oauth-authorization-server{issuer_path}"
    appended = f"{server.issuer}{issuer_path}/.well-known/openid-configuration"
    for url in (inserted, appended):
        metadata = requests.get(url, timeout=10).json()
        assert metadata["issuer"] == server.issuer + issuer_path
        assert metadata["token_endpoint"] == server.token_url
        assert metadata["revocation_endpoint"] == server.revocation_url


def test_a_test_changes_members_of_the_metadata(server: TokenServer) -> None:
    server.metadata["issuer"] = "https://elsewhere.example"
    server.metadata["revocation_endpoint"] = None
    url = f"{server.issuer}/.well-known/oauth-authorization-server"
    metadata = requests.get(url, timeout=10).json()
    assert metadata["issuer"] == "https://elsewhere.example"
    assert "revocation_endpoint" not in metadata
