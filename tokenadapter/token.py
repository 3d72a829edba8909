"""The value :class:`Token`: an access token, its expiry, and the rest of the token response.

A token is frozen.  It is made from a token response (RFC 6749 section 5.1), and is converted to and
from JSON.  Its ``repr`` contains no secrets, only the fingerprint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, final

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import hashlib

    from tokenadapter.keys import jws
else:
    jws = late("tokenadapter.keys.jws")
    hashlib = late("hashlib")

__all__ = ["Token", "fingerprint", "header_value"]

# A longer lifetime is a mistake (a date, milliseconds) or means "for ever".  Either way it does not
# say when the token expires.
_LONGEST_LIFETIME = 10 * 365 * 86_400.0
# A number beyond this (as a timestamp, the year 5138) does not count seconds but milliseconds.
_LATEST_TIMESTAMP = 1e11

# A shorter secret may occur in other texts by chance.
_SHORTEST_SECRET = 8

# The fields of a token response that describe the token itself; all others are extras.
_FIELDS = frozenset(
    {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "scope",
        "expires_at",
        "issued_at",
        "dpop_key",
    }
)


def fingerprint(secret: str) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of *secret*: enough to distinguish two."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def header_value(access_token: str, scheme: str) -> str:
    """The value of the header that carries an access token.

    :param scheme: the prefix of the value, such as ``Bearer`` (RFC 6750 section 2.1), or ``""``.
        It is not repeated if *access_token* already begins with it.
    """
    first, _, rest = access_token.partition(" ")
    if scheme and rest and first.lower() == scheme.lower():
        access_token = rest.lstrip()
    return f"{scheme} {access_token}" if scheme else access_token


@final
class Token:
    """An access token, its expiry, and the rest of the token response.

    :param access_token: the secret that requests carry (RFC 6749 section 1.4).
    :param token_type: how the token is used (RFC 6749 section 7.1); ``Bearer`` by default.
    :param issued_at: when the lifetime began: a POSIX timestamp in seconds, taken before the token
        request was sent; by default now.
    :param expires_at: when the token expires (POSIX timestamp in seconds).  ``None`` stands for the
        ``exp`` claim of an access token that is a JWT (RFC 7519 section 4.1.4).  The claim is not
        verified, because it only determines when to renew.  Without such a claim, the token is used
        until the API refuses it.
    :param refresh_token: obtains the next token (RFC 6749 section 1.5).
    :param scope: the granted scope, separated by spaces (RFC 6749 section 3.3).
    :param extras: the other fields of the token response, as JSON values.
    :param key: the private key that the token is bound to (RFC 9449), as a JWK in JSON, if the key
        is kept with the token.  In the mappings of :meth:`to_dict` and :meth:`from_dict`, the name
        is ``dpop_key``.
    :raises TypeError: if a field has the wrong type.
    :raises ValueError: if a secret is not printable ASCII (RFC 6749 appendix A.12 and A.17), the
        access token is empty or begins or ends with a space, or a time is not a POSIX timestamp
        in seconds.
    """

    __slots__ = (
        "access_token",
        "expires_at",
        "extras",
        "issued_at",
        "key",
        "refresh_token",
        "scope",
        "token_type",
    )

    access_token: str
    token_type: str
    issued_at: float
    expires_at: float | None
    refresh_token: str | None
    scope: str | None
    extras: Mapping[str, Any]
    key: str | None

    def __init__(
        self,
        access_token: str,
        *,
        token_type: str = "Bearer",
        issued_at: float | None = None,
        expires_at: float | None = None,
        refresh_token: str | None = None,
        scope: str | None = None,
        extras: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        _check_secret("access_token", access_token)
        if not access_token:
            raise ValueError("access_token is empty")
        if access_token != access_token.strip():
            # HTTP strips a header's value (RFC 9110 section 5.5): another token would arrive.
            raise ValueError("access_token begins or ends with a space")
        _check_text("token_type", token_type)
        if refresh_token is not None:
            _check_secret("refresh_token", refresh_token)
        if scope is not None:
            _check_text("scope", scope)
        if key is not None:
            _check_text("key", key)
        issued_at = time.time() if issued_at is None else _checked_time("issued_at", issued_at)
        if expires_at is None:
            expires_at = _jwt_expiry(access_token, issued_at)
        else:
            expires_at = _checked_time("expires_at", expires_at)
        others = {key: value for key, value in (extras or {}).items() if key not in _FIELDS}
        put = object.__setattr__
        put(self, "access_token", access_token)
        put(self, "token_type", token_type or "Bearer")
        put(self, "issued_at", issued_at)
        put(self, "expires_at", expires_at)
        put(self, "refresh_token", refresh_token or None)
        put(self, "scope", scope)
        put(self, "extras", MappingProxyType(others))
        put(self, "key", key)

    @classmethod
    def from_response(cls, response: Mapping[str, Any], *, requested_at: float) -> Token:
        """Read a token response (RFC 6749 section 5.1).

        ``expires_in`` may be a number or a numeric text.  Zero, a negative number, or more than ten
        years count as missing, and so does every optional field of the wrong type: the response may
        have cost a refresh token, and a valid token must not be lost for a detail.

        :param response: the decoded JSON object.
        :param requested_at: when the request was about to be sent (POSIX timestamp in seconds).
            The lifetime counts from then, so it is never overestimated.
        :raises ValueError: if there is no usable ``access_token``.
        """
        lifetime = _seconds(response.get("expires_in"))
        if lifetime is not None and 0 < lifetime <= _LONGEST_LIFETIME:
            return cls._read(response, requested_at, requested_at + lifetime)
        return cls._read(response, requested_at, None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, now: float | None = None) -> Token:
        """The reverse of :meth:`to_dict`; also reads the format of other libraries.

        Without ``expires_at`` and ``issued_at``, *data* counts as a token response that was
        received at the time *now*.

        :param now: a POSIX timestamp in seconds; by default the current time.
        :raises ValueError: if there is no usable ``access_token``.
        """
        now = time.time() if now is None else now
        expires_at, issued_at = _seconds(data.get("expires_at")), _seconds(data.get("issued_at"))
        key = _key(data.get("dpop_key"))
        if expires_at is None:
            token = cls.from_response(data, requested_at=now if issued_at is None else issued_at)
            return token if key is None else token.replace(key=key)
        if issued_at is None:
            lifetime = _seconds(data.get("expires_in"))
            if lifetime is not None and lifetime > 0:
                issued_at = expires_at - lifetime
            else:
                issued_at = min(now, expires_at)
        return cls._read(data, issued_at, expires_at, key)

    @classmethod
    def _read(
        cls,
        data: Mapping[str, Any],
        issued_at: float,
        expires_at: float | None,
        key: str | None = None,
    ) -> Token:
        access_token = data.get("access_token")
        if not isinstance(access_token, str):
            keys = ", ".join(sorted(map(str, data))) or "nothing"
            keys = "".join(char if char.isprintable() else " " for char in keys[:200])
            raise ValueError(f"the token response has no text as access_token; it holds: {keys}")
        # HTTP would strip them, and the answer may have cost a refresh token.
        access_token = access_token.strip(" ")
        return cls(
            access_token,
            token_type=_text(data.get("token_type")) or "Bearer",
            issued_at=issued_at,
            expires_at=expires_at,
            refresh_token=_text(data.get("refresh_token")),
            scope=_scope(data.get("scope")),
            extras=data,
            key=key,
        )

    def to_dict(self) -> dict[str, Any]:
        """A ``dict`` for JSON, with the keys of a token response and ``expires_at`` and
        ``issued_at``.  It contains the secrets.
        """
        data: dict[str, Any] = dict(self.extras)
        data["access_token"] = self.access_token
        data["token_type"] = self.token_type
        data["issued_at"] = self.issued_at
        if self.expires_at is not None:
            data["expires_at"] = self.expires_at
            data["expires_in"] = round(self.expires_at - self.issued_at)
        if self.refresh_token is not None:
            data["refresh_token"] = self.refresh_token
        if self.scope is not None:
            data["scope"] = self.scope
        if self.key is not None:
            data["dpop_key"] = self.key
        return data

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return type(self)(**(fields | changes))

    @property
    def lifetime(self) -> float | None:
        """Seconds from issue to expiry, or ``None`` if unknown."""
        return None if self.expires_at is None else self.expires_at - self.issued_at

    @property
    def is_bearer(self) -> bool:
        """Whether the token is sent as a bearer token (RFC 6750).  The type is case-insensitive
        (RFC 6749 section 5.1)."""
        return self.token_type.lower() == "bearer"

    @property
    def is_dpop(self) -> bool:
        """Whether the token is sent with a proof of the key that it is bound to (RFC 9449 section
        7.1)."""
        return self.token_type.lower() == "dpop"

    @property
    def shown_type(self) -> str:
        """The type as messages show it, since it comes from the server.

        :meta private:
        """
        kind = self._shown(self.token_type, 40)
        return kind if kind.isidentifier() else repr(kind)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that identify this access token in logs."""
        return fingerprint(self.access_token)

    def is_same(self, other: Token | None) -> bool:
        """Whether *other* is the same issue of the same access token.

        Some servers return the same token again.  Then the time of issue makes the difference.
        """
        return (
            other is not None
            and self.access_token == other.access_token
            and self.issued_at == other.issued_at
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Token is frozen: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Token is frozen")

    def __reduce__(self) -> tuple[Any, ...]:
        return Token.from_dict, (self.to_dict(),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.access_token, self.issued_at))

    def __repr__(self) -> str:
        parts = [self.shown_type, self.fingerprint]
        if self.expires_at is not None:
            parts.append(f"expires_at={self.expires_at:.0f}")
        if self.scope is not None:
            parts.append(f"scope={self._shown(self.scope, 200)!r}")
        if self.refresh_token is not None:
            parts.append("refreshable")
        return f"<Token {' '.join(parts)}>"

    def _shown(self, text: str, limit: int) -> str:
        """*text*, which comes from a server, unless it repeats a secret."""
        folded = text.casefold()
        for secret in (self.access_token, self.refresh_token or ""):
            if len(secret) >= _SHORTEST_SECRET and secret.casefold() in folded:
                return "(withheld)"
        return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")


