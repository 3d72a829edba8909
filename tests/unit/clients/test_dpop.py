"""Proofs at the API, by every client: the same token again with a new proof, and no renewal."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from urllib3.util import Retry

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Key,
    RefreshConfigError,
    RequestsAuth,
    Token,
    TokenAdapter,
    TokenAuth,
    TokenKeeper,
    TokenMiddleware,
    TokenPoolManager,
    expired_on,
)
from tokenadapter.testing import TokenServer

KEY = Key.generate()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(dpop=True, dpop_nonces=True, clients={"app": None}) as server:
        yield server


@pytest.fixture
def keeper(server: TokenServer, tmp_path: Path) -> TokenKeeper:
    return TokenKeeper(
        ClientCredentials(server.token_url, client_id="app", dpop=True),
        FileStore(tmp_path / "token.json"),
    )


class Answer:
    """What came back, whatever the client is."""

    def __init__(self, status: int, body: bytes, shown: list[Any]) -> None:
        self.status = status
        self.echo = json.loads(body)
        # What a program can see of the request that was sent.
        self.shown = repr(shown)


Ask = Callable[..., Answer]


def _asking(session: requests.Session) -> Ask:
    def ask(method: str, url: str, data: Any = None) -> Answer:
        response = session.request(method, url, data=data)
        hops = [*response.history, response]
        shown = [hop.request.headers for hop in hops]
        return Answer(response.status_code, response.content, shown)

    return ask


def by_requests(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    session = requests.Session()
    TokenAdapter(prefix, keeper, **settings).mount(session)
    return _asking(session), session.close


def by_urllib3(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    pool = TokenPoolManager(prefix, keeper, **settings)

    def ask(method: str, url: str, data: Any = None) -> Answer:
        response = pool.request(method, url, body=data)
        return Answer(response.status, response.data, [response])

    return ask, pool.clear


def by_httpx(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    client = httpx.Client(auth=TokenAuth(prefix, keeper, **settings), follow_redirects=True)

    def ask(method: str, url: str, data: Any = None) -> Answer:
        response = client.request(method, url, content=data)
        hops = [*response.history, response]
        return Answer(response.status_code, response.content, [h.request.headers for h in hops])

    return ask, client.close


def by_asyncio(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    client = httpx.AsyncClient(auth=TokenAuth(prefix, keeper, **settings), follow_redirects=True)
    runner = asyncio.Runner()

    def ask(method: str, url: str, data: Any = None) -> Answer:
        response = runner.run(client.request(method, url, content=data))
        hops = [*response.history, response]
        return Answer(response.status_code, response.content, [h.request.headers for h in hops])

    def close() -> None:
        runner.run(client.aclose())
        runner.close()

    return ask, close


def by_auth(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    session = requests.Session()
    session.auth = RequestsAuth(prefix, keeper, **settings)
    return _asking(session), session.close


def by_aiohttp(prefix: str, keeper: TokenKeeper, settings: dict[str, Any]) -> Any:
    runner = asyncio.Runner()

    async def opened() -> aiohttp.ClientSession:
        tokens = TokenMiddleware(prefix, keeper, **settings)
        return aiohttp.ClientSession(middlewares=[tokens])

    session = runner.run(opened())

    async def answer(method: str, url: str, data: Any) -> Answer:
        async with session.request(method, url, data=data) as response:
            return Answer(response.status, await response.read(), [response.request_info])

    def ask(method: str, url: str, data: Any = None) -> Answer:
        return runner.run(answer(method, url, data))

    def close() -> None:
        runner.run(session.close())
        runner.close()

    return ask, close


CLIENTS = {
    "requests": by_requests,
    "auth": by_auth,
    "urllib3": by_urllib3,
    "httpx": by_httpx,
    "async": by_asyncio,
    "aiohttp": by_aiohttp,
}


@pytest.fixture(params=CLIENTS)
def client(
    request: pytest.FixtureRequest, server: TokenServer, keeper: TokenKeeper
) -> Iterator[Callable[..., Ask]]:
    closing = []

    def made(keeper: TokenKeeper = keeper, **settings: Any) -> Ask:
        ask, close = CLIENTS[request.param](server.api_url, keeper, settings)
        closing.append(close)
        return ask

    yield made
    for close in closing:
        close()


def test_a_request_has_the_token_and_a_proof(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    ask = client()
    answer = ask("GET", f"{server.api_url}a/b?c=d")
    assert answer.status == 200
    assert answer.echo["headers"]["authorization"].startswith("DPoP ")
    assert "DPoP" not in answer.shown
    assert "dpop" not in answer.shown.lower()


def test_a_new_nonce_costs_one_request_and_no_renewal(
    client: Callable[..., Ask], server: TokenServer, keeper: TokenKeeper
) -> None:
    ask = client()
    ask("GET", server.api_url)
    for count in range(1, 4):
        before = server.stats
        server.change_nonce()
        assert ask("GET", server.api_url).status == 200
        assert ask("GET", server.api_url).status == 200
        assert server.stats.api_requests == before.api_requests + 3
        assert keeper.stats["Replayed"] == count + 1
    assert server.stats.renewals == 1
    assert server.stats.api_refused == 0


def test_a_nonce_is_learnt_from_an_answer_that_succeeds(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    ask = client()
    ask("GET", server.api_url)
    server.fail_next(200, endpoint="api", body={}, headers={"DPoP-Nonce": "next-one"})
    ask("GET", server.api_url)
    refused = server.stats.proofs_refused
    ask("GET", server.api_url)
    assert server.stats.proofs_refused == refused + 1  # "next-one" is none of the server's


@pytest.mark.parametrize(
    "body", [b"some bytes", io.BytesIO(b"a file"), iter([b"a ", b"generator"])]
)
def test_the_body_is_sent_again(server: TokenServer, keeper: TokenKeeper, body: Any) -> None:
    ask, close = by_requests(server.api_url, keeper, {})
    sent = {"bytes": 10, "BytesIO": 6, "list_iterator": 11}[type(body).__name__]
    assert ask("POST", server.api_url, body).echo["length"] == sent
    assert server.stats.api_requests == 2
    close()


def test_a_server_that_always_wants_another_nonce_is_asked_twice(
    client: Callable[..., Ask], server: TokenServer, keeper: TokenKeeper
) -> None:
    ask = client()
    ask("GET", server.api_url)
    before = server.stats.api_requests
    challenge = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n"}
    server.fail_next(401, endpoint="api", body={}, headers=challenge, count=None)
    assert ask("GET", server.api_url).status == 401
    assert server.stats.api_requests == before + 2
    assert server.stats.renewals == 1
    assert keeper.stats["HandedOn"] == 1


def test_a_retry_of_urllib3_which_repeats_the_proof_does_no_harm(
    server: TokenServer, keeper: TokenKeeper
) -> None:
    retry = Retry(total=2, status_forcelist=[503], backoff_factor=0)
    ask, close = by_requests(server.api_url, keeper, {"max_retries": retry})
    ask("GET", server.api_url)
    server.fail_next(503, endpoint="api", processed=True)
    assert ask("GET", server.api_url).status == 200
    assert server.stats.renewals == 1
    assert server.stats.proofs_refused == 3  # two for their nonces, and the repeated one
    close()


def test_an_expired_token_is_renewed_although_the_nonce_changed_too(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    ask = client()
    ask("GET", server.api_url)
    server.change_nonce()
    server.expire_now()
    assert ask("GET", server.api_url).status == 200
    assert server.stats.renewals == 2


def test_a_verdict_of_the_program_is_not_asked_about_proofs(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    ask = client(verdict=expired_on(status=401, json={"error": "use_dpop_nonce"}))
    ask("GET", server.api_url)
    server.change_nonce()
    assert ask("GET", server.api_url).status == 200
    assert server.stats.renewals == 1


@pytest.mark.parametrize("ahead", [-4000.0, 4000.0])
def test_if_our_clock_is_wrong_the_time_of_the_api_is_used(
    client: Callable[..., Ask], tmp_path: Path, ahead: float
) -> None:
    with TokenServer(dpop=True, clock=lambda: time.time() + ahead, clients={"app": None}) as server:
        keeper = TokenKeeper(ClientCredentials(server.token_url, client_id="app", dpop=True))
        for ask, close in [make(server.api_url, keeper, {}) for make in CLIENTS.values()]:
            assert ask("GET", server.api_url).status == 200
            close()
        assert server.stats.proofs_refused == 2  # one at each endpoint
        assert server.stats.renewals == 1


def test_a_token_without_its_key_is_not_sent(
    client: Callable[..., Ask], server: TokenServer, keeper: TokenKeeper
) -> None:
    keeper.adopt({"access_token": "made-up", "token_type": "DPoP", "expires_in": 600})
    with pytest.raises(RefreshConfigError, match="no proof can be made for it: the key that"):
        client()("GET", server.api_url)
    assert server.stats.api_requests == 0


def test_a_damaged_key_is_no_key(
    client: Callable[..., Ask], server: TokenServer, keeper: TokenKeeper
) -> None:
    damaged = {"kty": "EC", "crv": "P-256", "d": "secret-of-the-key"}
    keeper.adopt({"access_token": "made-up", "token_type": "dpop", "dpop_key": damaged})
    with pytest.raises(RefreshConfigError, match="the key in memory is damaged") as caught:
        client()("GET", server.api_url)
    assert "secret-of-the-key" not in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                assert "secret-of-the-key" not in repr(frame.f_locals)
        error = error.__cause__ or error.__context__


class Unreachable:
    """A key of a service that is down."""

    def sign(self, data: bytes) -> bytes:
        raise RuntimeError("made-up-secret")


def test_a_key_elsewhere_that_fails_is_an_error_of_ours(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    key = Key(Unreachable(), alg="ES256", public=KEY.public_jwk)
    keeper = TokenKeeper(ClientCredentials(server.token_url, client_id="app", dpop=key))
    keeper.adopt({"access_token": "made-up", "token_type": "DPoP", "expires_in": 600})
    with pytest.raises(RefreshConfigError, match="dpop raised RuntimeError") as caught:
        client(keeper)("GET", server.api_url)
    assert "made-up-secret" not in str(caught.value)


def test_a_configured_key_proves_tokens_of_any_process(
    client: Callable[..., Ask], server: TokenServer, tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "configured.json")
    for _ in range(2):
        source = ClientCredentials(server.token_url, client_id="app", dpop=KEY)
        assert client(TokenKeeper(source, store))("GET", server.api_url).status == 200
    assert server.requests[-1].thumbprint == KEY.thumbprint
    assert server.stats.renewals == 1


def test_a_function_may_return_a_bound_token_with_its_key(
    client: Callable[..., Ask], server: TokenServer
) -> None:
    def source() -> dict[str, Any]:
        token = server.issue(client="app", thumbprint=KEY.thumbprint)
        return {**token, "dpop_key": KEY.private_jwk()}

    assert client(TokenKeeper(source))("GET", server.api_url).status == 200


def test_a_program_that_attaches_tokens_itself_makes_its_proofs_itself(
    server: TokenServer, keeper: TokenKeeper
) -> None:
    def attach(request: requests.PreparedRequest, token: Token) -> None:
        assert token.key is not None
        request.headers["X-Token"] = token.access_token

    ask, close = by_requests(server.public_url, keeper, {"attach": attach})
    assert "dpop" not in ask("GET", server.public_url).echo["headers"]
    close()


def test_a_redirect_takes_no_proof_along(client: Callable[..., Ask], server: TokenServer) -> None:
    ask = client()
    with TokenServer() as other:
        ask("GET", f"{server.api_url}redirect?to={other.public_url}x")
        ours = [request for request in server.requests if request.path.startswith("/api/")]
        assert "dpop" in ours[-1].headers
        assert other.requests
        for request in other.requests:
            assert not {"authorization", "dpop"} & {*request.headers}


def test_the_log_has_no_key_and_no_proof(
    client: Callable[..., Ask],
    server: TokenServer,
    keeper: TokenKeeper,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[Any] = []
    keeper.journal.listener = events.append
    ask = client()
    ask("GET", server.api_url)
    server.change_nonce()
    ask("GET", server.api_url)
    token = keeper.current()
    assert events
    for secret in (token.access_token, json.loads(token.key or "")["d"], "eyJhbGciOiJFUzI1NiI"):
        assert secret not in caplog.text
        assert secret not in repr(events)


def test_bearer_tokens_import_nothing_for_proofs(tmp_path: Path) -> None:
    program = """
import sys, requests
from tokenadapter import ClientCredentials, FileStore, TokenAdapter
prefix, store = sys.argv[1:]
source = ClientCredentials("http://127.0.0.1:1/", client_id="app")
with requests.Session() as session:
    TokenAdapter(prefix, source, store=FileStore(store)).mount(session)
    assert session.get(prefix).status_code == 403
found = {"tokenadapter.http.dpop", "tokenadapter.keys.key", "cryptography"} & {*sys.modules}
sys.exit(f"imported {found}" if found else 0)
"""
    store = FileStore(tmp_path / "token.json")
    source = ClientCredentials("http://127.0.0.1:1/", client_id="app")
    TokenKeeper(source, store).adopt({"access_token": "made-up", "expires_in": 3600})
    with TokenServer() as plain:
        plain.fail_next(403, endpoint="api")
        command = [sys.executable, "-c", program, plain.api_url, store.path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
