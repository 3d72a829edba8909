"""The algorithm of a proof is one that the metadata of the server lists."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Key,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    TokenKeeper,
    login,
)
from tokenadapter.http import dpop
from tokenadapter.keys.jws import unb64
from tokenadapter.sources import discovery
from tokenadapter.testing import TokenServer

KEY = Key.generate("ES384")


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(dpop=True, clients={"app": None}, device_interval=0.01) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")


def accept(server: TokenServer, *algorithms: str) -> None:
    """Have the metadata list these *algorithms*."""
    server.metadata["dpop_signing_alg_values_supported"] = list(algorithms)
    discovery._known.clear()


def posted(server: TokenServer, path: str = "/token") -> list[str]:
    """The algorithms of the proofs in the requests for *path*."""
    proofs = [each.headers["dpop"] for each in server.requests if each.path == path]
    return [json.loads(unb64(proof.partition(".")[0]))["alg"] for proof in proofs]


def refreshing(server: TokenServer, dpop: Any = True) -> RefreshToken:
    thumbprint = None if dpop is True else dpop.thumbprint
    first = server.issue(client="app", thumbprint=thumbprint)["refresh_token"]
    return RefreshToken(None, first, issuer=server.issuer, client_id="app", dpop=dpop)


# --- a key that tokenadapter makes -------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "alg"),
    [
        ([], "ES256"),
        (["RS256", "EdDSA", "ES256"], "ES256"),
        (["ES512", "RS256", "EdDSA"], "EdDSA"),
        (["Ed25519"], "Ed25519"),
        (["RS256", "ES384"], "ES384"),
        (["PS256"], "PS256"),
        (["RS256"], "RS256"),
    ],
)
def test_a_new_key_is_for_an_algorithm_that_the_server_accepts(
    server: TokenServer, store: FileStore, accepted: list[str], alg: str
) -> None:
    accept(server, *accepted)
    source = ClientCredentials(issuer=server.issuer, client_id="app", dpop=True)
    keeper = TokenKeeper(source, store)
    assert keeper.current().is_dpop
    keeper.refresh()
    assert posted(server) == [alg, alg]


def test_a_key_for_a_first_refresh_token_is_made_by_the_metadata(
    server: TokenServer, store: FileStore
) -> None:
    accept(server, "EdDSA")
    keeper = TokenKeeper(refreshing(server), store)
    assert keeper.current().is_dpop
    accept(server, "ES256")
    keeper.refresh()  # the refresh token is bound to the first key
    assert posted(server) == ["EdDSA", "EdDSA"]


def test_a_key_whose_algorithm_is_no_longer_accepted_is_replaced_where_no_login_is_bound_to_it(
    server: TokenServer, store: FileStore
) -> None:
    accept(server, "ES256")
    source = ClientCredentials(issuer=server.issuer, client_id="app", dpop=True)
    keeper = TokenKeeper(source, store)
    first = keeper.current()
    accept(server, "EdDSA")
    second = keeper.refresh()
    assert keeper.refresh().key == second.key != first.key
    assert posted(server) == ["ES256", "EdDSA", "EdDSA"]


def test_metadata_of_yesterday_replaces_no_key(server: TokenServer, store: FileStore) -> None:
    source = ClientCredentials(issuer=server.issuer, client_id="app", dpop=True)
    keeper = TokenKeeper(source, store)
    accept(server, "EdDSA")
    first = keeper.current()
    accept(server, "ES256")
    source.discover()
    server.metadata["dpop_signing_alg_values_supported"] = ["EdDSA"]
    assert keeper.refresh().key == first.key


def test_the_time_that_a_new_key_takes_is_part_of_the_timeout(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later, other processes may have presented the credential."""

    def slow(*accepted: Any) -> str | None:
        time.sleep(0.5)
        return made(*accepted)

    made = dpop.new_key
    source = ClientCredentials(issuer=server.issuer, client_id="app", dpop=True, timeout=0.5)
    source.discover()
    monkeypatch.setattr(dpop, "new_key", slow)
    with pytest.raises(RefreshTemporarilyFailed, match="took the total timeout") as caught:
        source()
    assert caught.value.processed is False
    assert posted(server) == []


def test_a_login_makes_its_key_by_the_metadata(server: TokenServer, store: FileStore) -> None:
    accept(server, "EdDSA")
    source = RefreshToken(issuer=server.issuer, client_id="app", dpop=True)
    login(source, store, flow="device", show=lambda text: server.approve_device())
    assert {*posted(server)} == {"EdDSA"}


