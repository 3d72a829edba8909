"""An authorization request (RFC 6749 section 4.1) with PKCE (RFC 7636), and its answer.

What a login in a browser and one by pasted text share.  Errors of the token request are returned by
the source, and raised here; the secrets of a login are of no use once it has ended.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from tokenadapter import errors
from tokenadapter.http.masking import masked
from tokenadapter.logins import id_token
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token

__all__ = ["DEFAULT_REDIRECT", "Authorization", "failed", "single_values"]

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


class Authorization:
    """One authorization request: its address, and what its answer is checked against.

    :param source: what the token is for.
    :param settings: ``authorization_url``, and perhaps ``iss``, which the answer must name, or
        ``issuer``, the only one that it may name.
    :param redirect_uri: where the answer goes.
    :raises UnsafeTarget: if the answer would travel in clear.
    :raises ValueError: if ``authorization_url`` is no such URL; then nothing opens it.
    """

    def __init__(
        self, source: OAuth2Source, settings: Mapping[str, str], redirect_uri: str
    ) -> None:
        self._source = source
        self._must_name_issuer = "iss" in settings
        self._issuer = settings.get("iss", settings.get("issuer"))
        self._redirect_uri = redirect_uri
        self._state = secrets.token_urlsafe(24)
        self._verifier = secrets.token_urlsafe(48)
        endpoint = source.oauth2_client.endpoint("authorization_url", settings["authorization_url"])
        digest = hashlib.sha256(self._verifier.encode()).digest()
        asked: dict[str, str | list[str]] = {
            **source.asked,
            "response_type": "code",
            "client_id": source.oauth2_client.client_id,
            "redirect_uri": redirect_uri,
            "state": self._state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        #: What the ID token must repeat, if one is asked for.
        self.nonce: str | None = None
        if id_token.is_asked_for(source):
            self.nonce = asked["nonce"] = secrets.token_urlsafe(24)
        separator = "&" if urlsplit(endpoint.url).query else "?"
        #: The address to open in a browser.  It contains no secret of the client.
        self.url: str = f"{endpoint.url}{separator}{urlencode(asked, doseq=True)}"

    def __repr__(self) -> str:
        return "<Authorization>"

    def is_answered_by(self, answer: Mapping[str, str]) -> bool:
        """Whether *answer* belongs to this request, and to no other (RFC 6749 section 10.12)."""
        return hmac.compare_digest(answer.get("state", "").encode(), self._state.encode())

    def token(self, answer: Mapping[str, str]) -> Token:
        """The token for the code in *answer*.

        :raises TokenError: if there is none.
        """
        issuer = answer.get("iss")
        if issuer is None:
            # Some servers name no issuer in errors, which have no code that could be abused.
            is_mixed_up = self._must_name_issuer and "error" not in answer
        else:
            is_mixed_up = self._issuer not in (None, issuer)
        if is_mixed_up:
            raise errors.RefreshConfigError(
                f"The answer to the login names the issuer {masked(issuer or '', ())!r}, "
                f"not {self._issuer!r} (RFC 9207). Its code was not sent anywhere, and the stored "
                "token is kept. Check authorization_url and iss."
            )
        if "error" in answer:
            raise failed(answer["error"], answer.get("error_description"))
        if not answer.get("code"):
            raise failed("no code in the answer", None)
        outcome = self._source.redeem(
            "authorization_code",
            {
                **{k: v for k, v in self._source.asked.items() if k == "resource"},
                "grant_type": "authorization_code",
                "code": answer["code"],
                "redirect_uri": self._redirect_uri,
                "code_verifier": self._verifier,
            },
        )
        if isinstance(outcome, Token):
            return outcome
        raise outcome


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
