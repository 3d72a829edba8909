"""The user of an API whose tokens are bound to a key: because it requires that, or is set."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from profiles import write

from tokenadapter import (
    ApiUser,
    FileStore,
    Key,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    Token,
    TokenAdapter,
    TokenKeeper,
    login,
)
from tokenadapter.cli.token_state import token_state
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import unb64
from tokenadapter.sources import discovery, protected_resource
from tokenadapter.testing import Browser, TokenServer

KEY = Key.generate()


@pytest.fixture
def proving() -> Iterator[TokenServer]:
    """A server whose API requires tokens that are bound to a key, and says so."""
    with TokenServer(dpop=True, dpop_nonces=True) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")


def log_in(source: Any, store: Any = None) -> Token:
    browser = Browser()
    try:
        return login(source, store, flow="browser", browser=browser, show=lambda text: None)
    finally:
        browser.join()


def registered(server: TokenServer) -> list[bool | None]:
    """Whether clients said that all their tokens are bound."""
    return [
        json.loads(each.body).get("dpop_bound_access_tokens")
        for each in server.requests
        if each.path == "/register"
    ]


def thumbprint(token: Token) -> str:
    assert token.key is not None
    return algorithms.thumbprint(json.loads(token.key))


def proven_with(server: TokenServer, path: str = "/token") -> set[str | None]:
    """The keys of the requests for *path* whose proofs were valid."""
    return {each.thumbprint for each in server.requests if each.path == path} - {None}


def algorithm(server: TokenServer) -> str:
    """That of the last proof."""
    proof = server.requests[-1].headers["dpop"]
    found: str = json.loads(unb64(proof.partition(".")[0]))["alg"]
    return found


# --- an API that requires it -----------------------------------------------------------------


PROGRAM = """
import sys
import requests
from tokenadapter import ApiUser, TokenAdapter
session = requests.Session()
adapter = TokenAdapter(sys.argv[1], ApiUser(sys.argv[1]), store=sys.argv[2])
adapter.mount(session)
for _ in range(2):
    adapter.keeper.refresh()
    session.get(sys.argv[1] + "notes").raise_for_status()