def test_without_an_algorithm_of_ours_nothing_is_sent(
    server: TokenServer, store: FileStore
) -> None:
    accept(server, "ES512", "<b>")
    keeper = TokenKeeper(refreshing(server), store)
    message = (
        r"No key can be made for the tokens of .*Only proofs with ES512, <b> are accepted\. Nothing"
    )
    for source in (keeper, ClientCredentials(issuer=server.issuer, client_id="app", dpop=True)):
        with pytest.raises(RefreshConfigError, match=message):
            source.current() if isinstance(source, TokenKeeper) else source()
    assert posted(server) == []
    accept(server, "ES512", "ES384")
    assert keeper.current().is_dpop


def test_while_the_metadata_cannot_be_read_nothing_is_sent_and_all_back_off(
    server: TokenServer, store: FileStore
) -> None:
    accept(server, "EdDSA")
    server.fail_next(503, endpoint="metadata", count=4)
    source = refreshing(server)
    for _ in range(3):
        with pytest.raises(RefreshTemporarilyFailed, match=r"metadata of .* could not be read"):
            TokenKeeper(source, store).current()
    read = [each for each in server.requests if "/.well-known/" in each.path]
    assert len(read) == 4
    document = store.load().document
    assert document is not None
    assert "intent" not in document
    assert TokenKeeper(source, store).refresh().is_dpop
    assert posted(server) == ["EdDSA"]


@pytest.mark.parametrize("dpop", [True, KEY])
def test_metadata_by_which_there_is_no_key_is_read_again_soon(
    server: TokenServer, store: FileStore, dpop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(server, "ES512")
    keeper = TokenKeeper(refreshing(server, dpop), store)
    for seconds in (60, 0, 60):
        monkeypatch.setattr(discovery, "_DOUBTED", seconds)
        with pytest.raises(RefreshConfigError, match=r"(?i)only proofs with ES512"):
            keeper.current()
    read = [each for each in server.requests if "/.well-known/" in each.path]
    assert len(read) == 2  # for the first, and after the second
    server.metadata.clear()
    with pytest.raises(RefreshConfigError):
        keeper.current()
    monkeypatch.setattr(discovery, "_DOUBTED", 0)
    with pytest.raises(RefreshConfigError):
        keeper.current()
    assert keeper.current().is_dpop


# --- a key that is configured ------------------------------------------------------------


REFUSED = (
    r"The key that is configured as dpop signs with ES384\. For tokens of http://.*, only proofs "
    r"with ES256, EdDSA are accepted \(RFC 9449\)\. Nothing was sent, and the stored token is "
    r"kept\. Pass a key for one of these algorithms, or dpop=True\."
)


def test_a_configured_key_that_the_server_does_not_accept_is_refused_before_anything_is_sent(
    server: TokenServer, store: FileStore
) -> None:
    keeper = TokenKeeper(refreshing(server, KEY), store)
    first = keeper.current()
    accept(server, "ES256", "EdDSA")
    with pytest.raises(RefreshConfigError, match=REFUSED):
        keeper.refresh()
    with pytest.raises(RefreshConfigError, match=REFUSED):
        ClientCredentials(issuer=server.issuer, client_id="app", dpop=KEY)()
    assert posted(server) == ["ES384"]
    document = store.load().document
    assert document is not None
    assert "intent" not in document
    assert keeper.current() == first
    accept(server, "ES256", "ES384")
    assert keeper.refresh().is_dpop


@pytest.mark.parametrize("flow", ["browser", "device", "paste"])
def test_a_login_with_such_a_key_ends_before_the_user_is_asked(
    server: TokenServer, store: FileStore, flow: str
) -> None:
    accept(server, "ES256", "EdDSA")
    shown: list[str] = []
    source = RefreshToken(issuer=server.issuer, client_id="app", dpop=KEY)
    with pytest.raises(RefreshConfigError, match=REFUSED):
        login(source, store, flow=flow, show=shown.append, browser=shown.append)
    assert shown == []
    assert {each.path for each in server.requests} == {"/.well-known/oauth-authorization-server"}


def test_a_refresh_token_with_a_key_of_its_own_needs_no_other(
    server: TokenServer, store: FileStore
) -> None:
    mine = Key.generate()
    accept(server, "ES256")
    source = RefreshToken(issuer=server.issuer, client_id="app", dpop=KEY)
    keeper = TokenKeeper(source, store)
    issued = server.issue(client="app", thumbprint=mine.thumbprint)
    keeper.adopt({**issued, "token_type": "DPoP", "dpop_key": mine.private_jwk()})
    assert keeper.refresh().is_dpop
    assert posted(server) == ["ES256"]
