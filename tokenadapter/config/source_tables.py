"""The grant of a profile, made from its table ``[NAME.source]``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.functions import NamedFunction, is_function_name
from tokenadapter.config.grants import FunctionOfProfile, ProfileGrant
from tokenadapter.config.problems import ProfileError, nearest
from tokenadapter.config.references import Reference, is_reference
from tokenadapter.config.schema import CLIENT_AUTH, LOGIN, SOURCES, checked
from tokenadapter.late_imports import imported, late

if TYPE_CHECKING:
    from tokenadapter.sources import Source, given_token
    from tokenadapter.sources.given_token import Keeping
else:
    given_token = late("tokenadapter.sources.given_token")

__all__ = ["grant_of"]

_MAKERS = {
    "client_credentials": ("client_credentials", "ClientCredentials"),
    "refresh_token": ("refresh_token", "RefreshToken"),
    "password": ("password", "Password"),
    "api_user": ("api_user", "ApiUser"),
    "login": ("login", "Login"),
    "jwt_bearer": ("jwt_bearer", "JWTBearer"),
    "service_account": ("jwt_bearer", "ServiceAccount.from_file"),
    "github_app": ("github_app", "GitHubApp"),
    "token_exchange": ("token_exchange", "TokenExchange"),
    "command": ("command", "Command"),
}
_AUTH_MAKERS = {
    "private_key_jwt": ("client_auth.private_key_jwt", "PrivateKeyJWT"),
    "assertion": ("client_auth.client_assertion", "ClientAssertion"),
}
# Paths of files, and tokens that are in a file or come from a function.
_PATHS = ("cert", "certificate", "path", "verify")
_KEYS = ("dpop", "key")
_TOKENS = ("actor_token", "assertion", "subject_token")


def _made(kind: str, **arguments: Any) -> Source:
    """The source of a kind, and the object in its ``client_auth`` if that is a table."""
    auth = arguments.get("client_auth")
    if isinstance(auth, Mapping):
        values = {name: value for name, value in auth.items() if name != "type"}
        arguments["client_auth"] = _maker(*_AUTH_MAKERS[auth["type"]])(**values)
    source: Source = _maker(*_MAKERS[kind])(**arguments)
    return source


def _maker(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = attrgetter(name)(imported(f"tokenadapter.sources.{module}"))
    return found


def grant_of(
    config: ConfigFile,
    name: str,
    table: Mapping[str, Any],
    other: Callable[[str], Keeping],
) -> ProfileGrant | FunctionOfProfile:
    """The grant that *table* describes.

    :param name: the profile's name.
    :param other: what keeps the token of another profile, by its name.
    :raises ProfileError: if the table is invalid.
    """
    key = [name, "source"]
    if "callable" in table:
        return _of_function(config, name, checked(config, key, table, *SOURCES["callable"]))
    if table.get("type") is None:
        raise config.error(
            [*key, "type"],
            f"This key is missing: give one of {_quoted(_MAKERS)}, or give callable = "
            '"module:function" instead.',
        )
    kind, rest = _typed(config, key, table, _MAKERS)
    auth = rest.get("client_auth")
    is_table = isinstance(auth, Mapping) and not is_reference(auth)
    auth = rest.pop("client_auth") if is_table else None
    values = checked(config, key, rest, *SOURCES[kind])
    if auth is not None:
        values["client_auth"] = _client_auth(config, [*key, "client_auth"], auth, other)
    _place(config, key, values, other)
    if "auth" in values:
        values["auth"] = tuple(values["auth"])
    program: Reference | None = None
    if kind == "command":
        program = Reference("command", values["command"], ".".join([*key, kind]), config.path)
        values["command"] = [program.program or values["command"][0], *values["command"][1:]]
        values["directory"] = os.path.dirname(config.path)
    login = {name: values.pop(name) for name in LOGIN if name in values}
    try:
        return ProfileGrant(name, config.path, partial(_made, kind), values, login, program)
    except (TypeError, ValueError) as error:
        # The message begins with the name of the argument.
        argument = str(error).partition(" ")[0].partition("=")[0]
        where = [*key, argument] if argument in {**values, **login} else key
        raise config.error(where, str(error)) from None


def _client_auth(
    config: ConfigFile,
    key: list[str],
    table: Mapping[str, Any],
    other: Callable[[str], Keeping],
) -> dict[str, Any]:
    kind, rest = _typed(config, key, table, CLIENT_AUTH)
    values = checked(config, key, rest, *CLIENT_AUTH[kind])
    _place(config, key, values, other)
    return {"type": kind, **values}


def _typed(
    config: ConfigFile, key: list[str], table: Mapping[str, Any], known: Iterable[str]
) -> tuple[str, dict[str, Any]]:
    """The type of *table*, which must be one of *known*, and its other keys."""
    rest = dict(table)
    kind = rest.pop("type", None)
    if isinstance(kind, str) and kind in known:
        return kind, rest
    hint = nearest(kind, known) if isinstance(kind, str) else ""
    raise config.error([*key, "type"], f"Expected one of {_quoted(known)}.{hint}")


def _place(
    config: ConfigFile,
    key: list[str],
    values: dict[str, Any],
    other: Callable[[str], Keeping],
) -> None:
    """Count paths from the configuration file, and find what returns a token to present."""
    for name in _PATHS:
        if name in values:
            values[name] = _from_here(config, values[name])
    for name in _TOKENS:
        if isinstance(values.get(name), Mapping):
            profile = values[name]["profile"]
            if profile == key[0]:
                raise config.error([*key, name], "A profile cannot present its own token.")
            config.table(profile)
            values[name] = other(profile)
        elif name in values and is_function_name(values[name]):
            values[name] = _TokenFunction(values[name], ".".join([*key, name]), config.path)
        elif name in values:
            values[name] = _from_here(config, values[name])
    for name in _KEYS:
        signs = values.get(name)
        if isinstance(signs, Reference):
            # A file is read by the key itself, which checks that no other user can.
            signs.has_lines = True
            values[name] = signs.path if signs.kind == "file" else signs
        elif signs is not None:
            values[name] = _from_here(config, signs)


class _TokenFunction(NamedFunction):
    """A function that returns a token to present."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        try:
            self.find()
        except ProfileError as error:
            raise given_token.Unavailable(str(error)) from None
        return super().__call__(*args)


def _of_function(config: ConfigFile, name: str, values: Mapping[str, Any]) -> FunctionOfProfile:
    owner = {"function": values["callable"]}
    if "account" in values:
        owner["user"] = values["account"]
    function = NamedFunction(values["callable"], f"{name}.source.callable", config.path)
    return FunctionOfProfile(name, function, owner)


def _from_here(config: ConfigFile, path: Any) -> Any:
    """A path, or several, relative to the configuration file; any other value unchanged."""
    if isinstance(path, list):
        return tuple(_from_here(config, one) for one in path)
    if isinstance(path, str):
        return os.path.join(os.path.dirname(config.path), os.path.expanduser(path))
    return path


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
