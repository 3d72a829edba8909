"""The authorization server without a network: clients, users, grants, rotation and reuse.

A *grant* is the result of one login for one client; the refresh tokens that descend from it are its
family.  With rotation each refresh token belongs to a *generation* of its family:

* one of the latest generation is good: spending it begins the next generation;
* one of the generation before is good for ``grace`` seconds after that: it gives a new access
  token and one more refresh token of the latest generation, and those handed out before stay
  good (so does Auth0 in its "rotation overlap period");
* any older one, or the one before when its grace is over, has been seen by two parties: it is
  refused, and reuse detection revokes the whole family, access tokens included (RFC 9700
  section 4.14.2).

Without locks: the server calls it from one thread at a time.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from tokenadapter.keys.jws import compact

from .assertions import TYPE, Assertions, Proof
from .refusals import Refused, required

if TYPE_CHECKING:
    from .logins import Consent, Logins


class Grant:
    """The result of one login for one client; ``user`` is ``None`` for the client's own grants.

    :ivar thumbprint: that of the key that the refresh tokens of a public client are bound to.
    """

    __slots__ = ("client", "generation", "revoked", "rotated_at", "scope", "thumbprint", "user")

    def __init__(self, client: str, user: str | None, scope: str | None) -> None:
        self.client: str = client
        self.user: str | None = user
        self.scope: str | None = scope
        self.generation: int = 0
        self.rotated_at: float = 0.0
        self.thumbprint: str | None = None
        self.revoked: bool = False


class Authority:
    """Answers token requests and decides which tokens are valid."""

    def __init__(
        self,
        *,
        clients: dict[str, Proof],
        users: Mapping[str, str],
        lifetime: float | None,
        refresh_lifetime: float | None,
        rotate: bool,
        grace: float,
        reuse_detection: bool,
        clock: Callable[[], float],
        logins: Logins,
        issuer: Callable[[], str],
        assertions: Assertions,
    ) -> None:
        self.logins = logins
        self.claims: dict[str, Any] = {}
        self._issuer = issuer
        self._assertions = assertions
        self._clients = clients
        self._users = dict(users)
        self._lifetime = lifetime
        self._refresh_lifetime = inf if refresh_lifetime is None else refresh_lifetime
        self._rotate = rotate
        self._grace = grace
        self._reuse_detection = reuse_detection
        self._clock = clock
        # With the time it expires, and the thumbprint of the key that it is bound to.
        self._access: dict[str, tuple[Grant, float | None, str | None]] = {}
        # With its generation and the time it expires.
        self._refresh: dict[str, tuple[Grant, int, float]] = {}
        # That of the key to which the tokens are bound that are being issued.
        self._thumbprint: str | None = None
        self.renewals: int = 0
        self.refreshes: int = 0
        self.reuse_detections: int = 0
        self.families_revoked: int = 0

    def authenticate(
        self, authorization: str | None, form: Mapping[str, str], certificate: str | None = None
    ) -> str:
        """The client that makes a request, by any way of client authentication.

        :param authorization: the ``Authorization`` header: ``client_secret_basic``.
        :param form: the parameters: an assertion, ``client_secret_post``, or ``client_id`` alone
            for a client that has no secret, or a certificate.
        :param certificate: the thumbprint of the certificate of the connection.
        """
        if "client_assertion" in form:
            return self._by_assertion(authorization, form)
        if authorization is None and "client_id" not in form and "assertion" in form:
            return ""  # the assertion says which client it is
        secret: str | None
        if authorization is not None:
            if "client_secret" in form:
                raise Refused("invalid_request", "two ways of client authentication at once")
            # Each was form-encoded before they were joined (RFC 6749 section 2.3.1).
            client, secret = map(unquote_plus, basic(authorization))
            secret = secret or None
        else:
            client, secret = form.get("client_id", ""), form.get("client_secret")
        proof = self._clients.get(client)
        if isinstance(proof, Mapping):
            is_genuine = certificate is not None and proof.get("x5t#S256") == certificate
        else:
            is_genuine = client in self._clients and proof == secret
        if not is_genuine:
            raise Refused("invalid_client", "wrong client credentials", 401)
        return client

    def register(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The client information response (RFC 7591 section 3.2.1) for a new client."""
        redirect_uris, auth = said.get("redirect_uris"), said.get("token_endpoint_auth_method")
        if not isinstance(redirect_uris, list) or not redirect_uris:
            raise Refused("invalid_redirect_uri", "redirect_uris is missing")
        client = f"client-{secrets.token_urlsafe(8)}"
        secret = None if auth == "none" else f"secret-{secrets.token_urlsafe(24)}"
        self._clients[client] = secret
        self.logins.redirect_uris[client] = redirect_uris
        response = {**said, "client_id": client, "client_id_issued_at": int(self._clock())}
        if secret is not None:
            response |= {"client_secret": secret, "client_secret_expires_at": 0}
        return response

    def _by_assertion(self, authorization: str | None, form: Mapping[str, str]) -> str:
        if authorization is not None or "client_secret" in form:
            raise Refused("invalid_request", "two ways of client authentication at once")
        if form.get("client_assertion_type") != TYPE:
            raise Refused("invalid_client", "unknown client_assertion_type", 401)
        claims = self._assertions.verified(form["client_assertion"], "invalid_client", 401)
        client: str = claims["iss"]
        if not client == claims["sub"] == form.get("client_id", client) or "jti" not in claims:
            raise Refused("invalid_client", "the assertion is not of this client", 401)
        return client

    @contextmanager
    def binding_to(self, thumbprint: str | None) -> Iterator[None]:
        """Bind the tokens that are issued meanwhile to the key of this thumbprint (RFC 9449)."""
        self._thumbprint = thumbprint
        try:
            yield
        finally:
            self._thumbprint = None

    def token(self, client: str, form: Mapping[str, str]) -> dict[str, Any]:
        """The token response to an authenticated client's request (RFC 6749 section 5.1)."""
        match required(form, "grant_type"):
            case "client_credentials":
                grant = Grant(client, None, form.get("scope"))
                response = self._response(grant, grant.scope, refreshable=False)
            case "password":
                user = required(form, "username")
                if self._users.get(user) != required(form, "password"):
                    raise Refused("invalid_grant", "unknown user or wrong password")
                response = self.issue(client, user, form.get("scope"))
            case "refresh_token":
                response = self._refreshed(client, form)
                self.refreshes += 1
            case "authorization_code":
                response = self._logged_in(
                    client, self.logins.spend_code(client, form, self._thumbprint)
                )
            case "urn:ietf:params:oauth:grant-type:device_code":
                response = self._logged_in(client, self.logins.poll(client, form))
            case "urn:ietf:params:oauth:grant-type:jwt-bearer":
                claims = self._assertions.verified(required(form, "assertion"), "invalid_grant")
                scope = claims.get("scope", form.get("scope"))
                grant = Grant(claims["iss"], claims["sub"], scope)
                response = self._response(grant, scope, refreshable=False)
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                response = self._exchanged(client, form)
            case other:
                raise Refused("unsupported_grant_type", f"no such grant type: {other}")
        self.renewals += 1
        return response

    def login(self, user: str, password: str) -> dict[str, Any]:
        """The answer to a login that is not OAuth: an access token for the user alone."""
        if self._users.get(user) != password:
            raise Refused("access_denied", "unknown user or wrong password", 401)
        response = self._response(Grant("", user, None), None, refreshable=False)
        self.renewals += 1
        return response

    def issue(self, client: str, user: str, scope: str | None) -> dict[str, Any]:
        """The token response after a user has authorized a client."""
        return self._response(Grant(client, user, scope), scope, refreshable=True)

    def _logged_in(self, client: str, consent: Consent) -> dict[str, Any]:
        user = consent.user or next(iter(self._users))
        response = self.issue(client, user, consent.scope)
        if "openid" in (consent.scope or "").split():
            response["id_token"] = self._id_token(client, user, consent.nonce)
        return response

    def _id_token(self, client: str, user: str, nonce: str | None) -> str:
        """An ID token (OpenID Connect Core section 2) without a signature, which clients need not
        check if the token comes from the token endpoint (section 3.1.3.7)."""
        now = self._clock()
        usual = {
            "iss": self._issuer(),
            "sub": user,
            "aud": client,
            "exp": now + 600,
            "iat": now,
            "nonce": nonce,
            "preferred_username": user,
        }
        said = {**usual, **self.claims}
        return _unsigned({name: it for name, it in said.items() if it is not None})

    def accepts(
        self, access_token: str, certificate: str | None = None, thumbprint: str | None = None
    ) -> bool:
        """Whether the API accepts this token.

        :param certificate: the thumbprint of the certificate of the connection.
        :param thumbprint: that of the key of the proof.
        """
        if not self._is_valid(access_token):
            return False
        grant, _, bound_to = self._access[access_token]
        return bound_to == thumbprint and self._binding(grant.client) in (None, certificate)

    def expire_all(self) -> None:
        """Expire every access token; refresh tokens stay valid."""
        self._access.clear()

    def revoke(self, token: str) -> bool:
        """Revoke an access token, or a refresh token with all its family; ``False``: unknown."""
        if token in self._refresh:
            self._revoke_family(self._refresh[token][0])
            return True
        return self._access.pop(token, None) is not None

    def revoke_all(self) -> None:
        """Revoke every access token and every family."""
        self._access.clear()
        for grant, *_ in self._refresh.values():
            self._revoke_family(grant)

    def _refreshed(self, client: str, form: Mapping[str, str]) -> dict[str, Any]:
        grant, generation, expires_at = self._refresh.get(
            required(form, "refresh_token"), (None, 0, 0.0)
        )
        if grant is None or grant.client != client or grant.revoked:
            raise Refused("invalid_grant", "unknown or revoked refresh token")
        if self._clock() >= expires_at:
            raise Refused("invalid_grant", "the refresh token has expired")
        if grant.thumbprint not in (None, self._thumbprint):
            raise Refused("invalid_grant", "the refresh token is bound to another key")
        scope = form.get("scope", grant.scope)
        if not set((scope or "").split()) <= set((grant.scope or "").split()):
            raise Refused("invalid_scope", "more than was granted")
        if self._rotate:
            self._spend(grant, generation)
        return self._response(grant, scope, refreshable=self._rotate)

    def _exchanged(self, client: str, form: Mapping[str, str]) -> dict[str, Any]:
        """A token for one of this server (RFC 8693)."""
        subject, *_ = self._accepted(form, "subject_token")
        if "actor_token" in form:
            self._accepted(form, "actor_token")
        grant = Grant(client, subject.user, form.get("scope"))
        response = self._response(grant, grant.scope, refreshable=False)
        return {**response, "issued_token_type": form["subject_token_type"]}

    def _accepted(
        self, form: Mapping[str, str], name: str
    ) -> tuple[Grant, float | None, str | None]:
        token, _ = required(form, name), required(form, f"{name}_type")
        # Whatever key or certificate it is bound to: the client only hands it on, without a proof.
        if not self._is_valid(token):
            raise Refused("invalid_request", f"the {name} is not valid")
        return self._access[token]

    def _is_valid(self, access_token: str) -> bool:
        """Whether this token was issued, and has neither expired nor been revoked."""
        if access_token not in self._access:
            return False
        grant, expires_at, _ = self._access[access_token]
        return not grant.revoked and (expires_at is None or self._clock() < expires_at)

    def _spend(self, grant: Grant, generation: int) -> None:
        now = self._clock()
        if generation == grant.generation:
            grant.generation += 1
            grant.rotated_at = now
        elif generation < grant.generation - 1 or now >= grant.rotated_at + self._grace:
            if self._reuse_detection:
                self.reuse_detections += 1
                self._revoke_family(grant)
            raise Refused("invalid_grant", "this refresh token was used before")

    def _response(self, grant: Grant, scope: str | None, *, refreshable: bool) -> dict[str, Any]:
        access_token = f"access-{secrets.token_urlsafe(24)}"
        binding = self._binding(grant.client)
        if binding is not None:
            # As a JWT tells its confirmation key (RFC 8705 section 3.1).
            access_token = _unsigned({"cnf": {"x5t#S256": binding}, "jti": access_token})
        bound_to = self._thumbprint
        if self._clients.get(grant.client) is None:
            grant.thumbprint = bound_to  # RFC 9449 section 5
        kind = "Bearer" if bound_to is None else "DPoP"
        response: dict[str, Any] = {"access_token": access_token, "token_type": kind}
        expires_at = None
        if self._lifetime is not None:
            response["expires_in"] = self._lifetime
            expires_at = self._clock() + self._lifetime
        self._access[access_token] = grant, expires_at, bound_to
        if refreshable:
            response["refresh_token"] = f"refresh-{secrets.token_urlsafe(24)}"
            refreshable_until = self._clock() + self._refresh_lifetime
            self._refresh[response["refresh_token"]] = grant, grant.generation, refreshable_until
        if scope is not None:
            response["scope"] = scope
        return response

    def _binding(self, client: str) -> str | None:
        """The thumbprint of the certificate to which the tokens of *client* are bound."""
        proof = self._clients.get(client)
        return proof.get("x5t#S256") if isinstance(proof, Mapping) else None

    def _revoke_family(self, grant: Grant) -> None:
        if not grant.revoked:
            grant.revoked = True
            self.families_revoked += 1


def basic(authorization: str) -> tuple[str, str]:
    """The name and the password in an ``Authorization`` header (RFC 7617)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    name, colon, password = pair.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise Refused("invalid_client", "unreadable Authorization header", 401)
    return name, password


def _unsigned(claims: Mapping[str, Any]) -> str:
    """A JWT without a signature."""
    return compact({"alg": "none"}, json.dumps(claims).encode(), lambda data: b"")
