"""Revocation (RFC 7009): what is sent, and what each answer means."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Password,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenKeeper,
    UnsafeTarget,
)
from tokenadapter.testing import TokenServer

BOTH = Token("the-access-token", refresh_token="the-refresh-token")


def source(server: TokenServer, **options: Any) -> RefreshToken:
    url = server.revocation_url
    settings = {"client_id": "client", "client_secret": "secret", "revocation_url": url, **options}
    return RefreshToken(server.token_url, **settings)


def revocations(server: TokenServer) -> list[tuple[str, str]]:
    return [
        (request.form["token_type_hint"], request.form["token"])
        for request in server.requests
        if request.path == "/revoke"
    ]


def test_the_refresh_token_is_revoked_before_the_access_token(server: TokenServer) -> None:
    source(server).revoke(BOTH)
    assert revocations(server) == [
        ("refresh_token", "the-refresh-token"),
        ("access_token", "the-access-token"),
    ]


def test_an_access_token_alone_is_revoked(server: TokenServer) -> None:
    grant = ClientCredentials(
        server.token_url,
        client_id="client",
        client_secret="secret",
        revocation_url=server.revocation_url,
    )
    token = grant()
    grant.revoke(token)
    assert revocations(server) == [("access_token", token.access_token)]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_the_client_authenticates_in_the_same_way_as_for_a_token(
    method: str, server: TokenServer
) -> None:
    source(server, client_auth=method).revoke(BOTH)
    for request in server.requests:
        if method == "client_secret_post":
            assert request.form["client_secret"] == "secret"
        else:
            basic = base64.b64encode(b"client:secret").decode()
            assert request.headers["authorization"] == f"Basic {basic}"


def test_revoking_without_a_revocation_url_raises() -> None:
    grant = Password("https://id.example/token", "ada", "p4ssword", client_id="app")
    assert not grant.revokes
    with pytest.raises(ValueError, match="revocation_url is not given"):
        grant.revoke(BOTH)


def test_the_revocation_url_is_one_of_the_sources_urls() -> None:
    """A request to it passes a mount on the same host untouched."""
    url = "https://api.example/revoke"
    grant = RefreshToken("https://api.example/token", client_id="app", revocation_url=url)
    assert grant.revokes
    assert grant.urls == ("https://api.example/token", url)


def test_a_revocation_url_with_plain_http_is_refused() -> None:
    with pytest.raises(UnsafeTarget, match=r"sent to http://id\.example/revoke in clear text"):
        RefreshToken(
            "https://id.example/token",
            client_id="app",
            revocation_url="http://id.example/revoke",
        )


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        ({"error": "invalid_client"}, RefreshConfigError, "invalid_client.*Check revocation_url"),
        ({"status": 404}, RefreshConfigError, "404"),
        ({"redirect": "https://elsewhere.example/"}, RefreshConfigError, "is not followed"),
        ({"status": 503}, RefreshTemporarilyFailed, "503.*Try again later"),
        ({"status": 429}, RefreshTemporarilyFailed, "429"),
        ({"reset": True}, RefreshTemporarilyFailed, "did not revoke the token"),
        ({"status": 400, "error": "unsupported_token_type"}, RefreshConfigError, "unsupported"),
    ],
)
def test_an_answer_other_than_success_raises(
    failure: dict[str, Any], kind: type[Exception], said: str, server: TokenServer
) -> None:
    server.fail_next(endpoint="revoke", **failure)
    with pytest.raises(kind, match=said) as caught:
        source(server).revoke(BOTH)
    assert f"{server.revocation_url} did not revoke the token (" in str(caught.value)
    assert "The stored token is kept" in str(caught.value)
    assert "the-refresh-token" not in str(caught.value)
    # No other server got a request, and the second token was not sent.
    assert len(server.requests) == 1


def test_a_server_that_cannot_revoke_access_tokens_is_no_error(server: TokenServer) -> None:
    server.fail_next(endpoint="revoke", status=400, error="unsupported_token_type")
    source(server).revoke(Token("the-access-token"))


def test_the_quoted_explanation_contains_no_secret(server: TokenServer) -> None:
    server.fail_next(
        endpoint="revoke",
        status=400,
        body='{"error": "invalid_request", "error_description": "no: the-refresh-token"}',
        content_type="application/json",
    )
    with pytest.raises(RefreshConfigError, match=r"invalid_request: .*repeats a secret"):
        source(server).revoke(BOTH)


def test_a_changed_revocation_host_does_not_get_tokens_stored_before(
    server: TokenServer, tmp_path: Path
) -> None:
    def keeper(revocation_url: str | None) -> TokenKeeper:
        grant = source(server, revocation_url=revocation_url)
        return TokenKeeper(grant, FileStore(tmp_path / "token.json"))

    elsewhere = server.revocation_url.replace("127.0.0.1", "localhost")
    keeper(server.revocation_url).adopt(server.issue())
    for changed in (None, f"{server.revocation_url}/v2"):
        assert keeper(changed).current()
    with pytest.raises(RefreshConfigError, match=r"not of .*revocation 'http://localhost"):
        keeper(elsewhere).forget(source(server, revocation_url=elsewhere).revoke)
    assert revocations(server) == []
    assert keeper(None).current()


def test_a_key_in_the_revocation_url_is_masked(server: TokenServer) -> None:
    body = {"error": "invalid_request", "error_description": "bad key k3y-of-the-url"}
    server.fail_next(endpoint="revoke", status=400, body=body)
    grant = source(server, revocation_url=f"{server.revocation_url}?key=k3y-of-the-url")
    with pytest.raises(RefreshConfigError, match="repeats a secret") as caught:
        grant.revoke(BOTH)
    assert "k3y-of-the-url" not in str(caught.value)
