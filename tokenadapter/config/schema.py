"""The keys that a profile may have, and the type of each value.

Sources, stores and the adapter check the rest: whether a URL is valid, whether an authentication
method exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.functions import is_function_name
from tokenadapter.config.problems import Problems, nearest
from tokenadapter.config.references import KINDS, PLAIN_KINDS, Reference, is_reference, resolved
from tokenadapter.values import Value

__all__ = ["CLIENT_AUTH", "LOGIN", "PROFILE", "SOURCES", "VERDICT", "Kind", "checked"]


class Kind(Value):
    """The values that a key may have."""

    expected: str
    """These values in words."""
    fits: Callable[[Any], bool]
    """Whether a value is one of them."""
    is_late: bool = False
    """Whether the value is or contains a secret, which is not read before a renewal needs it."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


_TEXT = Kind("a string", _is_text)
_TEXT_OR_EMPTY = Kind("a string", lambda value: isinstance(value, str))
_TEXTS = Kind("a list of strings", _are_texts)
_ONE_OR_MORE = Kind(
    "a string or a list of strings", lambda value: _is_text(value) or _are_texts(value)
)
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_NUMBER = Kind("a number of seconds above 0", _is_number)
_COUNT = Kind("a whole number, 0 or more", _is_count)
_TABLE = Kind("a table", lambda value: isinstance(value, dict))
_TEXT_TABLE = Kind("a table of strings", _is_table_of_texts)
_FUNCTION = Kind('a string such as "module:function"', is_function_name)
_VERDICT = Kind(
    'a table, or a string such as "module:function"',
    lambda value: isinstance(value, dict) or is_function_name(value),
)
_STATUS = Kind(
    "an HTTP status or a list of them",
    lambda value: _is_number(value) or (isinstance(value, list) and all(map(_is_number, value))),
)
_CA = Kind(
    "true, false, or the path of CA certificates",
    lambda value: isinstance(value, bool) or _is_text(value),
)
_CERT = Kind(
    "the path of a certificate, or a list of two paths: certificate and key",
    lambda value: _is_text(value) or (_are_texts(value) and len(value) == 2),
)
_LIFETIME = Kind(
    "a number of seconds, or its path in the response",
    lambda value: _is_number(value) or _is_text(value),
)

_PLACES = ", ".join(KINDS[:-1]) + f" or {KINDS[-1]}"
_SECRET = Kind(f"a string, or a table with its place: {_PLACES}", _is_text, is_late=True)
_SECRETS = Kind("a table of strings", _is_table_of_texts, is_late=True)
_BODY = Kind("a string or a table", lambda v: _is_text(v) or isinstance(v, dict), is_late=True)
_JSON = Kind(
    "a JSON value",
    lambda value: isinstance(value, (str, int, float, bool, list, dict)),
    is_late=True,
)
_ENCRYPTION_KEY = Kind(
    f"a string, a table with its place: {_PLACES}; or a list of these",
    lambda value: _is_text(value) or _are_texts(value),
    is_late=True,
)
_PAIR = Kind(
    "a list of user and password",
    lambda value: isinstance(value, list) and len(value) == 2,
    is_late=True,
)

_KEY = Kind(
    f"the path of a file with the key, or a table with its place: {_PLACES}",
    lambda value: _is_text(value) and "-----BEGIN" not in value,
    is_late=True,
)
_DPOP = Kind(
    f"true, the path of a file with the key, or a table with its place: {_PLACES}",
    lambda value: isinstance(value, bool) or _KEY.fits(value),
    is_late=True,
)
_TOKEN = Kind(
    'the path of a file with the token, a string such as "module:function", or a table such as '
    '{ profile = "name" }',
    lambda value: (
        _is_text(value)
        or (isinstance(value, dict) and value.keys() == {"profile"} and _is_text(value["profile"]))
    ),
)
_ID = Kind("a string or a number", lambda value: _is_text(value) or _is_count(value))
_CLIENT_AUTH = Kind("a string, or a table with a type", _is_text)

