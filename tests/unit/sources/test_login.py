"""Logins that are not OAuth."""

from __future__ import annotations

import pickle
import time
from email.utils import formatdate
from typing import Any

import pytest

from tokenadapter import (
    Login,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    Token,
    TokenError,
)
from tokenadapter.protocols import Grant
from tokenadapter.testing import TokenServer

URL = "https://api.example/login"
BODY = {"user": "ada", "password": "p4ssword"}


def logged_in(server: TokenServer, body: Any, *, headers: Any = None, **options: Any) -> Token:
    """What comes of a login that is answered so."""
    server.fail_next(options.pop("status", 200), body=body, headers=headers)
    return Login(server.token_url, json=BODY, **options)()


# What is sent


def test_a_body_is_sent_as_json(server: TokenServer) -> None:
    logged_in(server, {"access_token": "abc"})
    (request,) = server.requests
    assert request.method == "POST"
    assert request.body == b'{"user": "ada", "password": "p4ssword"}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    ("data", "body", "content_type"),
    [
        ({"user": "ada", "pin": "1 2"}, b"user=ada&pin=1+2", "application/x-www-form-urlencoded"),
        ("<login/>", b"<login/>", None),
        (b"\x00\xff", b"\x00\xff", None),
    ],
)
def test_a_form_a_text_and_bytes_are_sent(
    server: TokenServer, data: Any, body: bytes, content_type: str | None
) -> None:
    server.fail_next(200, body={"access_token": "abc"})
    Login(server.token_url, data=data)()
    (request,) = server.requests
    assert request.body == body
    assert request.headers.get("content-type") == content_type


def test_headers_method_and_basic_authentication_are_sent(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "abc"})
    Login(
        server.token_url,
        auth=("ada", "pé"),
        headers={"X-Key": "k", "accept": "text/plain"},
        method="get",
    )()
    (request,) = server.requests
    assert request.method == "GET"
    assert request.body == b""
    assert request.headers["authorization"] == "Basic YWRhOnDDqQ=="
    assert request.headers["x-key"] == "k"
    assert request.headers["accept"] == "text/plain"


# What comes back


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        ({"access_token": "abc"}, {}, "access_token"),
        ({"data": {"sessions": [{"token": "abc"}]}}, {}, "data.sessions.0.token"),
        ("Welcome", {"X-Auth-Token": "abc"}, "header:X-Auth-Token"),
        ("", {"Authorization": "Bearer abc"}, "header:Authorization"),
        ("", {"Set-Cookie": "session=abc; Path=/; HttpOnly"}, "cookie:session"),
        ("abc", {}, "."),
    ],
)
def test_the_token_is_found_at_its_path(
    server: TokenServer, body: Any, headers: dict[str, str], path: str
) -> None:
    assert logged_in(server, body, headers=headers, token=path).access_token == "abc"


def test_the_token_may_be_a_cookie_of_a_redirect(server: TokenServer) -> None:
    headers = {"Set-Cookie": "session=abc", "Location": "/home"}
    token = logged_in(server, "", status=302, headers=headers, token="cookie:session")
    assert token.access_token == "abc"
    assert server.stats.token_requests == 1


NOW = 1_800_000_000
LOST_LIFETIME = "no lifetime at 'd.ttl'; the answer has: access_token)"


