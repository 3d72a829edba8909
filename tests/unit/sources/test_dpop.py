"""Proofs at the token endpoint, and the key that stays with the token."""

from __future__ import annotations

import contextlib
import json
import pickle
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    ClientCredentials,
    EncryptedStore,
    FileStore,
    Key,
    Password,
    PrivateKeyJWT,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenError,
    TokenKeeper,
)
from tokenadapter.keys import algorithms
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.testing import TokenServer

KEY = Key.generate()
ASSERTING = Key.generate()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    clients = {"app": None, "client": "secret", "asserting": ASSERTING.public_jwk}
    with TokenServer(dpop=True, dpop_nonces=True, clients=clients) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")


def stored(store: FileStore | EncryptedStore) -> dict[str, Any]:
    document = store.load().document
    assert document is not None
    return document


def thumbprint(key: str | None) -> str:
    assert key is not None
    return algorithms.thumbprint(json.loads(key))


def proven_with(server: TokenServer) -> list[str | None]:
    """The keys of the token requests whose proofs were valid."""
    requests = [one for one in server.requests if one.path == "/token"]
    return [one.thumbprint for one in requests if one.thumbprint is not None]


def refreshing(server: TokenServer, first: str | None = None, **options: Any) -> RefreshToken:
    return RefreshToken(server.token_url, first, client_id="app", dpop=True, **options)


# --- the proof ---------------------------------------------------------------------------


def test_a_nonce_costs_one_more_request_and_only_the_first_time(server: TokenServer) -> None:
    source = ClientCredentials(server.token_url, client_id="app", dpop=True)
    token = source()
    assert (token.token_type, server.stats.token_requests) == ("DPoP", 2)
    again = source(token)
    assert again.key == token.key
    assert server.stats.token_requests == 3
    server.change_nonce()
    source(token)
    assert server.stats.token_requests == 5


def test_a_refresh_token_is_presented_once_whatever_the_nonce_is(
    server: TokenServer, store: FileStore
) -> None:
    keeper = TokenKeeper(refreshing(server), store)
    keeper.adopt(server.issue(client="app", thumbprint=KEY.thumbprint) | kept(KEY))
    for count in range(1, 4):
        server.change_nonce()
        keeper.refresh()
        assert server.stats.refreshes == count
    assert server.stats.reuse_detections == 0
    assert {*proven_with(server)} == {KEY.thumbprint}


def test_a_request_that_is_sent_again_has_another_assertion(server: TokenServer) -> None:
    source = ClientCredentials(
        server.token_url, client_id="asserting", client_auth=PrivateKeyJWT(ASSERTING), dpop=True
    )
    assert source().token_type == "DPoP"
    first, second = (one.form["client_assertion"] for one in server.requests)
    assert first != second


def test_a_server_that_goes_on_refusing_proofs_is_asked_twice(
    server: TokenServer, store: FileStore
) -> None:
    first = server.issue(client="app")["refresh_token"]
    keeper = TokenKeeper(refreshing(server, first), store)
    headers = {"DPoP-Nonce": "n"}
    server.fail_next(400, error="use_dpop_nonce", headers=headers, count=2)
    with pytest.raises(RefreshTemporarilyFailed, match="Nothing was spent") as caught:
        keeper.current()
    assert caught.value.error == "use_dpop_nonce"
    assert "intent" not in stored(store)
    assert server.stats.token_requests == 2
    assert keeper.refresh().token_type == "DPoP"


@pytest.mark.parametrize("status", [200, 500])
def test_a_refresh_token_is_presented_again_only_if_a_proof_was_refused(
    server: TokenServer, status: int
) -> None:
    headers = {"DPoP-Nonce": "n", "WWW-Authenticate": 'DPoP error="use_dpop_nonce"'}
    answer = {"access_token": "t0ken", "refresh_token": "next"}
    server.fail_next(status, body=answer, headers=headers)
    with contextlib.suppress(RefreshTemporarilyFailed):
        refreshing(server, server.issue(client="app")["refresh_token"])()
    assert server.stats.token_requests == 1


def test_a_proof_that_is_refused_twice_is_a_mistake_in_the_configuration(
    server: TokenServer,
) -> None:
    source = ClientCredentials(server.token_url, client_id="app", dpop=True)
    server.fail_next(400, error="invalid_dpop_proof", count=2)
    with pytest.raises(RefreshConfigError, match="Otherwise check the key and the clock of"):
        source()
    assert server.stats.token_requests == 2


def test_the_error_of_a_source_without_a_key_names_the_argument(server: TokenServer) -> None:
    source = ClientCredentials(server.token_url, client_id="app")
    with pytest.raises(RefreshConfigError, match=r'"the proof is missing".* Pass dpop=True if'):
        source()


