"""No secret leaves a source but to its endpoint: not in errors, tracebacks, pickles or logs."""

from __future__ import annotations

import html
import json
import logging
import pickle
import re
import socket
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, quote_plus, unquote_plus, urlencode

import pytest

from tokenadapter import FileStore, Login, Password, RefreshToken, TokenError, TokenKeeper
from tokenadapter.sources import Source
from tokenadapter.testing import TokenServer

from .raw import answering

CLIENT_SECRET = "cl1ent:s%cret"
REFRESH_TOKEN = "r3fresh-t+ken"
PASSWORD = "p4ss w/rd"
API_KEY = "k3y-of-api"
SECRETS = [CLIENT_SECRET, REFRESH_TOKEN, PASSWORD, API_KEY]


class Make(Protocol):
    """Makes a source for a URL."""

    def __call__(self, url: str, timeout: float = 10.0) -> Source: ...


SOURCES: dict[str, Callable[[str, float], Source]] = {
    "refresh, basic": lambda url, timeout: RefreshToken(
        url,
        REFRESH_TOKEN,
        client_id="client",
        client_secret=CLIENT_SECRET,
        extra={"api_key": API_KEY, "pin": PASSWORD},
        timeout=timeout,
    ),
    "refresh, post": lambda url, timeout: RefreshToken(
        f"{url}?api_key={API_KEY}&pin={quote_plus(PASSWORD)}",
        REFRESH_TOKEN,
        client_id="client",
        client_secret=CLIENT_SECRET,
        client_auth="client_secret_post",
        timeout=timeout,
    ),
    "password": lambda url, timeout: Password(
        url,
        "ada",
        PASSWORD,
        client_id="client",
        client_secret=CLIENT_SECRET,
        extra={"api_key": API_KEY, "other": REFRESH_TOKEN},
        timeout=timeout,
    ),
    "login, json": lambda url, timeout: Login(
        f"{url}?key={API_KEY}",
        json={"deep": [{"secret": CLIENT_SECRET}]},
        auth=("ada", PASSWORD),
        headers={"X-Key": f"Key {REFRESH_TOKEN}"},
        timeout=timeout,
    ),
    "login, form": lambda url, timeout: Login(
        url,
        data=urlencode({"a": API_KEY, "b": PASSWORD, "c": CLIENT_SECRET, "d": REFRESH_TOKEN}),
        timeout=timeout,
    ),
}


@pytest.fixture(params=SOURCES)
def make(request: pytest.FixtureRequest) -> Make:
    def make(url: str, timeout: float = 10.0) -> Source:
        return SOURCES[request.param](url, timeout)

    return make


class Sent(NamedTuple):
    """What a source sent that must not be shown."""

    secrets: list[str]

    def __repr__(self) -> str:
        # Tracebacks contain the variables of the tests.
        return "<Sent>"

    def echo(self) -> str:
        return f"You sent {' and '.join(self.secrets)}, did you not?"


@pytest.fixture
def sent(server: TokenServer, make: Make) -> Sent:
    """Each secret as it is and as it was sent."""
    server.fail_next(500)
    with pytest.raises(TokenError):
        make(server.token_url)()
    (request,) = server.requests
    basic = request.headers.get("authorization", "").removeprefix("Basic ")
    encoded = f"{request.query} {request.body.decode()} {request.headers}"
    assert all(
        secret in f"{encoded} {unquote_plus(encoded)} {unquote_plus(b64decode(basic).decode())}"
        for secret in SECRETS
    )
    return Sent([*SECRETS, *map(quote_plus, SECRETS), *filter(None, [basic])])


def everything_about(error: TokenError) -> str:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "\n".join(
        [
            *shown.format(),
            repr(error),
            repr(error.args),
            repr(vars(error)),
            repr(pickle.dumps(error)),
            repr(error.again()),
        ]
    )


def assert_clean(text: str, sent: Sent) -> None:
    assert not [secret for secret in sent.secrets if secret in text or repr(secret)[1:-1] in text]


