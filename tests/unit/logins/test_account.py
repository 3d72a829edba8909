"""Whose login it is: what the ID token says, and what the next login may replace."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    FileStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshToken,
    Token,
    TokenError,
    TokenKeeper,
    login,
    logout,
)
from tokenadapter.core.record import Record
from tokenadapter.testing import Browser, TokenServer
from tokenadapter.values import Account

LogIn = Callable[..., Token]


@pytest.fixture
def source(server: TokenServer) -> RefreshToken:
    return RefreshToken(
        issuer=server.issuer, client_id="client", client_secret="a-secret", scope="openid read"
    )


@pytest.fixture
def server() -> Any:
    with TokenServer(clients={"client": "a-secret"}, rotate=True, device_interval=0.05) as server:
        yield server


@pytest.fixture
def log_in(source: RefreshToken, store: FileStore) -> LogIn:
    def log_in(user: str | None = None, **options: Any) -> Token:
        browser = Browser(user=user)
        settings = {"flow": "browser", "browser": browser, "show": lambda text: None, **options}
        try:
            return login(settings.pop("source", source), store, **settings)
        finally:
            browser.join()

    return log_in


def account(store: FileStore) -> Account | None:
    document = store.load().document
    assert document is not None
    return Record.from_document(document).account


def test_the_account_of_a_login_is_kept_with_the_token(
    log_in: LogIn, store: FileStore, source: RefreshToken, server: TokenServer
) -> None:
    log_in("ada")
    assert account(store) == Account(server.url, "ada", "ada")
    TokenKeeper(source, store).refresh()
    assert account(store) == Account(server.url, "ada", "ada")


def test_a_login_as_somebody_else_changes_nothing(
    log_in: LogIn, store: FileStore, server: TokenServer
) -> None:
    kept = log_in("ada")
    with pytest.raises(ReauthRequired, match=r"made as 'bob', but .* of 'ada'") as caught:
        log_in("bob")
    assert caught.value.reason == "login_failed"
    assert "login(switch=True)" in str(caught.value)
    document = store.load().document
    assert document is not None
    assert Record.from_document(document).token == kept
    assert account(store) == Account(server.url, "ada", "ada")


def test_a_switch_replaces_the_token_of_somebody_else(log_in: LogIn, store: FileStore) -> None:
    log_in("ada")
    log_in("bob", switch=True)
    assert str(account(store)) == "bob"


def test_the_same_user_logs_in_again(log_in: LogIn, store: FileStore, server: TokenServer) -> None:
    first = log_in("ada")
    server.claims["preferred_username"] = "Countess"
    assert log_in("ada").access_token != first.access_token
    assert account(store) == Account(server.url, "ada", "Countess")


def test_after_a_logout_anybody_may_log_in(
    log_in: LogIn, store: FileStore, source: RefreshToken
) -> None:
    log_in("ada")
    logout(source, store)
    assert account(store) is None
    log_in("bob")
    assert str(account(store)) == "bob"


def test_a_token_from_elsewhere_has_no_account(
    log_in: LogIn, store: FileStore, source: RefreshToken, server: TokenServer
) -> None:
    log_in("ada")
    TokenKeeper(source, store).adopt(server.issue())
    assert account(store) is None
    log_in("ada")
    TokenKeeper(source, store).adopt(
        {"refresh_token": server.issue("openid read")["refresh_token"]}
    )
    assert account(store) is None


def test_a_device_login_has_an_account_too(
    log_in: LogIn, store: FileStore, server: TokenServer
) -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        if not shown:
            server.approve_device(user="ada")
        shown.append(text)

    log_in(flow="device", show=show)
    assert str(account(store)) == "ada"


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "ada@example.com", "name": "Ada"}, "ada@example.com"),
        ({"preferred_username": None, "name": "Ada"}, "Ada"),
        ({"preferred_username": " ", "name": ["Ada"]}, "ada"),
        ({"email": "a\x1b[2Jb\nc"}, "a [2Jb c"),
        ({"email": "x" * 10_000}, "x" * 199 + "…"),
    ],
)
def test_the_account_has_a_readable_name(
    log_in: LogIn, store: FileStore, server: TokenServer, claims: dict[str, Any], name: str
) -> None:
    server.claims.update(claims)
    log_in("ada")
    assert str(account(store)) == name


def test_a_name_that_repeats_a_secret_is_not_kept(
    log_in: LogIn, store: FileStore, server: TokenServer
) -> None:
    server.claims["email"] = "a-secret@example.com"
    log_in("ada")
    assert "a-secret" not in Path(store.path).read_text().replace('"id_token"', "")
    assert "withheld" in str(account(store))


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://id.example"}, "another issuer"),
        ({"iss": None}, "names no issuer"),
        ({"iss": "x" * 2049}, "names no issuer"),
        ({"iss": "https://a-secret.example"}, "names no issuer"),
        ({"aud": "other"}, "another client"),
        ({"aud": ["other", "another"]}, "another client"),
        ({"aud": None}, "another client"),
        ({"nonce": "of another login"}, "its nonce differs"),
        ({"nonce": None}, "its nonce differs"),
        ({"exp": time.time() - 3600}, "it has expired"),
        ({"exp": float("nan")}, "it has expired"),
        ({"exp": None}, "does not say when it expires"),
        ({"exp": True}, "does not say when it expires"),
        ({"sub": None}, "names no user"),
        ({"sub": ""}, "names no user"),
        ({"sub": "x" * 256}, "names no user"),
        ({"sub": "a-secret"}, "names no user"),
        ({"sub": 7}, "names no user"),
    ],
)
def test_an_id_token_that_is_not_for_this_login_is_refused(
    log_in: LogIn, store: FileStore, server: TokenServer, claims: dict[str, Any], why: str
) -> None:
    server.claims.update(claims)
    with pytest.raises(RefreshConfigError, match=f"ID token of the login is refused: .*{why}"):
        log_in("ada")
    assert store.load().document is None


@pytest.mark.parametrize("claims", [{"aud": ["other", "client"]}, {"exp": 10**400}])
def test_an_id_token_may_be_for_several_clients_and_for_ever(
    log_in: LogIn, store: FileStore, server: TokenServer, claims: dict[str, Any]
) -> None:
    server.claims.update(claims)
    log_in("ada")
    assert str(account(store)) == "ada"


@pytest.mark.parametrize("id_token", ["", "x", "a.b.c", "a.W10.c", "a.b.c.d.e", 7, {"sub": "ada"}])
def test_an_invalid_id_token_is_refused(
    log_in: LogIn, server: TokenServer, id_token: object
) -> None:
    server.fail_next(200, body={"access_token": "a", "id_token": id_token})
    with pytest.raises(RefreshConfigError, match="it cannot be read"):
        log_in("ada")


def test_an_id_token_that_was_not_asked_for_is_ignored(
    log_in: LogIn, store: FileStore, server: TokenServer
) -> None:
    plain = RefreshToken(issuer=server.issuer, client_id="client", client_secret="a-secret")
    server.fail_next(200, body={"access_token": "a", "refresh_token": "r", "id_token": "x"})
    log_in("ada", source=plain)
    assert account(store) is None


def test_without_metadata_iss_names_the_issuer_of_the_id_token(
    log_in: LogIn, server: TokenServer
) -> None:
    plain = RefreshToken(
        server.token_url, client_id="client", client_secret="a-secret", scope="openid"
    )
    options = {"source": plain, "authorization_url": server.authorization_url}
    server.claims["iss"] = f"{server.url}/"
    assert log_in("ada", **options).refresh_token
    with pytest.raises(RefreshConfigError, match="it is of another issuer"):
        log_in("ada", iss=server.url, **options)


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"sub": "bob"}])
def test_no_traceback_of_a_refused_login_contains_a_secret(
    log_in: LogIn, server: TokenServer, claims: dict[str, Any]
) -> None:
    log_in("ada")
    server.claims.update(claims)
    with pytest.raises(TokenError) as caught:
        log_in("ada")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert not [secret for secret in ("access-", "refresh-", "a-secret") if secret in text]