PROFILE: Mapping[str, Kind] = {
    "prefix": _TEXT,
    "prefixes": _TEXTS,
    "source": Kind("a table, such as [billing.source]", _TABLE.fits),
    "store": _TEXT,
    "encryption_key": _ENCRYPTION_KEY,
    "header": _TEXT,
    "scheme": _TEXT_OR_EMPTY,
    "username": _TEXT,
    "verdict": _VERDICT,
    "renew_early": _FLAG,
    "lock_timeout": _NUMBER,
    "override_auth": _FLAG,
    "allow_http": _FLAG,
    "max_replays": _COUNT,
    "replay_limit": _COUNT,
    "on_refresh": _FUNCTION,
    "on_event": _FUNCTION,
}

VERDICT: Mapping[str, Kind] = {"status": _STATUS, "json": _TABLE, "default": _FLAG}

_WAY: Mapping[str, Kind] = {
    "timeout": _NUMBER,
    "verify": _CA,
    "cert": _CERT,
    "proxies": _TEXT_TABLE,
    "allow_http": _FLAG,
}

_OAUTH2: Mapping[str, Kind] = {
    "token_url": _TEXT,
    "issuer": _TEXT,
    "provider": _TEXT,
    "domain": _TEXT,
    "tenant": _TEXT,
    "client_id": _TEXT,
    "client_secret": _SECRET,
    "client_auth": _CLIENT_AUTH,
    "scope": _ONE_OR_MORE,
    "resource": _ONE_OR_MORE,
    "audience": _TEXT,
    "extra": _SECRETS,
    "revocation_url": _TEXT,
    "dpop": _DPOP,
    **_WAY,
}

LOGIN: Mapping[str, Kind] = {
    "authorization_url": _TEXT,
    "device_authorization_url": _TEXT,
    "redirect_uri": _TEXT,
    "iss": _TEXT,
}
"""How a person logs in: not an argument of the source, but of :func:`tokenadapter.login`."""

_LOGIN: Mapping[str, Kind] = {
    "url": _TEXT,
    "json": _JSON,
    "data": _BODY,
    "auth": _PAIR,
    "headers": _SECRETS,
    "method": _TEXT,
    "token": _TEXT,
    "expires_in": _LIFETIME,
    "expires_at": _TEXT,
    "account": _TEXT,
    **_WAY,
}

_API_USER: Mapping[str, Kind] = {
    "url": _TEXT,
    "client_id": _TEXT,
    "client_secret": _SECRET,
    "issuer": _TEXT,
    "client_auth": _CLIENT_AUTH,
    "client_name": _TEXT,
    "redirect_uri": _TEXT,
    "scope": _ONE_OR_MORE,
    "account": _TEXT,
    "grace": _NUMBER,
    "dpop": _DPOP,
    **_WAY,
}

_SIGNING: Mapping[str, Kind] = {
    "key": _KEY,
    "alg": _TEXT,
    "kid": _TEXT,
    "lifetime": _NUMBER,
}

CLIENT_AUTH: Mapping[str, tuple[Mapping[str, Kind], tuple[str, ...]]] = {
    "private_key_jwt": ({**_SIGNING, "audience": _TEXT, "certificate": _TEXT}, ("key",)),
    "assertion": ({"assertion": _TOKEN}, ("assertion",)),
}
"""The keys of each type of client authentication that is a table."""

SOURCES: Mapping[str, tuple[Mapping[str, Kind], tuple[str, ...]]] = {
    "client_credentials": ({**_OAUTH2, "grant_type": _TEXT}, ("client_id",)),
    "refresh_token": (
        {
            **_OAUTH2,
            **LOGIN,
            "refresh_token": _SECRET,
            "account": _TEXT,
            "grace": _NUMBER,
            "login_lifetime": _NUMBER,
        },
        ("client_id",),
    ),
    "password": (
        {**_OAUTH2, "username": _TEXT, "password": _SECRET, "grace": _NUMBER},
        ("client_id", "username", "password"),
    ),
    "api_user": (_API_USER, ("url",)),
    "login": (_LOGIN, ("url",)),
    "jwt_bearer": ({**_OAUTH2, **_SIGNING, "subject": _TEXT, "assertion": _TOKEN}, ("client_id",)),
    "service_account": (
        {"path": _TEXT, "scope": _ONE_OR_MORE, "subject": _TEXT, **_WAY},
        ("path", "scope"),
    ),
    "github_app": (
        {
            "app_id": _ID,
            "key": _KEY,
            "installation": _ID,
            "repositories": _TEXTS,
            "permissions": _TEXT_TABLE,
            "api_url": _TEXT,
            **_WAY,
        },
        ("app_id", "key", "installation"),
    ),
    "token_exchange": (
        {
            **_OAUTH2,
            "subject_token": _TOKEN,
            "subject_token_type": _TEXT,
            "actor_token": _TOKEN,
            "actor_token_type": _TEXT,
            "requested_token_type": _TEXT,
            "account": _TEXT,
        },
        ("subject_token",),
    ),
    "command": (
        {"command": _TEXTS, "timeout": _NUMBER, "lifetime": _NUMBER, "account": _TEXT},
        ("command",),
    ),
    "callable": ({"callable": _FUNCTION, "account": _TEXT}, ("callable",)),
}
"""The keys of each type of source, and those of them that are required."""


