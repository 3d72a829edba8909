"""What a response means for the token of its request.

A verdict is a function that answers one question: was the request refused in a way that a new token
can cure?
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

    from tokenadapter.http.challenges import Challenge

    Scalar = str | int | float | bool | None
    from tokenadapter.http import challenges, json_path, responses
else:
    challenges = late("tokenadapter.http.challenges")
    json_path = late("tokenadapter.http.json_path")
    responses = late("tokenadapter.http.responses")

__all__ = ["Expired", "StepUp", "default_verdict", "expired_on", "step_up"]

# Errors that require a wider authorization (RFC 6750 section 3.1, RFC 9470 section 3).
_STEP_UPS = frozenset({"insufficient_scope", "insufficient_user_authentication"})
# With the added errors, the proof of possession was refused (RFC 9449 sections 7.1 and 9).
_NOT_EXPIRED = _STEP_UPS | {"invalid_dpop_proof", "use_dpop_nonce"}
# Schemes for passwords, tickets and keys.  All others count as token schemes: servers that accept
# Bearer also ask for OAuth, OAuth2, Token, JWT or ApiKey.
_FOREIGN = frozenset(
    {
        "basic",
        "concealed",
        "digest",
        "hoba",
        "kerberos",
        "mutual",
        "negotiate",
        "ntlm",
        "scram-sha-1",
        "scram-sha-256",
        "vapid",
    }
)

# What stands where a JSON value has nothing: equal to no value.
_ABSENT = object()


def default_verdict(response: Response, *, scheme: str | None = "Bearer") -> bool:
    """Whether a token was refused in a way that a new one can cure: a 401 that may mean expiry.

    A 401 (RFC 9110 section 15.5.2) means expiry, unless its ``WWW-Authenticate`` says otherwise:

    * It names an error that a new token of the same kind would cause as well:
      ``insufficient_scope``, ``insufficient_user_authentication`` (RFC 9470), or an error in the
      proof of a DPoP token (RFC 9449).  Any other error, or none, counts as ``invalid_token``: a
      needless renewal costs one token request, a missed one stops the program.
    * It only offers schemes that do not use tokens, such as Basic, Digest or Negotiate.

    For an API with other rules, use :func:`expired_on`: ``expired_on(status=401)`` takes every 401
    for an expiry.

    :param scheme: the scheme with which the token was sent.  It always counts as a token scheme.
        ``None`` if the token was not sent in ``Authorization``, the header to which
        ``WWW-Authenticate`` refers: then every scheme counts as a token scheme.
    """
    if response.status_code != 401:
        return False
    challenges = _challenges(response)
    if any(challenge.params.get("error") in _NOT_EXPIRED for challenge in challenges):
        return False
    foreign = frozenset() if scheme is None else _FOREIGN - {scheme.lower()}
    return not challenges or any(challenge.scheme not in foreign for challenge in challenges)


def expired_on(
    *,
    status: int | Collection[int] | None = None,
    json: Mapping[str, Scalar | Collection[Scalar]] | None = None,
    default: bool = True,
) -> Callable[[Response], bool]:
    """A verdict for an API with its own way of reporting an expired token.

    ::

        expired_on(status=419)
        expired_on(status=403, json={"error.code": ["TokenExpired", "TokenRevoked"]})
        expired_on(status=200, json={"success": False, "errors.0.code": 10001})

    :param status: the HTTP status that means expiry, or several.
    :param json: the content of the JSON body that means expiry: for each path a value, or several
        values of which one must match.  A path is the name of a member.  Dots separate the names of
        nested members and the indexes of list items.  If a status is given as well, both must
        match.

        The body stays unread for the caller, also with ``stream=True``.  It is read ahead only if
        the status matches, the content type is a JSON type, and the body has at most 64 KiB,
        encoded and decoded.  The verdict waits for the body for up to the read timeout of the
        request (30 s if there is none), so pass a status if the API has slow responses.
    :param default: whether to apply :func:`default_verdict` to responses that do not match.
    :raises TypeError: if neither status nor JSON is given, or an argument has the wrong type.
    :raises ValueError: if no response could match.
    """
    if status is None and json is None:
        raise TypeError("expired_on() needs a status, JSON, or both")
    return Expired(status, json, default)


class StepUp(NamedTuple):
    """What a resource requires beyond the token of the request.

    A renewal does not help.  Request a token with the scope, or let the user authenticate again.
    """

    error: str
    """``insufficient_scope`` or ``insufficient_user_authentication``."""
    error_description: str | None
    """The server's text for developers."""
    scope: str | None
    """The required scope, separated by spaces (RFC 6750 section 3)."""
    acr_values: str | None
    """The accepted authentication contexts, separated by spaces, the preferred one first."""
    max_age: int | None
    """The seconds within which the user must have authenticated."""


