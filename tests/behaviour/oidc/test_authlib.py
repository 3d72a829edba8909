"""The JWT bearer grant at a server of Authlib."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tokenadapter import JWTBearer, Key, ReauthRequired

pytest.importorskip("authlib", reason='needs Authlib: "tox -e oidc"')

KEYS = {alg: Key.generate(alg) for alg in ("RS256", "ES256")}
GRANT = JWTBearer.grant_type


class Client:
    """What Authlib wants of a client."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == GRANT

    def get_allowed_scope(self, scope: str) -> str:
        return scope


@pytest.fixture(scope="module")
def token_url() -> Iterator[str]:
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2.rfc7523 import JWTBearerGrant
    from flask import Flask
    from joserfc.jwk import import_key
    from werkzeug.serving import make_server

    class Grant(JWTBearerGrant):  # type: ignore[misc]
        def get_audiences(self) -> list[str]:
            return [url]

        def resolve_issuer_client(self, issuer: str) -> Client | None:
            return Client(issuer) if issuer in KEYS else None

        def resolve_client_public_key(self, client: Client) -> Any:
            jwk: Any = KEYS[client.client_id].public_jwk
            return import_key(jwk)

        def authenticate_user(self, subject: str) -> str | None:
            return subject if subject == "ada" else None

        def has_granted_permission(self, client: Client, user: str) -> bool:
            return True

    app = Flask("provider")
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {GRANT: 600}
    server = AuthorizationServer(app, query_client=Client, save_token=lambda token, request: None)
    server.register_grant(Grant)
    app.post("/token")(server.create_token_response)
    http = make_server("127.0.0.1", 0, app)
    url = f"http://127.0.0.1:{http.server_port}/token"
    with pytest.MonkeyPatch.context() as patch:
        # It would refuse plain http.
        patch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield url
        finally:
            http.shutdown()
            thread.join()
            http.server_close()


@pytest.mark.parametrize("alg", KEYS)
def test_an_assertion_brings_a_token(token_url: str, alg: str) -> None:
    source = JWTBearer(token_url, KEYS[alg], client_id=alg, subject="ada", scope="read")
    token = source()
    assert token.access_token
    assert token.lifetime == 600


def test_an_assertion_for_an_unknown_user_is_refused(token_url: str) -> None:
    with pytest.raises(ReauthRequired, match="Invalid 'sub'"):
        JWTBearer(token_url, KEYS["RS256"], client_id="RS256", subject="eve")()


def test_an_assertion_for_another_server_is_refused(token_url: str) -> None:
    source = JWTBearer(
        token_url, KEYS["RS256"], client_id="RS256", subject="ada", audience="https://other.example"
    )
    with pytest.raises(ReauthRequired, match="invalid_grant"):
        source()
