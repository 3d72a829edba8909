"""Dynamic client registration (RFC 7591): a client registers itself at an authorization server.

The registration is kept with the token, in the token's extras, and is encrypted where the token is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from tokenadapter.late_imports import late
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.token import Token
from tokenadapter.values import Value

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.errors import TokenError
    from tokenadapter.sources import outcome, reply
else:
    errors = late("tokenadapter.errors")
    outcome = late("tokenadapter.sources.outcome")
    reply = late("tokenadapter.sources.reply")

__all__ = ["WAYS", "Registration", "register"]

# In the extras of a token, whatever the server says under this name is replaced.
_KEY = "tokenadapter_client"
WAYS = ("none", "client_secret_post", "client_secret_basic")
"""How a client that registered itself can authenticate, in order of preference: without a secret,
or else in the way that servers of this kind read most reliably."""


class Registration(Value):
    """A client, and the only server that its secrets and tokens are for."""

    issuer: str
    client_id: str
    redirect_uri: str | None = None
    grant_type: str | None = None
    """What the client was registered for, beside ``refresh_token``."""
    scope: str | None = None
    """The scope that the client was registered for."""
    client_secret: str | None = None
    client_auth: str | None = None
    """How the client authenticates; ``None``: as the server's metadata says."""
    expires_at: float = 0.0
    """When the secret expires (POSIX timestamp in seconds); 0: never."""
    is_bound: bool = False
    """Whether all its tokens must be bound to a key (RFC 9449 section 5.2)."""

    @classmethod
    def of(cls, token: Token | None) -> Self | None:
        """The client that *token* was issued to, if that is known."""
        kept = {} if token is None else token.extras.get(_KEY)
        if not isinstance(kept, Mapping):
            return None
        fields = {name: kept[name] for name in cls.__annotations__ if kept.get(name) is not None}
        expires_at, is_bound = fields.pop("expires_at", 0.0), fields.pop("is_bound", False)
        is_readable = {"issuer", "client_id"} <= fields.keys() and all(
            isinstance(value, str) for value in fields.values()
        )
        if not is_readable or not isinstance(expires_at, (int, float)):
            return None
        return cls(**fields, expires_at=expires_at, is_bound=is_bound is True)

    def kept_in(self, token: Token) -> Token:
        """*token*, which was issued to this client."""
        fields = {name: value for name, value in self._asdict().items() if value}
        return token.replace(extras={**token.extras, _KEY: fields})

    @property
    def has_expired(self) -> bool:
        """Whether the server does not accept the secret any more."""
        return 0 < self.expires_at <= time.time()

    def __repr__(self) -> str:
        return f"<Registration {self.client_id!r} at {self.issuer}>"


def register(
    endpoint: Endpoint, issuer: str, described: Mapping[str, Any]
) -> Registration | TokenError:
    """Register a client.

    :param endpoint: the registration endpoint of *issuer*.
    :param described: the client's metadata (RFC 7591 section 2), with one redirect URI, and with
        the grant type of the login first.
    :returns: the error where the server registered none, as in
        :mod:`tokenadapter.sources.outcome`.
    """
    attempt = outcome.Attempt(endpoint.name, "registration", endpoint.secrets, has_proof=False)
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    answer = endpoint.exchange("POST", headers, json.dumps(described).encode())
    if isinstance(answer, reply.NoReply):
        return _not_registered(attempt, attempt.masked(answer.why), is_lasting=answer.lasting)
    said = answer.fields
    if not 200 <= answer.status < 300 or "client_id" not in said:
        code, why = attempt.read(answer)
        return _not_registered(attempt, why, code, is_lasting=not answer.may_pass)
    client_id, secret = said["client_id"], said.get("client_secret")
    auth = said.get("token_endpoint_auth_method", "client_secret_basic" if secret else "none")
    if not _is_text(client_id) or not (secret is None or _is_text(secret)) or auth not in WAYS:
        return _not_registered(attempt, "its answer has no client that can be used")
    if auth == "none":
        secret = None
    elif secret is None:
        return _not_registered(attempt, "its answer has no client_secret")
    # The server may have changed what was asked for (RFC 7591 section 3.2.1), but not where the
    # answer to the login goes.
    return Registration(
        issuer,
        client_id,
        described["redirect_uris"][0],
        described["grant_types"][0],
        described.get("scope"),
        secret,
        auth,
        reply.moment(said.get("client_secret_expires_at")) or 0.0,
        described.get("dpop_bound_access_tokens", False),
    )


def _not_registered(
    attempt: outcome.Attempt, why: str, code: str | None = None, *, is_lasting: bool = True
) -> TokenError:
    message = (
        f"{attempt.endpoint} did not register a client for this program ({why}). Nothing was "
        "stored, and the stored token is kept. "
    )
    if is_lasting:
        return errors.RefreshConfigError(
            message + "Register a client at the server by other means, and pass its client_id.",
            error=code,
        )
    return errors.RefreshTemporarilyFailed(message + "Try again later.", error=code)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) < 1000 and value.isprintable()