"""


def test_an_api_that_requires_it_needs_no_argument(proving: TokenServer, store: FileStore) -> None:
    token = log_in(ApiUser(proving.api_url), store)
    assert token.is_dpop
    assert registered(proving) == [True]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, proving.api_url, store.path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert proving.stats.refreshes == 2
    assert proven_with(proving) == proven_with(proving, "/api/notes") == {thumbprint(token)}


def test_without_cryptography_the_login_names_the_extra(proving: TokenServer) -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from tokenadapter import ApiUser, RefreshConfigError, login
try:
    login(ApiUser(sys.argv[1]), flow="browser", browser=str, show=str, timeout=10)
except RefreshConfigError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, proving.api_url], capture_output=True, text=True
    )
    assert done.stdout == ""
    assert "No key can be made for the tokens of" in done.stderr
    assert "pip install 'tokenadapter[crypto]'" in done.stderr
    assert not {"/register", "/token"} & {each.path for each in proving.requests}


@pytest.mark.parametrize("said", [None, False, "true", 1])
def test_an_api_that_does_not_require_it_gets_no_proof(
    server: TokenServer, store: FileStore, said: Any
) -> None:
    server.resource_metadata["dpop_bound_access_tokens_required"] = said
    source = ApiUser(server.api_url)
    assert log_in(source, store).is_bearer
    TokenKeeper(source, store).refresh()
    assert registered(server) == [None]
    assert all("dpop" not in each.headers for each in server.requests)


# --- where it is set -------------------------------------------------------------------------


@pytest.fixture
def silent(proving: TokenServer) -> TokenServer:
    """A server whose API says nothing of keys."""
    proving.resource_metadata["dpop_bound_access_tokens_required"] = None
    proving.resource_metadata["dpop_signing_alg_values_supported"] = None
    return proving


def test_true_makes_a_key_that_stays_with_the_login(silent: TokenServer, store: FileStore) -> None:
    source = ApiUser(silent.api_url, dpop=True)
    token = log_in(source, store)
    assert TokenKeeper(source, store).refresh().key == token.key
    # The setting is for the next login; this one stays bound to its key.
    assert TokenKeeper(ApiUser(silent.api_url), store).refresh().key == token.key
    assert proven_with(silent) == {thumbprint(token)}
    assert registered(silent) == [True]
    second = log_in(source, store)
    assert second.key != token.key
    assert registered(silent) == [True]


def test_a_configured_key_is_used_and_never_stored(silent: TokenServer, store: FileStore) -> None:
    source = ApiUser(silent.api_url, dpop=KEY)
    session = requests.Session()
    TokenAdapter(silent.api_url, source, store=store).mount(session)
    token = log_in(source, store)
    assert (token.is_dpop, token.key) == (True, None)
    assert session.get(f"{silent.api_url}notes").ok
    TokenKeeper(source, store).refresh()
    assert proven_with(silent) == proven_with(silent, "/api/notes") == {KEY.thumbprint}
    assert "dpop_key" not in Path(store.path).read_text()


def test_a_client_that_was_registered_before_may_bind_its_tokens(
    silent: TokenServer, store: FileStore
) -> None:
    source = ApiUser(
        silent.api_url, client_id="client", client_secret="secret", issuer=silent.issuer, dpop=True
    )
    assert log_in(source, store).is_dpop
    assert registered(silent) == []


def test_a_change_of_the_setting_registers_another_client(
    server: TokenServer, store: FileStore
) -> None:
    for dpop in (False, True, KEY, True, False):
        log_in(ApiUser(server.api_url, dpop=dpop), store)
    assert registered(server) == [None, True, None]


@pytest.mark.parametrize("dpop", [False, True])
def test_a_renewal_binds_a_login_that_was_made_without_a_key(
    server: TokenServer, store: FileStore, dpop: bool
) -> None:
    log_in(ApiUser(server.api_url), store)
    server.resource_metadata["dpop_bound_access_tokens_required"] = not dpop
    discovery._known.clear()
    keeper = TokenKeeper(ApiUser(server.api_url, dpop=dpop), store)
    server.fail_next(drop=True)
    with pytest.raises(RefreshTemporarilyFailed):
        keeper.refresh()
    # The key was saved before the request was sent.
    document = store.load().document
    assert document is not None
    assert json.loads(document["intent"]["key"])["kty"] == "EC"
    assert "dpop" in server.requests[-1].headers


def test_a_renewal_says_that_the_metadata_cannot_be_read(
    server: TokenServer, store: FileStore
) -> None:
    log_in(ApiUser(server.api_url), store)
    discovery._known.clear()
    server.fail_next(503, endpoint="resource_metadata", count=None)
    sent = []
    for _ in range(2):
        keeper = TokenKeeper(ApiUser(server.api_url, dpop=True), store)
        token = keeper.current()
        with pytest.raises(RefreshTemporarilyFailed, match=r"metadata of .* could not be read"):
            keeper.renew(token)
        sent.append(len(server.requests))
    assert sent[0] == sent[1]  # the second one backs off


@pytest.mark.parametrize(
    ("by_server", "by_api", "alg"),
    [
        (None, ["EdDSA"], "EdDSA"),
        (["ES256", "ES384"], ["ES384", "EdDSA"], "ES384"),
        (["EdDSA"], None, "EdDSA"),
        (["EdDSA"], ["ES384"], "EdDSA"),
    ],
)
def test_a_new_key_is_for_an_algorithm_that_server_and_api_accept(
    silent: TokenServer,
    store: FileStore,
    by_server: list[str] | None,
    by_api: list[str] | None,
    alg: str,
) -> None:
    silent.metadata["dpop_signing_alg_values_supported"] = by_server
    silent.resource_metadata["dpop_signing_alg_values_supported"] = by_api
    assert log_in(ApiUser(silent.api_url, dpop=True), store).is_dpop
    assert algorithm(silent) == alg


def test_an_api_by_which_there_is_no_key_is_asked_again_soon(
    silent: TokenServer, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_DOUBTED", 0)
    silent.metadata["dpop_signing_alg_values_supported"] = None
    source = ApiUser(silent.api_url, dpop=KEY)
    log_in(source, store)
    discovery._known.clear()
    silent.resource_metadata["dpop_signing_alg_values_supported"] = ["ES512"]
    keeper = TokenKeeper(source, store)
    with pytest.raises(RefreshConfigError, match="only proofs with ES512"):
        keeper.refresh()
    silent.resource_metadata["dpop_signing_alg_values_supported"] = ["ES256"]
    assert keeper.refresh().is_dpop


def test_however_many_algorithms_are_listed_they_are_compared_once(
    server: TokenServer, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    class Word(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return str.__eq__(self, other)

    log_in(ApiUser(server.api_url), store)
    many = [*map(str, range(1000)), "ES256"]
    for metadata in (server.metadata, server.resource_metadata):
        metadata["dpop_signing_alg_values_supported"] = many
    read = discovery.texts
    for module in (discovery, protected_resource):
        monkeypatch.setattr(module, "texts", lambda *said: tuple(map(Word, read(*said))))
    discovery._known.clear()
    TokenKeeper(ApiUser(server.api_url, dpop=True), store).refresh()
    assert "dpop" in server.requests[-1].headers
    assert len(compared) < 10 * len(many)


def test_a_configured_key_that_the_api_does_not_accept_is_refused(
    silent: TokenServer, store: FileStore
) -> None:
    silent.resource_metadata["dpop_signing_alg_values_supported"] = ["EdDSA"]
    with pytest.raises(RefreshConfigError, match=r"signs with ES256\. .* only proofs with EdDSA"):
        log_in(ApiUser(silent.api_url, dpop=KEY), store)
    assert not {"/register", "/token"} & {each.path for each in silent.requests}


def test_a_list_of_algorithms_that_is_none_is_refused(proving: TokenServer) -> None:
    proving.resource_metadata["dpop_signing_alg_values_supported"] = "ES256"
    with pytest.raises(RefreshConfigError, match="dpop_signing_alg_values_supported is not a list"):
        log_in(ApiUser(proving.api_url))


@pytest.mark.parametrize("dpop", ["true", '"key.json"'])
def test_a_profile_binds_the_tokens(silent: TokenServer, tmp_path: Path, dpop: str) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY.private_jwk()))
    (tmp_path / "key.json").chmod(0o600)
    text = f"""
[notes]
prefix = "{silent.api_url}"
store = "file:state/token.json"

[notes.source]
type = "api_user"
url = "{silent.api_url}"
dpop = {dpop}
"""
    profile = Profile(ConfigFile.read(str(write(tmp_path, text))), "notes")
    keeper = profile.keeper()
    token = log_in(keeper)
    assert token.is_dpop
    keeper.refresh()
    session = requests.Session()
    for adapter in profile.adapters():
        adapter.mount(session)
    assert session.get(f"{silent.api_url}notes").ok
    bound_to = KEY.thumbprint if token.key is None else thumbprint(token)
    assert proven_with(silent) == proven_with(silent, "/api/notes") == {bound_to}
    assert "key" in token_state(profile)["bound_to"]
