"""What stands in the table ``[NAME.source]``, as a grant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from tokenadapter.config.checks import checked
from tokenadapter.config.file import ConfigFile
from tokenadapter.config.functions import NamedFunction
from tokenadapter.config.grants import FunctionOfProfile, ProfileGrant
from tokenadapter.config.schema import SOURCES
from tokenadapter.config.trouble import nearest
from tokenadapter.late_imports import imported

__all__ = ["grant_of"]

_MAKERS = {
    "client_credentials": ("tokenadapter.sources.client_credentials", "ClientCredentials"),
    "refresh_token": ("tokenadapter.sources.refresh_token", "RefreshToken"),
    "password": ("tokenadapter.sources.password", "Password"),
    "login": ("tokenadapter.sources.login", "Login"),
}


def grant_of(
    config: ConfigFile, name: str, table: Mapping[str, Any]
) -> ProfileGrant | FunctionOfProfile:
    """The grant that *table* describes.

    :param name: the profile's.
    :raises ProfileError: if it cannot be.
    """
    key = [name, "source"]
    if "callable" in table:
        return _of_function(config, name, checked(config, key, table, *SOURCES["callable"]))
    kind = table.get("type")
    if kind is None:
        raise config.error(
            [*key, "type"],
            f"It is missing: give one of {_quoted(_MAKERS)}, or callable = "
            '"module:function" in its place.',
        )
    if kind not in _MAKERS:
        hint = nearest(kind, _MAKERS) if isinstance(kind, str) else ""
        raise config.error([*key, "type"], f"Expected is one of {_quoted(_MAKERS)}.{hint}")
    rest = {name: value for name, value in table.items() if name != "type"}
    says = checked(config, key, rest, *SOURCES[kind])
    for path in ("cert", "verify"):
        if path in says:
            says[path] = _from_here(config, says[path])
    if "auth" in says:
        says["auth"] = tuple(says["auth"])
    module, maker = _MAKERS[kind]
    try:
        return ProfileGrant(name, getattr(imported(module), maker), says)
    except (TypeError, ValueError) as error:
        # Its message begins with the argument.
        argument = str(error).partition(" ")[0].partition("=")[0]
        where = [*key, argument] if argument in says else key
        raise config.error(where, str(error)) from None


def _of_function(config: ConfigFile, name: str, says: Mapping[str, Any]) -> FunctionOfProfile:
    owner = {"function": says["callable"]}
    if "account" in says:
        owner["user"] = says["account"]
    function = NamedFunction(says["callable"], f"{name}.source.callable", config.path)
    return FunctionOfProfile(name, function, owner)


def _from_here(config: ConfigFile, path: Any) -> Any:
    """A path, or several, counted from the configuration file; all else as it is."""
    if isinstance(path, list):
        return tuple(_from_here(config, one) for one in path)
    if isinstance(path, str):
        return os.path.join(os.path.dirname(config.path), os.path.expanduser(path))
    return path


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
