"""A login in a web application: the redirect to the server, and the view to which it leads back."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests

from tokenadapter import (
    ApiUser,
    ClientCredentials,
    FileStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    Token,
    TokenError,
    TokenKeeper,
    UnsafeTarget,
    begin_login,
    finish_login,
)
from tokenadapter.testing import TokenServer

DONE = "https://app.example.com/done"
Flow = Callable[..., Token]


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"client": "a-secret"}, rotate=True) as server:
        yield server


@pytest.fixture
def source(server: TokenServer) -> RefreshToken:
    return RefreshToken(
        issuer=server.issuer, client_id="client", client_secret="a-secret", scope="openid read"
    )


def returned(url: str, user: str = "ada", decision: str = "approve") -> str:
    """Where the server sends the browser after the decision of the user."""
    chosen = urlencode({"decision": decision, "user": user})
    page = requests.get(f"{url}&{chosen}", allow_redirects=False, timeout=10)
    return page.headers["Location"]


def changed(answer: str, **parameters: str | None) -> str:
    """*answer* with other parameters; without those that are ``None``."""
    values = {**dict(parse_qsl(urlsplit(answer).query)), **parameters}
    query = urlencode({name: value for name, value in values.items() if value is not None})
    return f"{DONE}?{query}"


@pytest.fixture
def refused(source: RefreshToken, store: FileStore, server: TokenServer) -> Any:
    """Finish a login, and return the error; no code was sent, and nothing was stored."""

    def refused(pending: Any, answer: str) -> TokenError:
        with pytest.raises(TokenError) as caught:
            finish_login(source, store, pending=pending, answer=answer)
        assert server.stats.token_requests == 0
        assert store.load().document is None
        return caught.value

    return refused


def test_a_login_that_another_process_finishes_stores_the_token(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    url, pending = begin_login(source, DONE)
    assert dict(parse_qsl(urlsplit(url).query))["redirect_uri"] == DONE
    session = json.dumps(pending)
    other = pickle.loads(pickle.dumps(TokenKeeper(source, store)))
    token = finish_login(other, pending=json.loads(session), answer=returned(url))
    assert token.refresh_token
    assert TokenKeeper(source, store).current() == token


def test_a_keeper_uses_the_token_of_a_login_at_once(source: RefreshToken, store: FileStore) -> None:
    keeper = TokenKeeper(source, store)
    for _ in range(2):
        url, pending = begin_login(keeper, DONE)
        token = finish_login(keeper, pending=pending, answer=returned(url))
        assert keeper.current() == token


@pytest.mark.parametrize("parameter", ["state", "nothing"])
def test_the_answer_to_another_login_is_refused(
    source: RefreshToken, refused: Any, parameter: str
) -> None:
    url, _ = begin_login(source, DONE)
    _, pending = begin_login(source, DONE)
    answer = returned(url) if parameter == "state" else DONE
    error = refused(pending, answer)
    assert "its state differs" in str(error)
    assert error.reason == "login_failed"


@pytest.mark.parametrize("pending", [None, {}, {"state": "x"}, {"other": "x"}])
def test_an_answer_without_a_login_in_the_session_is_refused(
    source: RefreshToken, refused: Any, pending: Any
) -> None:
    url, _ = begin_login(source, DONE)
    assert "no login is pending in this session" in str(refused(pending, returned(url)))


@pytest.mark.parametrize("place", ["https://app.example.com/other", "https://[app/done", "/"])
def test_an_answer_that_came_to_another_page_is_refused(
    source: RefreshToken, refused: Any, place: str
) -> None:
    url, pending = begin_login(source, DONE)
    refused(pending, f"{place}?{urlsplit(returned(url)).query}")


def test_a_path_is_enough_of_the_answer(source: RefreshToken, store: FileStore) -> None:
    url, pending = begin_login(source, DONE)
    answer = returned(url).removeprefix("https://app.example.com")
    assert finish_login(source, store, pending=pending, answer=answer).refresh_token


def test_a_login_that_began_for_another_client_or_server_is_refused(
    source: RefreshToken, refused: Any
) -> None:
    with TokenServer() as another:
        elsewhere = RefreshToken(issuer=another.issuer, client_id="client", client_secret="secret")
        url, pending = begin_login(elsewhere, DONE)
        error = refused(json.loads(json.dumps(pending)), returned(url))
    assert "another client or server" in str(error)


def test_no_frame_of_an_error_has_the_secrets_of_the_login(
    store: FileStore,
) -> None:
    with TokenServer(dpop=True, clients={"client": None}) as server:
        source = RefreshToken(issuer=server.issuer, client_id="client", dpop=True)
        session = {}
        url, session["login"] = begin_login(source, DONE)
        answer = returned(url)
        code = dict(parse_qsl(urlsplit(answer).query))["code"]
        secrets = [code, session["login"]["verifier"], session["login"]["key"]]
        server.fail_next(503)
        with pytest.raises(TokenError) as caught:
            finish_login(source, store, pending=session.pop("login"), answer=answer)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    shown = repr([frame.f_locals for frame in frames]) + str(caught.value)
    assert frames
    assert not [secret for secret in secrets if secret in shown]


def test_a_repeated_parameter_is_refused(source: RefreshToken, refused: Any) -> None:
    url, pending = begin_login(source, DONE)
    refused(pending, f"{returned(url)}&code=another")


def test_an_answer_of_another_issuer_is_refused(source: RefreshToken, refused: Any) -> None:
    url, pending = begin_login(source, DONE)
    answer = changed(returned(url), iss="https://evil.example.com")
    assert isinstance(refused(pending, answer), RefreshConfigError)


def test_an_answer_that_must_name_its_issuer_is_refused_without(
    source: RefreshToken, refused: Any, server: TokenServer
) -> None:
    url, pending = begin_login(source, DONE, iss=server.issuer)
    refused(pending, changed(returned(url), iss=None))


def test_a_user_who_denies_is_not_logged_in(source: RefreshToken, refused: Any) -> None:
    url, pending = begin_login(source, DONE)
    error = refused(pending, returned(url, decision="deny"))
    assert isinstance(error, ReauthRequired)
    assert "not approved (access_denied" in str(error)


def test_the_login_of_another_account_needs_a_switch(
    source: RefreshToken, store: FileStore
) -> None:
    url, pending = begin_login(source, DONE)
    kept = finish_login(source, store, pending=pending, answer=returned(url, "ada"))
    url, pending = begin_login(source, DONE)
    with pytest.raises(ReauthRequired, match=r"made as 'bob', but .* of 'ada'"):
        finish_login(source, store, pending=pending, answer=returned(url, "bob"))
    assert TokenKeeper(source, store).current() == kept
    url, pending = begin_login(source, DONE)
    answer = returned(url, "bob")
    token = finish_login(source, store, pending=pending, answer=answer, switch=True)
    assert TokenKeeper(source, store).current() == token


def test_a_token_is_bound_to_the_key_of_its_login(store: FileStore) -> None:
    with TokenServer(dpop=True, clients={"client": None}) as server:
        source = RefreshToken(issuer=server.issuer, client_id="client", dpop=True)
        url, pending = begin_login(source, DONE)
        token = finish_login(
            source, store, pending=json.loads(json.dumps(pending)), answer=returned(url)
        )
        assert token.key == pending["key"]


def test_without_metadata_the_endpoint_is_given(store: FileStore, server: TokenServer) -> None:
    source = RefreshToken(server.token_url, client_id="client", client_secret="a-secret")
    with pytest.raises(ValueError, match="authorization_url is missing"):
        begin_login(source, DONE)
    url, pending = begin_login(source, DONE, authorization_url=server.authorization_url)
    assert finish_login(source, store, pending=pending, answer=returned(url)).refresh_token


def test_the_answer_must_not_travel_in_clear(source: RefreshToken) -> None:
    with pytest.raises(UnsafeTarget, match=r"http://app\.example\.com/done in clear"):
        begin_login(source, "http://app.example.com/done")


@pytest.mark.parametrize("kind", ["client", "api"])
def test_a_source_that_cannot_log_in_a_user_here_is_refused(server: TokenServer, kind: str) -> None:
    source: Any = ClientCredentials(server.token_url, client_id="client")
    if kind == "api":
        source = ApiUser(server.api_url)
    expected = "register your web application" if kind == "api" else "no user logs in"
    with pytest.raises(TypeError, match=expected):
        begin_login(source, DONE)
    assert not server.requests


def test_what_is_checked_shows_no_secret(source: RefreshToken) -> None:
    from tokenadapter.logins.authorization import Pending

    _, pending = begin_login(source, DONE)
    assert repr(Pending(**pending)) == "<Pending>"