def _check_secret(name: str, value: str) -> None:
    _check_text(name, value)
    if not (value.isascii() and value.isprintable()):
        raise ValueError(
            f"{name} contains characters other than printable ASCII, perhaps a line break"
        )


def _checked_time(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not abs(value) < _LATEST_TIMESTAMP:
        raise ValueError(f"{name} is not a POSIX timestamp in seconds")
    return float(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    """A number of seconds, or ``None`` for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if abs(seconds) < _LATEST_TIMESTAMP else None


def _scope(value: object) -> str | None:
    # Some servers send a list, against the RFC.
    if isinstance(value, (list, tuple)):
        return " ".join(item for item in value if isinstance(item, str))
    return _text(value)


def _key(value: object) -> str | None:
    return json.dumps(dict(value)) if isinstance(value, Mapping) else _text(value)


def _jwt_expiry(access_token: str, requested_at: float) -> float | None:
    """When a JWT expires, by the clock of *requested_at*."""
    claims = jws.claims_of(access_token)
    if claims is None:
        return None
    expires_at = _seconds(claims.get("exp"))
    if expires_at is None:
        return None
    if expires_at <= requested_at:
        # No server issues an expired token, so our clock is ahead.  The JWT's lifetime is still
        # true.
        issued_at = _seconds(claims.get("iat"))
        if issued_at is None or issued_at >= expires_at:
            return None
        expires_at = requested_at + expires_at - issued_at
    return expires_at if expires_at - requested_at <= _LONGEST_LIFETIME else None
