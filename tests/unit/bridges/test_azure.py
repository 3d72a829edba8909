"""Clients of the Azure SDK whose credentials ask a keeper."""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import SupportsTokenInfo, TokenCredential
from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    AsyncRetryPolicy,
    BearerTokenCredentialPolicy,
    RetryPolicy,
)
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport
from azure.core.rest import HttpRequest

from tokenadapter import ClientCredentials, FileStore, ReauthRequired, TokenAdapter, TokenKeeper
from tokenadapter.bridges.azure import AsyncKeeperCredential, KeeperCredential
from tokenadapter.testing import TokenServer

SCOPE = "https://api.example.com/.default"
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}'


def refuse(server: TokenServer, claims: str = CLAIMS) -> None:
    """Refuse the next request as Continuous Access Evaluation does, and revoke its token."""
    server.revoke_all()
    encoded = base64.urlsafe_b64encode(claims.encode()).decode()
    challenge = f'Bearer realm="", error="insufficient_claims", claims="{encoded}"'
    server.fail_next(401, endpoint="api", headers={"WWW-Authenticate": challenge})


def get(client: Any, server: TokenServer) -> int:
    response = client.send_request(HttpRequest("GET", server.api_url), enforce_https=False)
    return int(response.status_code)


@pytest.fixture
def client(server: TokenServer, keeper: TokenKeeper) -> Iterator[PipelineClient[Any, Any]]:
    policy = BearerTokenCredentialPolicy(KeeperCredential(keeper), SCOPE, enable_cae=True)
    policies = [RetryPolicy(retry_total=0), policy]
    with PipelineClient(server.api_url, policies=policies) as client:
        yield client


def test_a_claims_challenge_renews_the_token(server: TokenServer, client: Any) -> None:
    assert get(client, server) == 200
    refuse(server)
    assert get(client, server) == 200
    assert get(client, server) == 200
    assert server.stats.renewals == 2


def test_the_same_challenge_again_causes_no_second_renewal(
    server: TokenServer, client: Any
) -> None:
    assert get(client, server) == 200
    refuse(server)
    assert get(client, server) == 200
    refuse(server)
    assert get(client, server) == 401
    assert server.stats.renewals == 2


def test_a_token_that_another_process_renewed_is_used_at_once(
    server: TokenServer, client: Any, keeper: TokenKeeper
) -> None:
    assert get(client, server) == 200
    old = keeper.current()
    keeper.renew(old)
    server.revoke(old.access_token)
    assert get(client, server) == 200


def test_a_session_with_an_adapter_below_the_sdk_renews_after_any_refusal(
    server: TokenServer, keeper: TokenKeeper
) -> None:
    session = requests.Session()
    TokenAdapter(server.api_url, keeper).mount(session)
    transport = RequestsTransport(session=session, session_owner=False)
    policies = [BearerTokenCredentialPolicy(KeeperCredential(keeper), SCOPE)]
    with PipelineClient(server.api_url, policies=policies, transport=transport) as client, session:
        assert get(client, server) == 200
        server.revoke_all()
        assert get(client, server) == 200


def test_an_asynchronous_client_does_the_same(server: TokenServer, keeper: TokenKeeper) -> None:
    policy = AsyncBearerTokenCredentialPolicy(AsyncKeeperCredential(keeper), SCOPE, enable_cae=True)

    async def main() -> None:
        async with AsyncPipelineClient(
            server.api_url,
            policies=[AsyncRetryPolicy(retry_total=0), policy],
            transport=AsyncioRequestsTransport(),
        ) as client:

            async def get() -> int:
                request = HttpRequest("GET", server.api_url)
                return (await client.send_request(request, enforce_https=False)).status_code

            assert await asyncio.gather(*(get() for _ in range(8))) == [200] * 8
            refuse(server)
            assert await get() == 200

    asyncio.run(main())
    assert server.stats.renewals == 2


def test_a_failure_is_one_of_azure_and_is_not_retried(server: TokenServer, client: Any) -> None:
    server.fail_next(400, error="invalid_grant")
    with pytest.raises(ClientAuthenticationError) as caught:
        get(client, server)
    assert isinstance(caught.value, ReauthRequired)
    assert "invalid_grant" in str(caught.value)
    assert caught.value.message == str(caught.value)
    assert (caught.value.status_code, caught.value.error) == (None, "invalid_grant")
    assert server.stats.token_requests == 1


def test_a_token_says_when_it_expires(server: TokenServer, keeper: TokenKeeper) -> None:
    with KeeperCredential(keeper) as credential:
        token = keeper.current()
        assert credential.get_token(SCOPE) == (token.access_token, int(token.expires_at or 0))
        info = credential.get_token_info(SCOPE)
        assert info.expires_on == int(token.expires_at or 0)


def test_a_token_of_unknown_lifetime_is_asked_for_each_time() -> None:
    credential = KeeperCredential(TokenKeeper(lambda: "text"))
    policy = BearerTokenCredentialPolicy(credential, SCOPE)
    policy._token = credential.get_token(SCOPE)
    assert policy._need_new_token


def test_both_are_credentials_of_the_sdk(keeper: TokenKeeper) -> None:
    assert isinstance(KeeperCredential(keeper), TokenCredential | SupportsTokenInfo)
    ours = AsyncKeeperCredential(keeper)
    assert isinstance(ours, AsyncTokenCredential)
    assert isinstance(ours, AsyncSupportsTokenInfo)


def test_a_pickle_has_no_token(server: TokenServer, tmp_path: Path) -> None:
    source = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    credential = KeeperCredential(TokenKeeper(source, FileStore(tmp_path / "token.json")))
    token = credential.get_token(SCOPE).token
    pickled = pickle.dumps(credential)
    assert token.encode() not in pickled
    assert pickle.loads(pickled).get_token(SCOPE).token == token
