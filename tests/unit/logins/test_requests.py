"""Authorization requests of servers that want them signed (RFC 9101), or pushed (RFC 9126)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from tokenadapter import (
    FileStore,
    Key,
    PrivateKeyJWT,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    login,
)
from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import unb64
from tokenadapter.testing import Browser, TokenServer

KEY = Key.generate()
URI = "urn:ietf:params:oauth:request_uri:one"


class Pushing(BaseHTTPRequestHandler):
    """An endpoint for pushed requests."""

    forms: list[dict[str, str]]
    proofs: list[str | None]
    answer: tuple[int, Any]

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.forms.append(dict(parse_qsl(form)))
        self.proofs.append(self.headers["DPoP"])
        status, content = self.answer
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"public": None, "app": KEY.public_jwk}) as server:
        yield server


@pytest.fixture
def pushing(server: TokenServer) -> Iterator[type[Pushing]]:
    made = {"forms": [], "proofs": [], "answer": (201, {"request_uri": URI, "expires_in": 60})}
    handler = type("Handler", (Pushing,), made)
    endpoint = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=endpoint.serve_forever, args=(0.01,))
    thread.start()
    server.metadata["pushed_authorization_request_endpoint"] = (
        f"http://127.0.0.1:{endpoint.server_port}/par"
    )
    server.metadata["require_pushed_authorization_requests"] = True
    yield handler
    endpoint.shutdown()
    thread.join()
    endpoint.server_close()


def source(server: TokenServer, client: str, **options: Any) -> RefreshToken:
    return RefreshToken(issuer=server.issuer, client_id=client, scope="read", **options)


def log_in(
    server: TokenServer, source: RefreshToken, store: FileStore, meaning: Any = dict
) -> tuple[Token, dict[str, str]]:
    """The token, and the parameters that the browser carried.

    :param meaning: turns these into what the server takes them for.
    """
    carried: dict[str, str] = {}

    def browser(url: str) -> None:
        carried.update(parse_qsl(urlsplit(url).query))
        Browser()(f"{server.authorization_url}?{urlencode(meaning(carried))}")

    return login(source, store, browser=browser, show=lambda text: None), carried


def test_a_pushed_request_leaves_nothing_to_the_browser(
    server: TokenServer, store: FileStore, pushing: type[Pushing]
) -> None:
    token, carried = log_in(
        server, source(server, "public"), store, lambda carried: pushing.forms[0]
    )
    assert token.scope == "read"
    assert carried == {"client_id": "public", "request_uri": URI}
    assert {"state", "code_challenge", "redirect_uri", "scope"} <= pushing.forms[0].keys()


def test_a_pushed_request_is_authenticated_and_proven(
    server: TokenServer, store: FileStore, pushing: type[Pushing]
) -> None:
    mine = source(server, "app", client_auth=PrivateKeyJWT(KEY), dpop=True)
    log_in(server, mine, store, lambda carried: pushing.forms[0])
    (form,), (proof,) = pushing.forms, pushing.proofs
    assert jwt.decode(form["client_assertion"], ECKey.import_key(KEY.public_jwk)).claims
    assert proof is not None
    proven_with = json.loads(unb64(proof.split(".")[0]))["jwk"]
    assert form["dpop_jkt"] == algorithms.thumbprint(proven_with)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((400, {"error": "invalid_request"}), RefreshConfigError),
        ((201, {"expires_in": 60}), RefreshConfigError),
        ((201, []), RefreshConfigError),
        ((503, {"error": "temporarily_unavailable"}), RefreshTemporarilyFailed),
    ],
)
def test_a_request_that_is_not_taken_opens_no_browser(
    server: TokenServer,
    store: FileStore,
    pushing: type[Pushing],
    answer: tuple[int, Any],
    error: type[Exception],
) -> None:
    pushing.answer = answer
    with pytest.raises(error, match="/par"):
        log_in(server, source(server, "public"), store)
    assert "authorize" not in {request.path.strip("/") for request in server.requests}


def test_a_server_that_only_supports_pushed_requests_is_asked_in_the_usual_way(
    server: TokenServer, store: FileStore, pushing: type[Pushing]
) -> None:
    server.metadata["require_pushed_authorization_requests"] = False
    _, carried = log_in(server, source(server, "public"), store)
    assert "request_uri" not in carried
    assert pushing.forms == []


def test_a_request_is_signed_with_the_key_of_the_client(
    server: TokenServer, store: FileStore
) -> None:
    server.metadata["require_signed_request_object"] = True

    def meaning(carried: dict[str, str]) -> dict[str, Any]:
        signed = jwt.decode(carried["request"], ECKey.import_key(KEY.public_jwk))
        assert signed.header["typ"] == "oauth-authz-req+jwt"
        assert signed.claims["iss"] == signed.claims["client_id"] == "app"
        assert signed.claims["aud"] == server.issuer
        assert 0 < signed.claims["exp"] - signed.claims["iat"] <= 300
        assert "sub" not in signed.claims  # it could pass for a client assertion
        return dict(signed.claims)

    mine = source(server, "app", client_auth=PrivateKeyJWT(KEY))
    token, carried = log_in(server, mine, store, meaning)
    assert token.scope == "read"
    assert carried.keys() == {"client_id", "request"}


def test_a_signed_request_may_be_pushed(
    server: TokenServer, store: FileStore, pushing: type[Pushing]
) -> None:
    server.metadata["require_signed_request_object"] = True

    def meaning(carried: dict[str, str]) -> dict[str, Any]:
        signed = jwt.decode(pushing.forms[0]["request"], ECKey.import_key(KEY.public_jwk))
        return dict(signed.claims)

    mine = source(server, "app", client_auth=PrivateKeyJWT(KEY))
    _, carried = log_in(server, mine, store, meaning)
    assert carried == {"client_id": "app", "request_uri": URI}
    assert "scope" not in pushing.forms[0]


def test_a_server_that_requires_pushed_requests_must_say_where(
    server: TokenServer, store: FileStore
) -> None:
    server.metadata["require_pushed_authorization_requests"] = True
    with pytest.raises(RefreshConfigError, match="its metadata has no endpoint for them"):
        log_in(server, source(server, "public"), store)


def test_a_client_without_a_key_cannot_sign(server: TokenServer, store: FileStore) -> None:
    server.metadata["require_signed_request_object"] = True
    with pytest.raises(RefreshConfigError, match="requires signed authorization requests"):
        log_in(server, source(server, "public"), store)
