"""Credential objects of SDKs as sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from google.oauth2.credentials import Credentials

from tokenadapter import (
    FileStore,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    TokenAdapter,
    TokenKeeper,
    installed,
)
from tokenadapter.bridges.azure import AsyncKeeperCredential
from tokenadapter.protocols import Grant
from tokenadapter.sources.sdk_credentials import AzureCredential, GoogleCredentials
from tokenadapter.testing import TokenServer

SCOPE = "https://api.example.com/.default"


class CredentialUnavailable(Exception):
    pass


class Caching:
    """A credential of Azure's kind: it caches its token, and claims circumvent the cache."""

    def __init__(self, server: TokenServer) -> None:
        self._server = server
        self._token: AccessToken | None = None
        self.asked: list[dict[str, Any]] = []

    def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> AccessToken:
        assert scopes == (SCOPE,)
        self.asked.append({"claims": claims} if claims else {})
        if self._token is None or claims:
            response = requests.post(
                self._server.token_url,
                data={"grant_type": "client_credentials"},
                auth=("client", "secret"),
                timeout=10,
            ).json()
            self._token = AccessToken(response["access_token"], 4_000_000_000)
        return self._token


@pytest.fixture
def theirs(server: TokenServer) -> Credentials:
    """A user's credentials, whose refresh token is not rotated."""
    return Credentials(
        None,
        refresh_token=server.issue("read")["refresh_token"],
        token_uri=server.token_url,
        client_id="client",
        client_secret="secret",
        scopes=["read"],
    )


@pytest.fixture
def server() -> Any:
    with TokenServer(rotate=False) as server:
        yield server


def test_both_are_grants_that_spend_nothing(server: TokenServer, theirs: Credentials) -> None:
    for source in (AzureCredential(Caching(server), SCOPE), GoogleCredentials(theirs)):
        assert isinstance(source, Grant)
        assert not source.spends
    assert AzureCredential(Caching(server), SCOPE, account="a").owner["user"] == "a"
    assert GoogleCredentials(theirs).requested == {"scope": "read"}


def test_a_refused_token_of_azure_is_not_taken_from_its_cache_again(server: TokenServer) -> None:
    credential = Caching(server)
    with requests.Session() as session:
        TokenAdapter(server.api_url, AzureCredential(credential, SCOPE)).mount(session)
        assert session.get(server.api_url).ok
        server.revoke_all()
        assert session.get(server.api_url).ok
    assert server.stats.renewals == 2
    assert [bool(asked) for asked in credential.asked] == [False, False, True]
    assert '"nbf"' in credential.asked[-1]["claims"]


def test_a_credential_that_refuses_claims_gives_its_token_again(server: TokenServer) -> None:
    class Refusing(Caching):
        def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> AccessToken:
            if claims:
                raise CredentialUnavailable
            return super().get_token(*scopes)

    keeper = TokenKeeper(AzureCredential(Refusing(server), SCOPE))
    old = keeper.current()
    assert keeper.renew(old).access_token == old.access_token


def test_processes_with_credentials_of_google_share_one_renewal(
    server: TokenServer, theirs: Credentials, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    first = TokenKeeper(GoogleCredentials(theirs), FileStore(store))
    second = TokenKeeper(GoogleCredentials(theirs), FileStore(store))
    old = first.current()
    assert second.current().is_same(old)
    assert old.lifetime == pytest.approx(3600, abs=30)
    new = first.renew(old)
    assert second.renew(old).is_same(new)
    assert server.stats.renewals == 2


def test_a_failure_of_the_object_backs_off_and_is_the_cause(
    server: TokenServer, theirs: Credentials
) -> None:
    server.fail_next(400, error="invalid_grant", count=None)
    keeper = TokenKeeper(GoogleCredentials(theirs))
    with pytest.raises(RefreshTemporarilyFailed, match="raised RefreshError") as caught:
        keeper.current()
    assert "invalid_grant" in str(caught.value.__cause__)
    with pytest.raises(RefreshTemporarilyFailed, match="raised RefreshError"):
        keeper.current()
    assert server.stats.token_requests == 1


def test_tokens_of_another_account_are_refused(
    server: TokenServer, theirs: Credentials, tmp_path: Path
) -> None:
    store = tmp_path / "token.json"
    TokenKeeper(GoogleCredentials(theirs, account="ada"), FileStore(store)).current()
    with pytest.raises(RefreshConfigError, match="'ada', not"):
        TokenKeeper(GoogleCredentials(theirs, account="bob"), FileStore(store)).current()


def test_requests_of_the_object_are_not_signed(server: TokenServer, theirs: Credentials) -> None:
    with installed(TokenAdapter(server.url, GoogleCredentials(theirs))):
        assert requests.get(server.api_url, timeout=10).ok
    (asked,) = [one for one in server.requests if one.path == "/token"]
    assert "authorization" not in asked.headers


def test_another_object_is_refused() -> None:
    with pytest.raises(TypeError, match=r"credential must have get_token\(\), not str"):
        AzureCredential("text", SCOPE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must not be one of azure\.identity\.aio"):
        AzureCredential(AsyncKeeperCredential(TokenKeeper(lambda: "text")), SCOPE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"credentials must have refresh\(\), not str"):
        GoogleCredentials("text")
    with pytest.raises(ValueError, match="at least one scope"):
        AzureCredential(Caching(None))  # type: ignore[arg-type]
