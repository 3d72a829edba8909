"""An authorization request (RFC 6749 section 4.1) with PKCE (RFC 7636), and its answer.

What a login in a browser and one by pasted text share.  Errors of the token request are returned by
the source, and raised here; the secrets of a login are of no use once it has ended.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from tokenadapter import errors
from tokenadapter.http.masking import masked
from tokenadapter.keys.jws import b64
from tokenadapter.keys.key import Key
from tokenadapter.logins import id_token
from tokenadapter.sources import or_raise, outcome
from tokenadapter.sources.discovery import ServerMetadata
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.sources.reply import NoReply
from tokenadapter.token import Token
from tokenadapter.values import Value

__all__ = [
    "DEFAULT_REDIRECT",
    "Authorization",
    "Pending",
    "check_wanted",
    "failed",
    "single_values",
]

DEFAULT_REDIRECT = "http://127.0.0.1/"
"""Where the answer goes: a login by browser adds its port.  For one by pasted text nothing listens
there, and the address line of the browser shows the answer."""

# The user, or the server on the user's behalf, did not consent: only another login helps.
_REFUSALS = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "expired_token",
        "interaction_required",
        "login_required",
    }
)


_Asked: TypeAlias = dict[str, str | list[str]]
# Seconds for which a signed request is valid: the browser sends it at once.
_REQUEST_VALID = 300


class Pending(Value):
    """What the answer to an authorization request is checked against."""

    owner: Mapping[str, str]
    """That of the source: the code is for its client, and for its server alone."""
    redirect_uri: str
    state: str
    verifier: str
    """The code verifier (RFC 7636 section 4.1)."""
    nonce: str | None
    """What the ID token must repeat, if one is asked for."""
    key: str | None
    """The key that the token will be bound to, if the source makes one for it."""
    issuer: str | None
    """The only issuer that the answer may name; ``None`` if it is unknown."""
    must_name_issuer: bool

    def __repr__(self) -> str:
        return "<Pending>"  # it contains secrets

    def is_answered_by(self, answer: Mapping[str, str]) -> bool:
        """Whether *answer* belongs to this request, and to no other (RFC 6749 section 10.12)."""
        return hmac.compare_digest(answer.get("state", "").encode(), self.state.encode())

    def token(self, source: OAuth2Source, answer: Mapping[str, str]) -> Token:
        """The token for the code in *answer*.

        :param source: the one that the request was made for.
        :raises TokenError: if there is none.
        """
        issuer = answer.get("iss")
        if issuer is None:
            # Some servers name no issuer in errors, which have no code that could be abused.
            is_mixed_up = self.must_name_issuer and "error" not in answer
        else:
            is_mixed_up = self.issuer not in (None, issuer)
        if is_mixed_up:
            raise errors.RefreshConfigError(
                f"The answer to the login names the issuer {masked(issuer or '', ())!r}, "
                f"not {self.issuer!r} (RFC 9207). Its code was not sent anywhere, and the stored "
                "token is kept. Check authorization_url and iss."
            )
        if "error" in answer:
            raise failed(answer["error"], answer.get("error_description"))
        if not answer.get("code"):
            raise failed("no code in the answer", None)
        form = {
            **{k: v for k, v in source.asked.items() if k == "resource"},
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return or_raise(source.redeem("authorization_code", form, key=self.key))


class Authorization:
    """One authorization request.

    :param source: what the token is for.
    :param settings: ``authorization_url``, and perhaps ``iss``, which the answer must name, or
        ``issuer``, the only one that it may name.
    :param redirect_uri: where the answer goes.
    :raises TokenError: if the server requires a signed or pushed request, and there is none.
    :raises UnsafeTarget: if the answer would travel in clear.
    :raises ValueError: if ``authorization_url`` is no such URL; then nothing opens it.
    :ivar url: the address to open in a browser.  It contains no secret of the client.
    :ivar pending: what the answer is checked against.
    """

    def __init__(
        self, source: OAuth2Source, settings: Mapping[str, str], redirect_uri: str
    ) -> None:
        self._source = source
        endpoint = source.oauth2_client.endpoint("authorization_url", settings["authorization_url"])
        self.pending: Pending = Pending(
            owner=dict(source.owner),
            redirect_uri=redirect_uri,
            state=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            nonce=secrets.token_urlsafe(24) if id_token.is_asked_for(source) else None,
            key=source.new_key(),
            issuer=settings.get("iss", settings.get("issuer")),
            must_name_issuer="iss" in settings,
        )
        digest = hashlib.sha256(self.pending.verifier.encode()).digest()
        asked: _Asked = {
            **source.asked,
            "response_type": "code",
            "client_id": source.oauth2_client.client_id,
            "redirect_uri": redirect_uri,
            "state": self.pending.state,
            "code_challenge": b64(digest),
            "code_challenge_method": "S256",
        }
        if self.pending.nonce is not None:
            asked["nonce"] = self.pending.nonce
        prover = source.prover(self.pending.key)
        if prover is not None:
            asked["dpop_jkt"] = prover.thumbprint  # RFC 9449 section 10
        server = source.discover()
        if server is not None and server.require_signed_request_object:
            asked = self._signed(asked, server.issuer)
        if server is not None and server.require_pushed_authorization_requests:
            asked = self._pushed(asked, server, prover)
        separator = "&" if urlsplit(endpoint.url).query else "?"
        self.url: str = f"{endpoint.url}{separator}{urlencode(asked, doseq=True)}"

    def _signed(self, asked: _Asked, issuer: str) -> _Asked:
        """*asked* as a request object that the client signs (RFC 9101).

        :raises RefreshConfigError: if the client has no key.
        """
        key = getattr(self._source.client_auth(), "key", None)
        if not isinstance(key, Key):
            raise errors.RefreshConfigError(
                f"{issuer} requires signed authorization requests (RFC 9101), and the client has "
                "no key. Nothing was sent, and the stored token is kept. Pass "
                "client_auth=PrivateKeyJWT(key)."
            )
        client_id, now = str(asked["client_id"]), int(time.time())
        claims = {
            **asked,
            "iss": client_id,
            "aud": issuer,
            "iat": now,
            "nbf": now,
            "exp": now + _REQUEST_VALID,
            "jti": secrets.token_urlsafe(16),
        }
        return {"client_id": client_id, "request": key.jwt(claims, typ="oauth-authz-req+jwt")}

    def _pushed(self, asked: _Asked, server: ServerMetadata, prover: Key | None) -> _Asked:
        """What is left for the browser of *asked*, which goes to the server itself (RFC 9126).

        :raises TokenError: if the server does not take it.
        """
        client, url = self._source.oauth2_client, server.pushed_authorization_request_endpoint
        if url is None:
            raise errors.RefreshConfigError(
                f"{server.issuer} requires pushed authorization requests (RFC 9126), and its "
                "metadata has no endpoint for them. Nothing was sent, and the stored token is "
                "kept. Ask the operator of the server."
            )
        endpoint = client.endpoint("pushed_authorization_request_endpoint", url)
        attempt, answer = client.post(
            endpoint, asked, "login", key=prover, auth=self._source.client_auth()
        )
        if isinstance(answer, NoReply):
            raise outcome.no_answer(attempt, answer)
        request_uri = answer.fields.get("request_uri")
        if not 200 <= answer.status < 300 or not isinstance(request_uri, str):
            raise outcome.no_token(attempt, answer)
        return {"client_id": asked["client_id"], "request_uri": request_uri}

    def __repr__(self) -> str:
        return "<Authorization>"


def check_wanted(given_up: threading.Event) -> None:
    """Check that a login was not given up.

    :raises ReauthRequired: if it was.
    """
    if given_up.is_set():
        raise failed("expired_token", "the login was given up")


def failed(code: str, explanation: str | None) -> errors.TokenError:
    """The error for an error answer to a login (RFC 6749 section 4.1.2.1)."""
    shown = masked(code, (), 80)
    why = shown if explanation is None else f'{shown}: "{masked(explanation, ())}"'
    if code in ("server_error", "temporarily_unavailable"):
        return errors.RefreshTemporarilyFailed(
            f"The server could not carry out the login ({why}). The stored token is kept. Try "
            "again later.",
            error=shown,
        )
    if code in _REFUSALS:
        return errors.ReauthRequired(
            f"The login was not approved ({why}). The stored token is kept. Start the login again.",
            reason="login_failed",
            error=shown,
        )
    return errors.RefreshConfigError(
        f"The server refused the login as configured ({why}). The stored token is kept. Check "
        "client_id, scope and redirect_uri, and what the client may do at the server.",
        error=shown,
    )


def single_values(query: str) -> dict[str, str]:
    """The parameters of *query*; empty if one is repeated (RFC 6749 section 3.1)."""
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    return values if len(values) == len(pairs) else {}