@pytest.mark.parametrize(
    ("body", "headers", "options", "lifetime"),
    [
        ({"expires_in": "60"}, {}, {}, 60),
        ({"d": {"ttl": 60}}, {}, {"expires_in": "d.ttl"}, 60),
        ({}, {"X-Ttl": "60"}, {"expires_in": "header:X-Ttl"}, 60),
        ({"expires_in": 5}, {}, {"expires_in": 60}, 60),
        ({"expires_in": 5}, {}, {"expires_in": None}, None),
        ({"expires_in": "soon"}, {}, {}, None),
        ({}, {}, {}, None),
        # The server's clock is ahead of ours by years: only the difference counts.
        ({"end": NOW + 60}, {"Date": formatdate(NOW, usegmt=True)}, {"expires_at": "end"}, 60),
        ({"end": NOW * 1000 + 60_000}, {"Date": formatdate(NOW)}, {"expires_at": "end"}, 60),
        ({"end": NOW + 60, "expires_in": 5}, {}, {"expires_at": "end"}, 5),
    ],
)
def test_the_lifetime_is_found_at_its_path(
    server: TokenServer,
    body: dict[str, Any],
    headers: dict[str, str],
    options: dict[str, Any],
    lifetime: float | None,
) -> None:
    body = {"access_token": "abc", **body}
    assert logged_in(server, body, headers=headers, **options).lifetime == lifetime


def test_without_a_date_the_expiry_counts_by_our_clock(server: TokenServer) -> None:
    end = time.time() + 1000
    token = logged_in(server, {"access_token": "abc", "end": end}, expires_at="end")
    assert token.expires_at == pytest.approx(end, abs=1e-3)


@pytest.mark.parametrize("attribute", ["Max-Age", "Expires"])
def test_a_token_in_a_cookie_expires_with_the_cookie(server: TokenServer, attribute: str) -> None:
    end = "1000" if attribute == "Max-Age" else formatdate(time.time() + 1000, usegmt=True)
    headers = {"Set-Cookie": f"session=abc; {attribute}={end}"}
    token = logged_in(server, "", headers=headers, token="cookie:session")
    assert token.lifetime == pytest.approx(1000, abs=120)


def test_a_lifetime_in_the_answer_takes_precedence_over_that_of_the_cookie(
    server: TokenServer,
) -> None:
    headers = {"Set-Cookie": "session=abc; Max-Age=1000"}
    token = logged_in(server, {"expires_in": 60}, headers=headers, token="cookie:session")
    assert token.lifetime == 60


# What comes back instead


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_refused_credentials_require_a_new_login(server: TokenServer, status: int) -> None:
    with pytest.raises(ReauthRequired, match=rf"refused the login \({status}, JSON: \"Wrong\"\)"):
        logged_in(server, {"message": "Wrong"}, status=status)


@pytest.mark.parametrize(
    ("status", "body", "options", "error", "words"),
    [
        (404, "<p>", {}, RefreshConfigError, "404, HTML"),
        (405, "", {}, RefreshConfigError, "Check the URL"),
        (302, "", {}, RefreshConfigError, "a redirect to"),
        (200, {"b": 1, "a": 2}, {}, RefreshConfigError, "'access_token'; the answer has: a, b)"),
        (200, {"access_token": 1}, {}, RefreshConfigError, "no text at 'access_token'"),
        (200, {"access_token": ""}, {}, RefreshConfigError, "no text at 'access_token'"),
        (200, {"message": "Wrong"}, {}, RefreshConfigError, "'access_token': \"Wrong\"; the"),
        (200, {"access_token": "a"}, {"expires_in": "d.ttl"}, RefreshConfigError, LOST_LIFETIME),
        (
            200,
            {"access_token": "a", "d": {}},
            {"expires_in": "d"},
            RefreshConfigError,
            "at 'd'; the",
        ),
        (
            200,
            {"access_token": "a"},
            {"expires_at": "e"},
            RefreshConfigError,
            "With expires_at=None",
        ),
        (
            200,
            {"access_token": "a", "e": "x"},
            {"expires_at": "e"},
            RefreshConfigError,
            "at 'e'; the",
        ),
        (200, "<p>", {"token": "cookie:s"}, RefreshConfigError, "no text at 'cookie:s'"),
        (200, [], {}, RefreshConfigError, "no text at 'access_token'"),
        (200, "<p>", {}, RefreshTemporarilyFailed, "HTML instead of a token"),
        (200, "<p>", {"token": "."}, RefreshTemporarilyFailed, "HTML instead of a token"),
        (200, {"access_token": "a\nb"}, {}, RefreshTemporarilyFailed, "(200: access_token"),
        (429, "", {}, RefreshTemporarilyFailed, "429"),
        (500, "", {}, RefreshTemporarilyFailed, "Nothing was spent"),
    ],
)
def test_an_answer_without_a_token_or_lifetime_is_described(
    server: TokenServer,
    status: int,
    body: Any,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error) as caught:
        logged_in(server, body, status=status, **options)
    assert words in str(caught.value)


