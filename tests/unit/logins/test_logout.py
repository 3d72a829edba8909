"""Logging out: the token is revoked at the server, and no process finds it in the store."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokenadapter
from tokenadapter import (
    ClientCredentials,
    FileStore,
    MemoryStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenKeeper,
    logout,
)
from tokenadapter.testing import TokenServer


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[TokenServer]:
    with TokenServer(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
def source(server: TokenServer) -> RefreshToken:
    return RefreshToken(issuer=server.issuer, client_id="client", client_secret="secret")


@pytest.fixture
def token(source: RefreshToken, store: FileStore, server: TokenServer) -> Token:
    return TokenKeeper(source, store).adopt(server.issue())


def revoked(server: TokenServer) -> list[str]:
    return [request.form["token"] for request in server.requests if request.path == "/revoke"]


def test_the_token_is_revoked_and_removed(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    assert logout(source, store) == token
    assert revoked(server) == [token.refresh_token, token.access_token]
    with pytest.raises(ReauthRequired, match=r"tokenadapter\.login\(\)"):
        TokenKeeper(source, store).current()
    assert logout(source, store) is None
    assert len(revoked(server)) == 2


def test_a_configured_revocation_url_is_used(store: FileStore, server: TokenServer) -> None:
    source = RefreshToken(
        server.token_url,
        client_id="client",
        client_secret="secret",
        revocation_url=server.revocation_url,
    )
    keeper = TokenKeeper(source, store)
    token = keeper.adopt(server.issue())
    assert logout(keeper) == token
    assert revoked(server) == [token.refresh_token, token.access_token]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 503}, RefreshTemporarilyFailed),
        ({"status": 401, "error": "invalid_client"}, RefreshConfigError),
        ({"reset": True}, RefreshTemporarilyFailed),
    ],
)
def test_a_token_that_is_not_revoked_stays_in_the_store(
    source: RefreshToken,
    store: FileStore,
    server: TokenServer,
    token: Token,
    fault: dict[str, Any],
    kind: type[Exception],
) -> None:
    server.fail_next(endpoint="revoke", **fault)
    with pytest.raises(kind, match=r"The stored token is kept.*local=True") as caught:
        logout(source, store)
    assert "use logout(local=True)." in str(caught.value)
    assert TokenKeeper(source, store).current() == token
    # Another attempt does what is left.
    assert logout(source, store) == token


def test_a_server_that_cannot_be_found_does_not_lose_the_token(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    server.fail_next(503, endpoint="metadata", count=None)
    with pytest.raises(RefreshTemporarilyFailed, match=r"could not be read.*local=True"):
        logout(source, store)
    assert TokenKeeper(source, store).current() == token


def test_a_local_logout_contacts_no_server(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    assert logout(source, store, local=True) == token
    assert server.requests == ()
    assert logout(source, store, local=True) is None


def test_a_server_that_cannot_revoke_is_not_asked(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    server.metadata["revocation_endpoint"] = None
    assert logout(source, store) == token
    assert not source.revokes
    assert revoked(server) == []


def test_a_source_that_is_a_function_can_be_logged_out() -> None:
    store = MemoryStore("logout")
    keeper = TokenKeeper(lambda previous: "a-token", store)
    keeper.current()
    token = logout(keeper)
    assert token is not None
    assert token.access_token == "a-token"


def test_the_token_of_another_owner_is_neither_revoked_nor_removed(
    store: FileStore, server: TokenServer, token: Token, source: RefreshToken
) -> None:
    other = ClientCredentials(issuer=server.issuer, client_id="client", client_secret="secret")
    with pytest.raises(RefreshConfigError, match="holds the token of") as caught:
        logout(other, store)
    assert "local" not in str(caught.value)
    assert revoked(server) == []
    assert TokenKeeper(source, store).current() == token


PROGRAM = """
import sys
from tokenadapter import RefreshToken, TokenKeeper
source = RefreshToken(issuer=sys.argv[1], client_id="client", client_secret="secret")
print(TokenKeeper(source, sys.argv[2]).refresh().fingerprint)
"""


@pytest.mark.parametrize("server", [{"rotate": True}], indirect=True)
def test_a_logout_waits_for_the_renewal_of_another_process_and_revokes_its_token(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    done: list[Token | None] = []
    with server.hold() as hold:
        renewing = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.issuer, store.path],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert hold.arrived.wait(30)
        leaving = threading.Thread(target=lambda: done.append(logout(source, store)))
        leaving.start()
        assert revoked(server) == []
    fingerprint = renewing.communicate(timeout=30)[0].strip()
    leaving.join(30)
    assert done[0] is not None
    assert done[0].fingerprint == fingerprint
    assert revoked(server) == [done[0].refresh_token, done[0].access_token]
    assert server.stats.reuse_detections == 0


def test_no_process_renews_between_revocation_and_removal(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token
) -> None:
    with server.hold(endpoint="revoke") as hold:
        leaving = threading.Thread(target=logout, args=[source, store])
        leaving.start()
        assert hold.arrived.wait(10)
        assert not store.lock().acquire(1.0)
        renewing = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.issuer, store.path],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    leaving.join(30)
    assert "ReauthRequired" in renewing.communicate(timeout=30)[1]
    assert server.stats.token_requests == 0


def test_another_process_that_holds_the_token_learns_of_the_logout(
    source: RefreshToken, store: FileStore, server: TokenServer, token: Token, tmp_path: Path
) -> None:
    holder = TokenKeeper(source, FileStore(store.path))
    assert holder.current() == token
    logout(source, store)
    with pytest.raises(ReauthRequired, match="holds no token"):
        holder.renew(token)
    # What it remembers is not written back.
    assert store.load().document is not None
    with pytest.raises(ReauthRequired):
        TokenKeeper(source, store).current()
    assert server.stats.token_requests == 0


def test_a_store_is_not_given_twice(source: RefreshToken) -> None:
    with pytest.raises(TypeError, match="store is given twice"):
        logout(TokenKeeper(source, MemoryStore()), MemoryStore())


def test_the_function_is_public() -> None:
    assert tokenadapter.logout is logout
