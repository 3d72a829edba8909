"""Clients of SDKs that are too large for every day, whose tokens come from a keeper.

``tox -e sdks`` installs the SDKs; elsewhere, these tests are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    ReauthRequired,
    Token,
    TokenAdapter,
    TokenAuth,
    TokenKeeper,
)
from tokenadapter.testing import TokenServer

if "SDKS" not in os.environ:
    pytest.skip("tox -e sdks installs what it needs", allow_module_level=True)

import anthropic
import botocore.session
import dlt.sources.helpers.requests
import openai
from anthropic.lib.credentials import AccessToken
from azure.identity import ManagedIdentityCredential
from botocore.config import Config
from botocore.exceptions import TokenRetrievalError
from databricks.sdk import WorkspaceClient
from dlt.sources.helpers.rest_client import RESTClient
from kiota_abstractions.authentication import BaseBearerTokenAuthenticationProvider
from kiota_abstractions.method import Method
from kiota_abstractions.request_information import RequestInformation
from kiota_http.httpx_request_adapter import HttpxRequestAdapter
from kiota_http.kiota_client_factory import KiotaClientFactory
from pyiceberg.catalog import load_catalog

from tokenadapter.bridges.botocore import KeeperTokenProvider
from tokenadapter.bridges.databricks import KeeperCredentialsStrategy
from tokenadapter.bridges.kiota import KeeperAccessTokenProvider
from tokenadapter.sources.sdk_credentials import AzureCredential

EXPIRIES = 2


@pytest.fixture
def brief() -> Iterator[TokenServer]:
    with TokenServer(lifetime=2) as server:
        yield server


def keeper_of(server: TokenServer) -> TokenKeeper:
    return TokenKeeper(
        ClientCredentials(
            server.token_url,
            client_id="client",
            client_secret="secret",
            verify=server.ca_file if server.url.startswith("https") else None,
        )
    )


def over_expiries(server: TokenServer, ask: Callable[[], object]) -> None:
    """*ask* again and again until so many tokens have expired: none is refused."""
    while server.stats.renewals <= EXPIRIES:
        ask()
        time.sleep(0.1)
    ask()
    assert server.stats.renewals == EXPIRIES + 1
    assert server.stats.api_refused == 0


# --- botocore ----------------------------------------------------------------------------------


@pytest.fixture
def encrypted() -> Iterator[TokenServer]:
    """botocore sends a bearer token by HTTPS only."""
    with TokenServer(lifetime=2, https=True) as server:
        yield server


def bedrock(server: TokenServer, keeper: TokenKeeper) -> Any:
    session = botocore.session.Session()
    session.register_component("token_provider", KeeperTokenProvider(keeper))
    return session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=server.api_url,
        verify=server.ca_file,
        config=Config(signature_version="bearer", retries={"total_max_attempts": 1}),
    )


def test_botocore_asks_the_keeper_before_each_request(encrypted: TokenServer) -> None:
    client = bedrock(encrypted, keeper_of(encrypted))

    def ask() -> None:
        client.invoke_model(modelId="model", body=b"{}")["body"].close()

    over_expiries(encrypted, ask)
    client.close()


def test_a_failure_is_one_of_botocore(encrypted: TokenServer) -> None:
    encrypted.fail_next(400, error="invalid_grant")
    client = bedrock(encrypted, keeper_of(encrypted))
    with pytest.raises(TokenRetrievalError) as caught:
        client.invoke_model(modelId="model", body=b"{}")
    assert isinstance(caught.value, ReauthRequired)
    client.close()


def test_botocore_learns_when_a_token_expires(server: TokenServer) -> None:
    keeper = keeper_of(server)
    frozen = KeeperTokenProvider(keeper).get_frozen_token()
    token = keeper.current()
    expiry = datetime.fromtimestamp(token.expires_at or 0, UTC)
    assert frozen == (token.access_token, expiry)
    assert KeeperTokenProvider(TokenKeeper(lambda: "text")).get_frozen_token()[1] is None


# --- Databricks --------------------------------------------------------------------------------


def test_databricks_asks_the_keeper_before_each_request(brief: TokenServer) -> None:
    keeper = keeper_of(brief)
    strategy = KeeperCredentialsStrategy(keeper)
    client = WorkspaceClient(host=brief.url, credentials_strategy=strategy)
    assert client.config.auth_type == "tokenadapter"

    def ask() -> None:
        assert client.api_client.do("GET", "/api/2.0/x")["path"] == "/api/2.0/x"

    over_expiries(brief, ask)
    token = client.config.oauth_token()
    assert token.access_token == keeper.current().access_token
    assert strategy()() == {"Authorization": f"Bearer {token.access_token}"}  # the SQL connector's
    assert token.expiry.timestamp() == pytest.approx(keeper.current().expires_at)


# --- Kiota -------------------------------------------------------------------------------------

CLAIMS = base64.urlsafe_b64encode(b'{"access_token":{"nbf":{"value":"1"}}}').decode()


def test_kiota_asks_the_keeper_and_a_claims_challenge_renews(server: TokenServer) -> None:
    provider = KeeperAccessTokenProvider(keeper_of(server), ["127.0.0.1"])

    async def main() -> None:
        client = KiotaClientFactory.create_with_default_middleware()
        adapter = HttpxRequestAdapter(
            BaseBearerTokenAuthenticationProvider(provider), http_client=client
        )

        async def ask() -> Any:
            request = RequestInformation(Method.GET, f"{server.api_url}x")
            return await adapter.send_primitive_async(request, "bytes", {})

        assert b"/api/x" in await ask()
        server.revoke_all()
        challenge = f'Bearer error="insufficient_claims", claims="{CLAIMS}"'
        server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": challenge})
        assert b"/api/x" in await ask()
        await client.aclose()

    asyncio.run(main())
    assert server.stats.renewals == 2


def test_kiota_gets_no_token_for_another_host_or_in_clear(server: TokenServer) -> None:
    provider = KeeperAccessTokenProvider(keeper_of(server), ["api.example.com"])

    def token(url: str) -> str:
        return asyncio.run(provider.get_authorization_token(url))

    assert token("https://api.example.com/x")
    assert token("https://api.example.com.evil.com/x") == ""
    assert token("https://api.example.com@evil.com/x") == ""
    assert token("http://api.example.com/x") == ""
    with pytest.raises(ValueError, match="hosts is empty"):
        KeeperAccessTokenProvider(keeper_of(server), [])


# --- PyIceberg ---------------------------------------------------------------------------------


def test_pyiceberg_asks_the_keeper_before_each_request(server: TokenServer) -> None:
    keeper = keeper_of(server)
    server.fail_next(200, endpoint="api", body={"defaults": {}, "overrides": {}})
    manager = "tokenadapter.bridges.pyiceberg.KeeperAuthManager"
    auth = {"type": "custom", "impl": manager, "custom": {"keeper": keeper}}
    catalog = load_catalog("prod", type="rest", uri=server.api_url, auth=auth)
    used = [keeper.current()]
    for _ in range(2):
        server.fail_next(200, endpoint="api", body={"namespaces": [["sales"]]})
        assert catalog.list_namespaces() == [("sales",)]
        used.append(keeper.current())
        keeper.renew(keeper.current())
    sent = [one.headers["authorization"] for one in server.requests if "/api/" in one.path]
    assert sent == [f"Bearer {token.access_token}" for token in used]
    catalog.close()


# --- a credential of theirs as a source --------------------------------------------------------


def test_a_managed_identity_of_azure_serves_any_client(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(token: str) -> None:
        expires = str(int(time.time()) + 3600)
        body = {"access_token": token, "expires_on": expires, "resource": "r", "token_type": "B"}
        server.fail_next(200, endpoint="public", body=body)

    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.public_url}msi")
    monkeypatch.setenv("IDENTITY_HEADER", "made-up")
    first, second = (Token.from_dict(server.issue()) for _ in range(2))
    source = AzureCredential(ManagedIdentityCredential(), "https://api.example.com/.default")
    with requests.Session() as session:
        adapter = TokenAdapter(server.api_url, source)
        adapter.mount(session)
        answer(first.access_token)
        assert session.get(server.api_url).ok
        server.revoke(first.access_token)
        answer(second.access_token)
        assert session.get(server.api_url).ok
        assert adapter.keeper.current().access_token == second.access_token
        assert adapter.keeper.current().lifetime == pytest.approx(3600, abs=30)


# --- SDKs that take a function, or a client ----------------------------------------------------


def openai_client(server: TokenServer, keeper: TokenKeeper, way: str) -> openai.OpenAI:
    if way == "function":
        return openai.OpenAI(
            base_url=server.api_url, api_key=lambda: keeper.current().access_token, max_retries=0
        )
    http_client = openai.DefaultHttpxClient(auth=TokenAuth(server.api_url, keeper))
    return openai.OpenAI(
        base_url=server.api_url, api_key="unused", max_retries=0, http_client=http_client
    )


@pytest.mark.parametrize("way", ["function", "client"])
def test_openai_has_a_token_for_each_request(brief: TokenServer, way: str) -> None:
    with openai_client(brief, keeper_of(brief), way) as client:
        over_expiries(brief, client.models.list)


def test_a_client_replays_what_openai_sends(server: TokenServer) -> None:
    with openai_client(server, keeper_of(server), "client") as client:
        client.models.list()
        server.revoke_all()
        client.models.list()
    with openai_client(server, keeper_of(server), "function") as client:
        client.models.list()
        server.revoke_all()
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


@pytest.mark.parametrize("way", ["function", "client"])
def test_anthropic_has_a_token_for_each_request_and_another_after_a_refusal(
    brief: TokenServer, way: str
) -> None:
    keeper = keeper_of(brief)

    def credentials(*, force_refresh: bool = False) -> AccessToken:
        token = keeper.current()
        if force_refresh:
            token = keeper.renew(token)
        return AccessToken(token.access_token, expires_at=0)

    settings: dict[str, Any] = {"credentials": credentials}
    if way == "client":
        auth = TokenAuth(brief.api_url, keeper)
        settings = {"auth_token": "unused", "http_client": anthropic.DefaultHttpxClient(auth=auth)}
    with anthropic.Anthropic(base_url=brief.api_url, max_retries=1, **settings) as client:
        over_expiries(brief, client.models.list)
        brief.revoke_all()
        client.models.list()
        assert brief.stats.renewals == EXPIRIES + 2


def test_dlt_sends_through_a_session_with_an_adapter(brief: TokenServer) -> None:
    session = dlt.sources.helpers.requests.Client(raise_for_status=False).session
    TokenAdapter(brief.api_url, keeper_of(brief)).mount(session)
    client = RESTClient(brief.api_url, session=session)
    over_expiries(brief, lambda: client.get("invoices").raise_for_status())
    brief.revoke_all()
    assert client.get("invoices").ok
    brief.fail_next(503, endpoint="api")
    assert client.get("invoices").ok  # dlt repeats it
    session.close()