ANSWERS: dict[str, Callable[[Sent], dict[str, Any]]] = {
    "refusal": lambda sent: {
        "status": 400,
        "body": {"error": "invalid_grant", "error_description": sent.echo()},
    },
    "error": lambda sent: {
        "status": 400,
        "body": {"error": sent.echo(), "error_uri": sent.echo(), "message": sent.echo()},
    },
    "code": lambda sent: {"status": 400, "body": {"error": REFRESH_TOKEN, "detail": PASSWORD}},
    "outage": lambda sent: {"status": 503, "body": {"error": "e", "detail": sent.echo()}},
    "html": lambda sent: {"status": 500, "body": sent.echo()},
    "text": lambda sent: {"status": 404, "body": sent.echo(), "content_type": "text/plain"},
    "type": lambda sent: {"status": 404, "body": "x", "content_type": API_KEY},
    "fields": lambda sent: {"status": 200, "body": {sent.echo(): 1, API_KEY: PASSWORD}},
    "token": lambda sent: {"status": 200, "body": {"access_token": f"{PASSWORD}\n"}},
    "redirect": lambda sent: {
        "redirect": f"https://ada:{quote_plus(PASSWORD)}@evil.example/{'/'.join(sent.secrets)}"
    },
    "reset": lambda sent: {"reset": True},
    "drop": lambda sent: {"drop": True},
    "hang": lambda sent: {"hang": True},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_error_and_no_log_contains_a_secret(
    server: TokenServer,
    make: Make,
    sent: Sent,
    answer: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail_next(**ANSWERS[answer](sent))
    with pytest.raises(TokenError) as caught:
        make(server.token_url, timeout=0.2 if answer == "hang" else 10.0)()
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    assert error.request is error.response is None
    assert_clean(everything_about(error), sent)
    # urllib3 logs the query of a URL.
    assert_clean("\n".join(re.sub(r"\?\S*", "", line) for line in caplog.messages), sent)


@pytest.mark.parametrize(
    "encode",
    [
        html.escape,
        lambda secret: quote(secret, safe=""),
        json.dumps,
        lambda secret: json.dumps(secret).replace("/", r"\/").replace("+", r"\u002b"),
        lambda secret: secret.encode().hex(),
        lambda secret: b64encode(secret.encode()).decode(),
        lambda secret: b64encode(f"ada:{secret}".encode()).decode(),
        str.upper,
    ],
    ids=["HTML", "percent", "JSON", "JSON, escaped", "hex", "base64", "Basic", "upper"],
)
def test_no_echo_is_stored_in_any_encoding(
    server: TokenServer, tmp_path: Path, encode: Callable[[str], str]
) -> None:
    path = tmp_path / "token.json"
    source = SOURCES["refresh, post"](server.token_url, 10.0)
    keeper = TokenKeeper(source, FileStore(path))
    for status in (400, 429):
        echoes = [encode(secret) for secret in SECRETS]
        for echo in echoes:
            body = {"error": "invalid_grant", "error_description": f"You sent {echo}.", "x": 1}
            server.fail_next(status, body=body)
            with pytest.raises(TokenError) as caught:
                keeper.refresh()
            stored = path.read_text()
            assert "repeats a secret" in stored
            for shown in (stored, json.dumps(json.loads(stored), ensure_ascii=False), caught.value):
                assert echo not in str(shown)


def test_no_error_contains_a_secret_after_a_refused_connection(make: Make, sent: Sent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/token"
    with pytest.raises(TokenError) as caught:
        make(url)()
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert_clean(everything_about(caught.value), sent)


def test_no_error_contains_what_a_broken_server_echoes(make: Make, sent: Sent) -> None:
    def echo(connection: socket.socket) -> None:
        connection.sendall(connection.recv(65536))

    with answering(echo) as address, pytest.raises(TokenError) as caught:
        make(f"http://{address}/token")()
    assert_clean(everything_about(caught.value), sent)


def test_an_error_has_no_context_but_the_one_its_caller_is_handling(
    server: TokenServer, make: Make
) -> None:
    server.fail_next(reset=True)
    handled = None
    try:
        {}["what the caller handles"]
    except KeyError as error:
        handled = error
        with pytest.raises(TokenError) as caught:
            make(server.token_url)()
    assert caught.value.__context__ is handled


def test_the_repr_of_a_source_and_its_parts_shows_no_secret(make: Make, sent: Sent) -> None:
    source = make("https://id.example/token")
    for thing in (
        source,
        source.credentials(None),
        source.owner,
        source.requested,
        source._endpoint,
    ):
        assert_clean(f"{thing} {thing!r}", sent)
