"""GitHub Apps: a signed JWT for the token of an installation."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tokenadapter import GitHubApp, Key, ReauthRequired, RefreshConfigError, TokenKeeper
from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import unb64
from tokenadapter.testing import TokenServer

KEY = Key.generate("RS256")


def app(server: TokenServer, key: Any = KEY, **options: Any) -> GitHubApp:
    # The test server has no such path; its token endpoint is made to answer as GitHub does.
    made = GitHubApp("Iv23li", key, 42, api_url=server.url, **options)
    made._endpoint.url = server.token_url
    return made


def test_the_path_is_that_of_the_installation() -> None:
    app = GitHubApp(12, KEY, 34, api_url="https://github.example/api/v3/")
    assert app.urls == ("https://github.example/api/v3/app/installations/34/access_tokens",)
    assert dict(app.owner) == {
        "grant": "github_app",
        "endpoint": app.urls[0],
        "client": "12",
        "user": "34",
    }
    assert GitHubApp(12, KEY, 34).urls[0].startswith("https://api.github.com/app/installations/")


def test_a_signed_jwt_brings_the_token_of_an_installation(server: TokenServer) -> None:
    end = int(time.time()) + 3600
    expires_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    server.fail_next(201, body={"token": "ghs_1", "expires_at": expires_at})
    source = app(server, permissions={"contents": "read"}, repositories=["b", "a"])
    token = TokenKeeper(source).current()
    assert token.access_token == "ghs_1"
    assert token.expires_at == pytest.approx(end, abs=2)
    (request,) = server.requests
    assert json.loads(request.body) == {
        "repositories": ["b", "a"],
        "permissions": {"contents": "read"},
    }
    assert request.headers["accept"] == "application/vnd.github+json"
    signed, _, signature = request.headers["authorization"].removeprefix("Bearer ").rpartition(".")
    assert algorithms.verifies(KEY.public_jwk, "RS256", signed.encode(), unb64(signature))
    claims = json.loads(unb64(signed.split(".")[1]))
    assert claims["iss"] == "Iv23li"
    assert claims["iat"] < time.time() < claims["exp"]
    assert claims["exp"] - claims["iat"] <= 600


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_names_what_to_check(server: TokenServer, status: int) -> None:
    server.fail_next(status, body={"message": "Not Found"})
    with pytest.raises(ReauthRequired, match=r"refused the app .*Check app_id, key and install"):
        app(server)()


def test_a_key_that_cannot_be_used_is_explained(server: TokenServer) -> None:
    with pytest.raises(RefreshConfigError, match=r"/no/key\.pem cannot be read.*Correct key"):
        app(server, "/no/key.pem")()
    assert not server.requests


def test_the_jwt_is_masked(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KEY, "jwt", lambda claims: "s1gned.by.the-app")
    server.fail_next(401, body={"message": "bad JWT s1gned.by.the-app"})
    with pytest.raises(ReauthRequired, match="repeats a secret"):
        app(server)()


@pytest.mark.parametrize("installation", ["", "4/../5", "a b"])
def test_an_installation_is_a_number(installation: str) -> None:
    with pytest.raises(ValueError, match="installation"):
        GitHubApp(1, KEY, installation)
