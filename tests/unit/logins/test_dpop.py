"""Logins for tokens that are bound to a key: each login makes one."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tokenadapter import (
    FileStore,
    Key,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    TokenKeeper,
    login,
)
from tokenadapter.keys import algorithms
from tokenadapter.testing import Browser, TokenServer


@pytest.fixture
def server() -> Iterator[TokenServer]:
    clients = {"client": None}
    with TokenServer(dpop=True, dpop_nonces=True, clients=clients, device_interval=0.01) as server:
        yield server


@pytest.fixture
def source(server: TokenServer) -> RefreshToken:
    return RefreshToken(server.token_url, client_id="client", dpop=True)


def thumbprint(key: str | None) -> str:
    assert key is not None
    return algorithms.thumbprint(json.loads(key))


def test_a_login_in_the_browser_binds_the_code_and_the_token(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    token = login(
        source,
        store,
        authorization_url=server.authorization_url,
        browser=Browser(),
        show=lambda text: None,
    )
    asked = next(one for one in server.requests if one.path == "/authorize")
    assert parse_qs(asked.query)["dpop_jkt"] == [thumbprint(token.key)]
    assert store.load().document["token"]["dpop_key"] == token.key  # type: ignore[index]
    server.expire_now()
    assert TokenKeeper(source, store).refresh().key == token.key


def test_each_login_makes_another_key(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    keys = set()
    for _ in range(2):
        token = login(
            source,
            store,
            authorization_url=server.authorization_url,
            browser=Browser(),
            show=lambda text: None,
        )
        keys.add(token.key)
    assert len(keys) == 2


def test_a_login_with_a_device_code_binds_the_token(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    token = login(
        source,
        store,
        device_authorization_url=server.device_authorization_url,
        show=lambda text: server.approve_device(),
    )
    assert token.is_dpop
    proven = {one.thumbprint for one in server.requests if one.path == "/token"} - {None}
    assert proven == {thumbprint(token.key)}


def test_no_frame_of_a_failed_login_has_the_key(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    for urls in (
        {"device_authorization_url": server.device_authorization_url},
        {"authorization_url": server.authorization_url, "browser": lambda url: None},
    ):
        with pytest.raises(ReauthRequired) as caught:
            login(source, store, show=lambda text: None, timeout=0.1, **urls)
        ours = caught.tb.tb_next  # below this function
        frames = traceback.StackSummary.extract(traceback.walk_tb(ours), capture_locals=True)
        assert '"kty"' not in "".join(frames.format())


def test_a_configured_key_is_not_stored(store: FileStore, server: TokenServer) -> None:
    key = Key.generate()
    token = login(
        RefreshToken(server.token_url, client_id="client", dpop=key),
        store,
        authorization_url=server.authorization_url,
        browser=Browser(),
        show=lambda text: None,
    )
    assert (token.is_dpop, token.key) == (True, None)
    asked = next(one for one in server.requests if one.path == "/authorize")
    assert parse_qs(urlsplit(f"?{asked.query}").query)["dpop_jkt"] == [key.thumbprint]


def test_a_code_is_worth_nothing_with_another_key(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    def swap(url: str) -> None:
        answer = requests.get(f"{url}&decision=approve", allow_redirects=False, timeout=10)
        source._makes_keys = False  # another client has got hold of the code ...
        source.dpop_key = Key.generate()  # ... and has another key
        requests.get(answer.headers["Location"], timeout=10)

    with pytest.raises(RefreshConfigError, match="bound to another key"):
        login(
            source,
            store,
            authorization_url=server.authorization_url,
            browser=swap,
            show=lambda text: None,
        )
