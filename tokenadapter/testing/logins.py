"""The logins of users that are in progress: authorization codes and device codes.

Without locks: the server calls it from one thread at a time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping
from html import escape
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from tokenadapter.keys.jws import b64
from tokenadapter.values import is_loopback

from .refusals import Refused, required
from .wire import Answer

# How long a code is valid, in seconds (RFC 6749 section 4.1.2 has at most 10 minutes).
_CODE_LIFETIME = 60.0
_HTML = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}


class Consent(NamedTuple):
    """What a user has allowed a client."""

    scope: str | None
    user: str | None
    """``None``: the first of the users."""
    nonce: str | None = None
    """For the ID token (OpenID Connect Core section 3.1.2.1)."""


class DeviceLogin:
    """A login on another device (RFC 8628); ``approved`` is ``None`` until the user decides."""

    def __init__(self, client: str, scope: str | None, now: float, lifetime: float) -> None:
        self.client = client
        self.scope = scope
        self.user: str | None = None
        self.expires_at: float = now + lifetime
        self.polled_at: float | None = None
        self.approved: bool | None = None


class Logins:
    """Lets a user decide about a client, and issues codes for the decision.

    :param device_interval: seconds that a client has to wait between two polls.
    :param device_lifetime: seconds for which a device code is valid.
    """

    def __init__(
        self,
        clients: Collection[str],
        clock: Callable[[], float],
        device_interval: float,
        device_lifetime: float,
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._interval = device_interval
        self._lifetime = device_lifetime
        self._codes: dict[str, tuple[dict[str, str], float]] = {}  # with the time it expires
        self._devices: dict[str, DeviceLogin] = {}
        self._user_codes: dict[str, DeviceLogin] = {}
        #: Those of clients that registered themselves; others may use any on loopback or https.
        self.redirect_uris: dict[str, list[str]] = {}

    # The authorization endpoint (RFC 6749 section 3.1)

    def authorize(self, asked: Mapping[str, str], issuer: str) -> Answer:
        """The page that asks the user, or the answer after the decision."""
        redirect_uri, client = asked.get("redirect_uri", ""), asked.get("client_id", "")
        problem = self._problem(client, redirect_uri)
        if problem is not None:
            # The user is not sent to an address that belongs to no known client.
            return _page(problem, 400)
        if asked.get("response_type") != "code":
            said = {"error": "unsupported_response_type"}
        elif asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            said = {"error": "invalid_request", "error_description": "PKCE with S256 is required"}
        elif "decision" not in asked:
            return _question(f"{asked['client_id']} asks for access.", "/authorize", asked)
        elif asked["decision"] != "approve":
            said = {"error": "access_denied", "error_description": "the user said no"}
        else:
            code = f"code-{secrets.token_urlsafe(24)}"
            self._codes[code] = dict(asked), self._clock() + _CODE_LIFETIME
            said = {"code": code}
        said["iss"] = issuer  # RFC 9207
        if "state" in asked:
            said["state"] = asked["state"]
        separator = "&" if "?" in redirect_uri else "?"
        return Answer(302, b"", {"Location": f"{redirect_uri}{separator}{urlencode(said)}"})

    def _problem(self, client: str, redirect_uri: str) -> str | None:
        """Why the user must not be sent to *redirect_uri*."""
        if client not in self._clients:
            known = ", ".join(map(repr, self._clients))
            return f"The client_id {client!r} is unknown: the clients of this server are {known}."
        if redirect_uri not in self.redirect_uris.get(client, [redirect_uri]):
            return f"The redirect_uri {redirect_uri!r} is not one that the client registered."
        if not _is_redirect_uri(redirect_uri):
            return (
                f"The redirect_uri {redirect_uri!r} is not allowed: use https, or http with a "
                "loopback address (127.0.0.1, [::1] or localhost)."
            )
        return None

    def spend_code(
        self, client: str, form: Mapping[str, str], thumbprint: str | None = None
    ) -> Consent:
        """Accept an authorization code once.

        :param thumbprint: that of the key of the proof (RFC 9449 section 10).
        """
        asked, expires_at = self._codes.pop(required(form, "code"), ({}, 0.0))
        if asked.get("client_id") != client or self._clock() >= expires_at:
            raise Refused("invalid_grant", "unknown, used or expired code")
        if asked["redirect_uri"] != form.get("redirect_uri"):
            raise Refused("invalid_grant", "another redirect_uri than before")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if b64(digest) != asked["code_challenge"]:
            raise Refused("invalid_grant", "wrong code_verifier")
        if thumbprint is not None and asked.get("dpop_jkt", thumbprint) != thumbprint:
            raise Refused("invalid_dpop_proof", "the code is bound to another key")
        return Consent(asked.get("scope"), asked.get("user"), asked.get("nonce"))

    # Device authorization (RFC 8628)

    def begin_device(self, client: str, scope: str | None, page: str) -> dict[str, Any]:
        """The device authorization response."""
        login = DeviceLogin(client, scope, self._clock(), self._lifetime)
        device_code = f"device-{secrets.token_urlsafe(24)}"
        letters = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        self._devices[device_code] = self._user_codes[user_code] = login
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}",
            "expires_in": self._lifetime,
            "interval": self._interval,
        }

    def device_page(self, asked: Mapping[str, str]) -> Answer:
        """The page on which a user enters a code and decides."""
        login = self._user_codes.get(asked.get("user_code", ""))
        if login is None:
            return _page("Unknown code.", 404)
        if "decision" not in asked:
            return _question(f"{login.client} asks for access.", "/device", asked)
        login.approved, login.user = asked["decision"] == "approve", asked.get("user")
        return _page("Go back to the device.")

    def decide(self, user_code: str | None, *, approved: bool, user: str | None = None) -> None:
        """Decide about the login with *user_code*, by default the latest one."""
        user_code = user_code or next(reversed(self._user_codes), "")
        if user_code not in self._user_codes:
            raise LookupError("no such device login")
        login = self._user_codes[user_code]
        login.approved, login.user = approved, user

    def poll(self, client: str, form: Mapping[str, str]) -> Consent:
        """Accept a device code once."""
        code, now = required(form, "device_code"), self._clock()
        login = self._devices.get(code)
        if login is None or login.client != client:
            raise Refused("invalid_grant", "unknown or used device code")
        if now >= login.expires_at:
            raise Refused("expired_token", "the device code has expired")
        polled_at, login.polled_at = login.polled_at, now
        if polled_at is not None and now < polled_at + self._interval:
            raise Refused("slow_down", "polled too early")
        if login.approved is None:
            raise Refused("authorization_pending", "the user has not decided yet")
        del self._devices[code]
        if not login.approved:
            raise Refused("access_denied", "the user said no")
        return Consent(login.scope, login.user)


def _is_redirect_uri(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def _question(text: str, path: str, asked: Mapping[str, str]) -> Answer:
    links = []
    for decision in ("approve", "deny"):
        target = escape(f"{path}?{urlencode({**asked, 'decision': decision})}")
        links.append(f'<a href="{target}">{decision}</a>')
    return _page(text, more=" or ".join(links))


def _page(text: str, status: int = 200, more: str = "") -> Answer:
    body = f"<!doctype html><title>Token server</title><p>{escape(text)}</p><p>{more}</p>"
    return Answer(status, body.encode(), _HTML)