# --- checking ----------------------------------------------------------------------------

_WORDS = {bool: "true or false", int: "a number", float: "a number", list: "a list"}


def checked(
    config: ConfigFile,
    key: Sequence[str],
    table: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """*table*, checked, with references in place of the tables that say where a value is kept.

    Only secrets stay references; any other value that is kept elsewhere is read now.

    :param key: the path of the table.
    :raises ProfileError: if it has an unknown key or an invalid value, or if a key is missing.
    """
    problems, values, hints = Problems(), {}, ""
    for name, value in table.items():
        with problems.collected():
            if name in kinds:
                values[name] = _value(config, [*key, name], value, kinds[name])
                continue
            hint = _misplaced(key, name, kinds) or nearest(name, kinds)
            hints += hint
            raise config.error(
                [*key, name], f"This key is unknown.{hint} Valid keys: {', '.join(kinds)}."
            )
    for name in required:
        if name not in table and repr(name) not in hints:
            with problems.collected():
                raise config.error(
                    [*key, name], f"This key is missing: give {kinds[name].expected}."
                )
    problems.raise_any()
    return values


def _misplaced(key: Sequence[str], name: str, kinds: Mapping[str, Kind]) -> str:
    """Where a key belongs that is in the other one of a profile's two main tables, or ``""``."""
    if kinds is PROFILE and any(name in of_source for of_source, _ in SOURCES.values()):
        return f" It is a key of sources: put it below [{key[0]}.source]."
    if list(key[1:]) == ["source"] and name in PROFILE:
        return f" It is a key of profiles: put it below [{key[0]}]."
    return ""


def _value(config: ConfigFile, key: Sequence[str], value: Any, kind: Kind) -> Any:
    if kind.is_late or kind.fits("text"):
        kinds = KINDS if kind.is_late else PLAIN_KINDS
        value = _referring(config, key, value, kinds, is_table=kind.fits({}))
    # A value that is kept elsewhere counts as a string.
    if not kind.fits(resolved(value, lambda reference: "text")):
        raise config.error(key, f"Expected {kind.expected}, not {_described(value)}.{_hint(value)}")
    return value if kind.is_late else resolved(value, Reference.read)


def _referring(
    config: ConfigFile,
    key: Sequence[str],
    value: Any,
    kinds: Sequence[str],
    *,
    is_table: bool = False,
) -> Any:
    if is_reference(value) and not is_table:
        ((kind, place),) = value.items()
        if kind not in kinds:
            raise config.error(
                key,
                f"Only a secret may come from {kind}, because reading a profile runs no program. "
                f"Give the value itself, or a table with its place: {' or '.join(kinds)}.",
            )
        reference = Reference(kind, place, ".".join(key), config.path)
        expected = reference.expected()
        if expected is not None:
            raise config.error([*key, kind], f"Expected {expected}, not {_described(place)}.")
        return reference
    if isinstance(value, Mapping):
        return {name: _referring(config, [*key, name], it, kinds) for name, it in value.items()}
    if isinstance(value, list):
        return [_referring(config, [*key, str(at)], it, kinds) for at, it in enumerate(value)]
    return value


def _described(value: object) -> str:
    # Not the value itself: it may be a secret in the wrong place.
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list) and not value:
        return "an empty list"
    if isinstance(value, Mapping):
        return f"a table with {', '.join(value)}" if value else "an empty table"
    return _WORDS.get(type(value), "a date or time")


def _hint(value: object) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        return nearest(next(iter(value)), KINDS)
    return ""