def step_up(response: Response) -> StepUp | None:
    """What the ``WWW-Authenticate`` of a 401 or 403 requires beyond a valid token, if anything.

    That is a wider scope (RFC 6750 section 3.1), or a stronger or more recent authentication of the
    user (RFC 9470 section 3).
    """
    if response.status_code not in (401, 403):
        return None
    for _, params, _ in _challenges(response):
        if (error := params.get("error")) in _STEP_UPS:
            age = params.get("max_age", "")
            # int() refuses texts of thousands of digits.
            seconds = int(age) if age.isascii() and age.isdigit() and len(age) < 12 else None
            return StepUp(
                error,
                params.get("error_description"),
                params.get("scope"),
                params.get("acr_values"),
                seconds,
            )
    return None


class Expired:
    """The verdict of :func:`expired_on`: a class, not a closure, so that it can be pickled."""

    __slots__ = ("_default", "_json", "_status")

    def __init__(
        self,
        status: int | Collection[int] | None,
        json: Mapping[str, Scalar | Collection[Scalar]] | None,
        default: bool,
    ) -> None:
        self._status = None if status is None else _statuses(status)
        self._json = None if json is None else _members(json)
        self._default = default

    def __call__(self, response: Response, peek: Callable[[Response], Any] | None = None) -> bool:
        return self._matches(response, peek) or (self._default and default_verdict(response))

    def __repr__(self) -> str:
        return f"expired_on(status={self._status}, json={self._json}, default={self._default})"

    def looks_into(self, response: Response) -> bool:
        """Whether the body of *response* decides."""
        return self._json is not None and self._has_status(response)

    def _has_status(self, response: Response) -> bool:
        return self._status is None or response.status_code in self._status

    def _matches(self, response: Response, peek: Callable[[Response], Any] | None) -> bool:
        if not self._has_status(response):
            return False
        if self._json is None:
            return True
        body = (peek or responses.peek_json)(response)
        return all(
            json_path.value_at(body, path, _ABSENT) in values for path, values in self._json.items()
        )


def _statuses(given: int | Collection[int]) -> tuple[int, ...]:
    statuses = _as_tuple("status", given, int, "an HTTP status")
    for status in statuses:
        if not 100 <= status <= 999:
            raise ValueError(f"{status!r} is not an HTTP status of three digits")
    return statuses


def _members(given: Mapping[str, Scalar | Collection[Scalar]]) -> dict[str, tuple[Scalar, ...]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"json must be a mapping of paths to values, not {given!r}")
    if not given:
        raise ValueError("json is empty: name what the response contains when a token has expired")
    for path in given:
        if not isinstance(path, str):
            raise TypeError(f"json has a key that is not a path: {path!r}")
    return {
        path: _as_tuple(f"json[{path!r}]", value, (str, int, float, NoneType), "a text or number")
        for path, value in given.items()
    }


def _as_tuple(name: str, given: Any, kind: type | tuple[type, ...], word: str) -> tuple[Any, ...]:
    """One value, or a collection of values, of the type *kind*, as a tuple."""
    several = isinstance(given, Collection) and not isinstance(given, str | bytes | Mapping)
    values = tuple(given) if several else (given,)
    if not values:
        raise ValueError(f"{name} is empty: no response could match")
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {word}, or a collection of them, not {value!r}")
    return values


def _challenges(response: Response) -> list[Challenge]:
    value = response.headers.get("WWW-Authenticate")
    if not value:
        return []
    # Imported late, because most programs never see a refusal.
    return challenges.parse_challenges(value)