def test_a_login_without_an_answer_can_be_retried() -> None:
    with pytest.raises(RefreshTemporarilyFailed) as caught:
        Login("http://127.0.0.1:1/login", json=BODY)()
    assert caught.value.processed is False


# As a grant


def test_a_login_is_a_grant() -> None:
    grant = Login(URL, json=BODY)
    assert isinstance(grant, Grant)
    assert grant.owner == {"grant": "login", "endpoint": URL}
    assert (grant.requested, grant.urls) == ({}, (URL,))
    assert repr(grant) == f"<Login {URL}>"


def test_the_owner_names_the_user_only_if_an_account_is_passed() -> None:
    assert Login(URL, json=BODY, account="ada").owner["user"] == "ada"
    assert Login(URL, auth=("k3y", "x"), account="ada").owner["user"] == "ada"
    one, two = (Login(URL, auth=(user, "x")).owner["user"] for user in ("k3y", "other"))
    assert one != two
    assert "k3y" not in one


@pytest.mark.parametrize(
    "changed",
    [
        {"json": {**BODY, "password": "other"}},
        {"json": None, "data": BODY},
        {"json": None, "data": "text"},
        {"auth": ("ada", "x")},
        {"auth": ("ada", "y")},
        {"headers": {"X-Key": "k"}},
        {"method": "PUT"},
        {"token": "other"},
    ],
)
def test_any_change_of_the_request_makes_another_credential(changed: dict[str, Any]) -> None:
    (before,) = Login(URL, json=BODY).credentials(None)
    (after,) = Login(URL, **{"json": BODY, **changed}).credentials(Token("a", refresh_token="b"))
    assert before != after
    assert not after.single_use
    assert after.kind == "login"
    # It may contain a password: retries lock accounts.
    assert after.refusal_is_final


def test_a_pickle_is_the_same_source() -> None:
    grant = Login(URL, json=BODY, auth=("ada", "x"))
    assert pickle.loads(pickle.dumps(grant)).credentials(None) == grant.credentials(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json": {}, "data": {}}, "json and data"),
        ({"json": object()}, "not JSON serializable"),
        ({"token": ""}, "token='' names nothing"),
        ({"expires_at": "cookie:"}, "expires_at='cookie:' names nothing"),
        ({"expires_in": ""}, "expires_in='' names nothing"),
        ({"expires_in": 0}, "expires_in must be above 0"),
        ({"expires_in": []}, "expires_in must be a path"),
        ({"auth": ("ada", None)}, "the password of auth must be a str"),
        ({"auth": ("", "x")}, "the user of auth is empty"),
        ({"auth": ("ada", "x\n")}, "the password of auth begins or ends with a line end"),
        ({"timeout": -1}, "timeout"),
        ({"url": "api.example/login"}, "^url must begin with https://"),
        ({"url": "https://api.example/login#part"}, "^url must not have a fragment"),
        ({"url": None}, "^url must be a str, not NoneType"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Login(**{"url": URL, **options})


def test_a_number_may_be_a_secret(server: TokenServer) -> None:
    body = {"error": "no user has the pin 4711"}
    server.fail_next(400, body=body, endpoint="login")
    with pytest.raises(TokenError) as caught:
        Login(server.login_url, json={"pin": 4711, "remember": True, "device": None})()
    assert "no user has the pin" in str(caught.value)
    assert "4711" not in str(caught.value)