@pytest.mark.parametrize("ahead", [-4000.0, 4000.0])
def test_if_our_clock_is_wrong_the_time_of_the_server_is_used(ahead: float) -> None:
    with TokenServer(dpop=True, clock=lambda: time.time() + ahead, clients={"app": None}) as server:
        source = ClientCredentials(server.token_url, client_id="app", dpop=True)
        assert source().token_type == "DPoP"
        assert source().token_type == "DPoP"
        assert server.stats.token_requests == 3


def test_both_requests_share_one_time_out(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    exchange = Endpoint.exchange

    def watched(self: Endpoint, *args: Any) -> Any:
        left.append(args[-1])
        return exchange(self, *args)

    monkeypatch.setattr(Endpoint, "exchange", watched)
    ClientCredentials(server.token_url, client_id="app", dpop=True, timeout=9.0)()
    first, second = left
    assert 0 < second < first < 9.0


# --- the key -----------------------------------------------------------------------------


def kept(key: Key) -> dict[str, Any]:
    """What a token response has in addition if its key is kept with the token."""
    return {"dpop_key": key.private_jwk(), "token_type": "DPoP"}


def test_the_key_is_saved_with_the_token_and_used_by_the_next_process(
    server: TokenServer, store: FileStore
) -> None:
    source = Password(server.token_url, "user", "password", client_id="app", dpop=True)
    first = TokenKeeper(source, store).current()
    server.expire_now()
    second = TokenKeeper(source, FileStore(store.path)).refresh()
    assert second.access_token != first.access_token
    assert second.key == first.key == stored(store)["token"]["dpop_key"]
    assert proven_with(server) == [thumbprint(first.key)] * 2


def test_a_key_that_the_server_may_have_bound_outlives_a_lost_answer(tmp_path: Path) -> None:
    with TokenServer(dpop=True, clients={"app": None}, grace=60) as server:
        first = server.issue(client="app")["refresh_token"]
        store = FileStore(tmp_path / "one.json")
        server.fail_next(drop=True)
        with pytest.raises(RefreshTemporarilyFailed):
            TokenKeeper(refreshing(server, first, grace=60.0), store).current()
        intended = stored(store)["intent"]["key"]
        assert proven_with(server) == [thumbprint(intended)]
        # Another process presents the refresh token, which is bound to that key by now.
        token = TokenKeeper(refreshing(server, first, grace=60.0), store).refresh()
        assert token.key == intended
        assert proven_with(server) == [thumbprint(intended)] * 2
        assert "intent" not in stored(store)


def test_of_two_processes_that_begin_together_one_makes_the_key(
    server: TokenServer, store: FileStore
) -> None:
    first = server.issue(client="app")["refresh_token"]
    keepers = [TokenKeeper(refreshing(server, first), FileStore(store.path)) for _ in range(4)]
    found: list[Token] = []
    threads = [
        threading.Thread(target=lambda keeper=keeper: found.append(keeper.current()))
        for keeper in keepers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.key for token in found} == {stored(store)["token"]["dpop_key"]}
    assert len(proven_with(server)) == server.stats.renewals == 1


def test_a_configured_key_is_never_stored(server: TokenServer, store: FileStore) -> None:
    first = server.issue(client="app", thumbprint=KEY.thumbprint)["refresh_token"]
    source = RefreshToken(server.token_url, first, client_id="app", dpop=KEY)
    token = TokenKeeper(source, store).current()
    assert token.token_type == "DPoP"
    assert token.key is None
    assert "key" not in json.dumps(stored(store))
    assert proven_with(server) == [KEY.thumbprint]


def test_a_refresh_token_keeps_its_key_when_another_one_is_configured(
    server: TokenServer, store: FileStore
) -> None:
    source = RefreshToken(server.token_url, client_id="app", dpop=Key.generate())
    keeper = TokenKeeper(source, store)
    keeper.adopt(server.issue(client="app", thumbprint=KEY.thumbprint) | kept(KEY))
    assert thumbprint(keeper.refresh().key) == KEY.thumbprint


def test_an_adopted_refresh_token_is_presented_with_its_key(
    server: TokenServer, store: FileStore
) -> None:
    issued = server.issue(client="app", thumbprint=KEY.thumbprint)
    keeper = TokenKeeper(refreshing(server), store)
    given = {"refresh_token": issued["refresh_token"], "dpop_key": KEY.private_jwk()}
    assert thumbprint(keeper.adopt(given).key) == KEY.thumbprint
    assert proven_with(server) == [KEY.thumbprint]
    assert thumbprint(stored(store)["token"]["dpop_key"]) == KEY.thumbprint


def test_a_client_that_presents_itself_changes_to_the_configured_key(
    server: TokenServer,
) -> None:
    made = ClientCredentials(server.token_url, client_id="app", dpop=True)()
    token = ClientCredentials(server.token_url, client_id="app", dpop=KEY)(made)
    assert token.key is None
    assert proven_with(server)[-1] == KEY.thumbprint


def test_a_new_grant_has_another_key(server: TokenServer, store: FileStore) -> None:
    source = Password(server.token_url, "user", "password", client_id="app", dpop=True)
    keeper = TokenKeeper(source, store)
    first = keeper.current().key
    keeper.forget()
    assert "dpop_key" not in json.dumps(stored(store))
    assert keeper.current().key != first


def test_a_bound_refresh_token_is_refused_with_another_key(
    server: TokenServer, store: FileStore
) -> None:
    first = server.issue(client="app", thumbprint=KEY.thumbprint)["refresh_token"]
    with pytest.raises(ReauthRequired, match="bound to another key"):
        TokenKeeper(refreshing(server, first), store).current()


def test_the_type_in_the_answer_decides(store: FileStore) -> None:
    with TokenServer(clients={"app": None}) as server:  # it knows nothing of proofs
        first = server.issue(client="app")["refresh_token"]
        token = TokenKeeper(refreshing(server, first), store).current()
        assert token.is_bearer
        assert "dpop" in server.requests[0].headers


def test_an_answer_cannot_put_a_key_in_the_record(server: TokenServer, store: FileStore) -> None:
    answer = {"access_token": "made-up", "token_type": "DPoP", **kept(KEY)}
    server.fail_next(200, body=answer)
    source = ClientCredentials(server.token_url, client_id="app", dpop=True)
    token = TokenKeeper(source, store).current()
    assert thumbprint(token.key) != KEY.thumbprint
    assert "dpop_key" not in token.extras


# --- secrets -----------------------------------------------------------------------------


def test_no_key_is_shown_or_pickled(server: TokenServer, store: FileStore) -> None:
    source = refreshing(server, server.issue(client="app")["refresh_token"])
    keeper = TokenKeeper(source, store)
    token = keeper.current()
    secret = json.loads(token.key or "")["d"]
    record = keeper._slot.look().record
    intent = record.with_intent("x", 1.0, object(), token.key).intent  # type: ignore[arg-type]
    for shown in (token, source, keeper, record, intent):
        assert secret not in repr(shown)
    assert secret.encode() not in pickle.dumps(keeper)
    assert secret.encode() not in pickle.dumps(source)


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_dpop_proof", "use_dpop_nonce"])
def test_no_variable_of_a_traceback_has_the_key(
    server: TokenServer, store: FileStore, error: str
) -> None:
    keeper = TokenKeeper(refreshing(server), store)
    keeper.adopt(server.issue(client="app", thumbprint=KEY.thumbprint) | kept(KEY))
    server.fail_next(400, error=error, headers={"DPoP-Nonce": "n"}, count=2)
    with pytest.raises(TokenError) as caught:
        keeper.refresh()
    raised: BaseException | None = caught.value
    while raised is not None:
        for frame, _ in traceback.walk_tb(raised.__traceback__):
            if frame.f_code.co_filename != __file__:
                assert KEY.private_jwk()["d"] not in repr(frame.f_locals)
        raised = raised.__cause__ or raised.__context__


def test_an_encrypted_store_encrypts_the_key(server: TokenServer, store: FileStore) -> None:
    source = ClientCredentials(server.token_url, client_id="app", dpop=True)
    encrypted = EncryptedStore(store, EncryptedStore.generate_key(), slot="one")
    token = TokenKeeper(source, encrypted).current()
    secret = json.loads(token.key or "")["d"]
    assert secret in json.dumps(stored(encrypted))
    assert secret not in Path(store.path).read_text()


def test_a_key_in_memory_is_not_pickled_and_a_file_is_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(KEY.private_jwk()))
    path.chmod(0o600)
    by_path = ClientCredentials("https://id.example/", client_id="app", dpop=str(path))
    copy = pickle.loads(pickle.dumps(by_path))
    assert copy.dpop_key.thumbprint == KEY.thumbprint
    in_memory = ClientCredentials("https://id.example/", client_id="app", dpop=KEY)
    with pytest.raises(TypeError, match="A key in memory is not pickled"):
        pickle.dumps(in_memory)


def test_an_unusable_key_is_named_and_nothing_is_sent(server: TokenServer, tmp_path: Path) -> None:
    source = ClientCredentials(server.token_url, client_id="app", dpop=tmp_path / "none.pem")
    with pytest.raises(RefreshConfigError, match=r"none\.pem cannot be read.*Correct dpop"):
        source()
    assert server.stats.token_requests == 0


@pytest.mark.parametrize("dpop", [7, None, object()])
def test_anything_but_a_key_is_a_mistake(dpop: Any) -> None:
    with pytest.raises(TypeError, match="key must be"):
        ClientCredentials("https://id.example/", client_id="app", dpop=dpop)
