"""Tokens that are bound to a key at oidc-provider, which wants its nonce in every proof."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from tokenadapter import (
    ApiUser,
    FileStore,
    Key,
    PrivateKeyJWT,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    Token,
    TokenAdapter,
    TokenAuth,
    TokenKeeper,
    login,
)
from tokenadapter.http import dpop
from tokenadapter.keys import algorithms
from tokenadapter.testing import TokenServer

from .test_oidc_provider import KEYS, Provider, pytestmark  # noqa: F401 - it skips these, too

KEY = KEYS["ES256"]


class Users(Provider):
    """oidc-provider, with clients that act for users."""

    def __init__(self, directory: Path, *, strict: bool = False) -> None:
        super().__init__(directory)
        self._settings["strict"] = strict
        if strict:
            self._settings["proofs"] = ["PS256", "ES384"]
        proven = {"dpop_bound_access_tokens": True}
        self._settings["clients"] += [
            self._user_client("public", "none", **proven),
            self._user_client(
                "with-key", "private_key_jwt", jwks={"keys": [KEY.public_jwk]}, **proven
            ),
        ]

    def source(self, client: str, **options: Any) -> RefreshToken:  # type: ignore[override]
        options = {"scope": "openid", "dpop": True, **options}
        return RefreshToken(issuer=self.issuer, client_id=client, verify=self.ca, **options)

    def _user_client(self, name: str, way: str, **members: Any) -> dict[str, Any]:
        return self._client(
            name,
            way,
            application_type="native",
            grant_types=["authorization_code", "refresh_token"],
            redirect_uris=["http://127.0.0.1/"],
            response_types=["code"],
            **{"scope": "openid", **members},
        )

    def log_in(self, source: RefreshToken | ApiUser, store: FileStore, **options: Any) -> Token:
        def browser(url: str) -> None:
            with requests.Session() as session:
                session.trust_env = False
                session.get(url, verify=self.ca, timeout=10)

        return login(source, store, browser=browser, show=lambda text: None, **options)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    with Users(tmp_path_factory.mktemp("oidc")) as provider:
        yield provider


@pytest.fixture(scope="module")
def strict_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """A server that requires pushed and signed authorization requests, and other keys."""
    with Users(tmp_path_factory.mktemp("strict"), strict=True) as provider:
        yield provider


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")


@pytest.mark.parametrize(("client", "auth"), [("public", None), ("with-key", PrivateKeyJWT(KEY))])
def test_a_login_its_renewals_and_the_api(
    provider: Users, store: FileStore, client: str, auth: Any
) -> None:
    source = provider.source(client, client_auth=auth)
    first = provider.log_in(source, store)
    assert first.is_dpop
    keeper = TokenKeeper(source, store)
    with requests.Session() as session:
        TokenAdapter(f"{provider.issuer}/", keeper).mount(session)
        url = f"{provider.issuer}/me"
        for count in range(3):
            dpop._servers.clear()  # the nonce of each server has to be learnt again
            answer = session.get(url, verify=provider.ca)
            assert answer.json() == {"sub": "ada"}
            assert [hop.status_code for hop in answer.history] == [401]
            assert session.get(url, verify=provider.ca).history == []
            assert keeper.stats.get("Renewed", 0) == count
            token = keeper.refresh()
            assert (token.key, token.is_dpop) == (first.key, True)
            assert token.refresh_token != first.refresh_token
    trusted = ssl.create_default_context(cafile=provider.ca)
    auth_of_httpx = TokenAuth(f"{provider.issuer}/", keeper)
    with httpx.Client(auth=auth_of_httpx, verify=trusted) as client_of_httpx:
        assert client_of_httpx.get(url).json() == {"sub": "ada"}


def test_a_key_of_the_program(provider: Users, store: FileStore) -> None:
    key = Key.generate("EdDSA")
    source = provider.source("public", dpop=key)
    token = provider.log_in(source, store)
    assert (token.is_dpop, token.key) == (True, None)
    assert TokenKeeper(source, store).refresh().is_dpop


def test_a_refresh_token_of_a_public_client_is_refused_with_another_key(
    provider: Users, store: FileStore
) -> None:
    provider.log_in(provider.source("public"), store)
    document = store.load().document
    assert document is not None
    refresh_token = document["token"]["refresh_token"]
    with pytest.raises(ReauthRequired):
        TokenKeeper(provider.source("public", refresh_token=refresh_token)).current()
    assert algorithms.thumbprint(json.loads(document["token"]["dpop_key"]))


def test_a_login_by_a_request_that_is_signed_and_pushed(
    strict_provider: Users, store: FileStore
) -> None:
    source = strict_provider.source("with-key", client_auth=PrivateKeyJWT(KEY))
    server = source.discover()
    assert server is not None
    assert server.require_pushed_authorization_requests
    assert server.require_signed_request_object
    token = strict_provider.log_in(source, store)
    assert token.is_dpop
    assert TokenKeeper(source, store).refresh().key == token.key
    assert json.loads(token.key or "")["alg"] == "ES384"


def test_a_key_for_another_algorithm_than_the_server_lists_is_not_sent(
    provider: Users, strict_provider: Users, store: FileStore
) -> None:
    for server, accepted in ((provider, "ES256, EdDSA"), (strict_provider, "PS256, ES384")):
        source = server.source("public", dpop=KEYS["RS256"])
        with pytest.raises(
            RefreshConfigError, match=f"signs with RS256.* only proofs with {accepted}"
        ):
            server.log_in(source, store)


def test_a_user_of_an_api_that_requires_bound_tokens_registers_a_client(
    provider: Users, store: FileStore
) -> None:
    with TokenServer() as api:
        api.resource_metadata.update(
            authorization_servers=[provider.issuer],
            scopes_supported=["read"],
            dpop_bound_access_tokens_required=True,
            dpop_signing_alg_values_supported=["EdDSA"],
        )
        source = ApiUser(api.api_url, verify=provider.ca)
        token = provider.log_in(source, store, flow="browser")
        assert token.is_dpop
        assert json.loads(token.key or "")["alg"] == "EdDSA"
        assert TokenKeeper(source, store).refresh().key == token.key
