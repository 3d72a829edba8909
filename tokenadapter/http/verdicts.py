"""What a response says about the token that was sent for it.

A verdict is a function that answers one question: was the request refused in a way that a new token
can help?
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
    from tokenadapter.http import challenges, responses
else:
    challenges = late("tokenadapter.http.challenges")
    responses = late("tokenadapter.http.responses")

__all__ = ["Expired", "StepUp", "default_verdict", "expired_on", "step_up"]

# What a better authorization would help against (RFC 6750 section 3.1, RFC 9470 section 3).
_STEP_UPS = frozenset({"insufficient_scope", "insufficient_user_authentication"})
# With these it is the proof of possession that was refused (RFC 9449 sections 7.1 and 9).
_NO_EXPIRIES = _STEP_UPS | {"invalid_dpop_proof", "use_dpop_nonce"}
# Schemes for passwords, tickets and keys.  All others are taken for names of token schemes: not
# only Bearer is asked for where Bearer is accepted, but also OAuth, OAuth2, Token, JWT, ApiKey.
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

_ABSENT = object()


def default_verdict(response: Response, *, scheme: str | None = "Bearer") -> bool:
    """Whether a token was refused in a way that a new one can help: a 401 that may mean expiry.

    A 401 (RFC 9110 section 15.5.2) means that, unless its ``WWW-Authenticate`` says otherwise:

    * by an error that a new token of the same kind would meet too: ``insufficient_scope``,
      ``insufficient_user_authentication`` (RFC 9470), or one of the proof that came with a DPoP
      token (RFC 9449).  Every other error, and none, is taken for ``invalid_token``: a needless
      renewal costs one token request, a missed one stops the program.
    * by asking only for what is no token: Basic, Digest, Negotiate and their like.

    Where neither is right for an API, :func:`expired_on` says what is:
    ``expired_on(status=401)`` takes every 401 for an expiry.

    :param scheme: the scheme that the token was sent with, which is not foreign then, whatever it
        is.  ``None`` if it was sent elsewhere than in ``Authorization``, the header that
        ``WWW-Authenticate`` speaks of: then no scheme is foreign.
    """
    if response.status_code != 401:
        return False
    challenges = _challenges(response)
    if any(challenge.params.get("error") in _NO_EXPIRIES for challenge in challenges):
        return False
    foreign = frozenset() if scheme is None else _FOREIGN - {scheme.lower()}
    return not challenges or any(challenge.scheme not in foreign for challenge in challenges)


def expired_on(
    *,
    status: int | Collection[int] | None = None,
    json: Mapping[str, Scalar | Collection[Scalar]] | None = None,
    default: bool = True,
) -> Callable[[Response], bool]:
    """A verdict for an API that tells in its own way that a token has expired.

    ::

        expired_on(status=419)
        expired_on(status=403, json={"error.code": ["TokenExpired", "TokenRevoked"]})
        expired_on(status=200, json={"success": False, "errors.0.code": 10001})

    :param status: the HTTP status that means expiry, or several.
    :param json: what stands in the JSON of the answer then: to each path a value, or several of
        which one stands there.  A path is the name of a member; dots lead to members within
        members, and to the items of lists by their number.  With a status too, both must fit.

        The answer stays unread for the caller, also with ``stream=True``.  It is looked at only
        where the status fits, its content type is one of JSON, and it is not longer than 64 KiB,
        decoded or not; but then it is waited for, as long as the request's read time-out says (30 s
        if that has no bound), so give a status if the API has slow answers.
    :param default: whether :func:`default_verdict` has a say where this does not fit.
    :raises TypeError: if neither status nor JSON is given, or one is not what it should be.
    :raises ValueError: if no answer could fit.
    """
    if status is None and json is None:
        raise TypeError("expired_on() needs a status, JSON, or both")
    return Expired(status, json, default)


class StepUp(NamedTuple):
    """What a resource wants beyond the token that it was shown.

    No renewal gives that.  Ask for a token with the scope, or let the user authenticate again.
    """

    error: str
    """``insufficient_scope`` or ``insufficient_user_authentication``."""
    error_description: str | None
    """What the server says to developers."""
    scope: str | None
    """The scope that is needed, separated by spaces (RFC 6750 section 3)."""
    acr_values: str | None
    """The authentication contexts that would do, separated by spaces, the preferred first."""
    max_age: int | None
    """The seconds within which the user must have authenticated."""


def step_up(response: Response) -> StepUp | None:
    """What the ``WWW-Authenticate`` of a 401 or 403 asks for beyond a valid token, if it does.

    That is a greater scope (RFC 6750 section 3.1), or a stronger or more recent authentication of
    the user (RFC 9470 section 3).
    """
    if response.status_code not in (401, 403):
        return None
    for _, params, _ in _challenges(response):
        if (error := params.get("error")) in _STEP_UPS:
            age = params.get("max_age", "")
            # Not for any number of digits: int() refuses thousands of them.
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
    """What :func:`expired_on` makes.

    It is a class, and not a closure, so that an adapter that holds one can be pickled.
    """

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
        return self._fits(response, peek) or (self._default and default_verdict(response))

    def __repr__(self) -> str:
        return f"expired_on(status={self._status}, json={self._json}, default={self._default})"

    def looks_into(self, response: Response) -> bool:
        """Whether the body of *response* decides."""
        return self._json is not None and self._has_status(response)

    def _has_status(self, response: Response) -> bool:
        return self._status is None or response.status_code in self._status

    def _fits(self, response: Response, peek: Callable[[Response], Any] | None) -> bool:
        if not self._has_status(response):
            return False
        if self._json is None:
            return True
        body = (peek or responses.peek_json)(response)
        return all(_at(body, path) in values for path, values in self._json.items())


def _statuses(given: int | Collection[int]) -> tuple[int, ...]:
    statuses = _several("status", given, int, "an HTTP status")
    for status in statuses:
        if not 100 <= status <= 999:
            raise ValueError(f"{status!r} is no HTTP status: one has three digits")
    return statuses


def _members(given: Mapping[str, Scalar | Collection[Scalar]]) -> dict[str, tuple[Scalar, ...]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"json is a mapping of paths to values, not {given!r}")
    if not given:
        raise ValueError("json is empty: say what stands in the answer when a token has expired")
    for path in given:
        if not isinstance(path, str):
            raise TypeError(f"json has a key that is no path: {path!r}")
    return {
        path: _several(f"json[{path!r}]", value, (str, int, float, NoneType), "a text or number")
        for path, value in given.items()
    }


def _several(name: str, given: Any, kind: type | tuple[type, ...], word: str) -> tuple[Any, ...]:
    """One value of a kind, or a collection of them, as a tuple."""
    several = isinstance(given, Collection) and not isinstance(given, str | bytes | Mapping)
    values = tuple(given) if several else (given,)
    if not values:
        raise ValueError(f"{name} is empty: no answer could fit")
    for value in values:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {word}, or a collection of them, not {value!r}")
    return values


def _at(value: Any, path: str) -> Any:
    """What stands at a path; what equals nothing else if there is nothing."""
    if isinstance(value, dict) and path in value:  # a name may have dots in it
        return value[path]
    name, dot, rest = path.partition(".")
    try:
        inner = value[int(name) if isinstance(value, list) else name]
    except (LookupError, TypeError, ValueError):
        return _ABSENT
    return _at(inner, rest) if dot else inner


def _challenges(response: Response) -> list[Challenge]:
    value = response.headers.get("WWW-Authenticate")
    if not value:
        return []
    # Most programs never meet a refusal: they do not pay for the import.
    return challenges.parse_challenges(value)
