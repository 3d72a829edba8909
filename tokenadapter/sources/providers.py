"""Providers: what is known of well-known authorization servers.

The facts are in ``providers.toml``, each with its source.  The file is read when a source or a
profile names a provider, and only the table of this provider is parsed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from tokenadapter import spelling
from tokenadapter.sources import checked_text

__all__ = ["PATH", "USUAL_REDIRECT", "Provider", "example", "known_names"]

PATH: str = os.path.join(os.path.dirname(__file__), "providers.toml")
USUAL_REDIRECT = "http://localhost:8400/"
"""Where the browser goes after a login: most providers accept only the port that is registered."""

# What a parameter may be: it becomes a part of the URLs to which secrets are sent.
_SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_PARAMETERS = {
    "domain": (
        rf"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/{_SEGMENT})*",
        "a host, with a port or a path if it has one, such as id.example.com",
    ),
    "tenant": (_SEGMENT, "a name of letters, digits, '.', '-', '_' and '~'"),
}


def known_names() -> list[str]:
    """The names of all providers."""
    return re.findall(r"^\[(\w+)\]$", _text(), re.MULTILINE)


def example(name: str) -> str:
    """The smallest profile for the provider *name*, as a part of a configuration file.

    :raises ValueError: if there is no such provider.
    """
    table = _table(name)
    shown: Mapping[str, str] = table["example"]
    lines = [f"[{name}]", f'prefix = "{shown["prefix"]}"', "", f"[{name}.source]"]
    lines += ['type = "refresh_token"', f'provider = "{name}"']
    for key, known in table.get("parameters", {}).items():
        lines.append(f"# {known['about'][0].upper()}{known['about'][1:]}.")
        value = known.get("default")
        lines.append(f'{key} = "…"' if value is None else f'# {key} = "{value}"')
    lines.append('client_id = "…"')
    lines.append("# A file in this directory, of mode 0600, that contains only the secret.")
    lines.append(f'client_secret = {{ file = "{name}-secret" }}')
    if "scope" in shown:
        lines.append(f'scope = "{shown["scope"]}"')
    return "\n".join(lines) + "\n"


class Provider:
    """An authorization server that many programs use.

    :param name: its name in ``providers.toml``.
    :param domain: the host of the server, where the provider has several.
    :param tenant: the name of a tenant or realm there.
    :ivar identity: the name and the parameters: what owns the tokens.  A correction of the facts
        does not change it.
    :raises TypeError: if an argument is no text.
    :raises ValueError: if there is no such provider, or a parameter is missing or makes no sense.
    """

    def __init__(self, name: str, *, domain: str | None = None, tenant: str | None = None) -> None:
        table = _table(name)
        self.name: str = name
        self._facts = {key: fact for group in table["facts"] for key, fact in group.items()}
        known = table.get("parameters", {})
        self._values = {
            key: _parameter(name, key, value, known.get(key))
            for key, value in (("domain", domain), ("tenant", tenant))
        }
        self.identity: str = " ".join([name, *filter(None, self._values.values())])

    def __repr__(self) -> str:
        return f"<Provider {self.name}>"

    def get(self, key: str, default: Any = None) -> Any:
        """The fact *key*, with the parameters in their places; *default* if it is not known."""
        value = self._facts.get(key, default)
        return value.format(**self._values) if isinstance(value, str) else value

    def scope(self, given: Iterable[str]) -> str:
        """The scope to request: what is given, and what a refresh token takes."""
        words = " ".join(given).split()
        needed = self.get("scope", "")
        if words and needed and needed not in words:
            words.append(needed)
        return str(self.get("scope_separator", " ")).join(words)

    @property
    def login_settings(self) -> dict[str, str]:
        """How a person logs in, as arguments of :func:`tokenadapter.login`."""
        keys = ("authorization_url", "device_authorization_url")
        settings = {key: self.get(key) for key in keys if self.get(key)}
        added = self.get("authorization_parameters")
        if added:
            settings["authorization_url"] += f"?{urlencode(added)}"
        return {**settings, "redirect_uri": self.get("redirect_uri", USUAL_REDIRECT)}


def _parameter(
    provider: str, key: str, value: str | None, known: Mapping[str, str] | None
) -> str | None:
    """The parameter *key*: *value*, or its default.

    :param known: what *provider* says of it; ``None`` if it has no such parameter.
    """
    if known is None:
        if value is not None:
            raise ValueError(f"{key} has no meaning for the provider {provider!r}: remove it")
        return None
    if value is None:
        if "default" not in known:
            raise ValueError(f"{key} is missing: the provider {provider!r} needs {known['about']}")
        return known["default"]
    pattern, expected = _PARAMETERS[key]
    if re.fullmatch(pattern, checked_text(key, value)) is None:
        raise ValueError(f"{key} must be {expected}, not {value!r}")
    return value


def _text() -> str:
    with open(PATH, encoding="utf-8") as file:
        return file.read()


def _table(name: str) -> dict[str, Any]:
    _, header, rest = _text().partition(f"\n[{checked_text('provider', name)}]\n")
    if not header or not name.isidentifier():
        names = known_names()
        raise ValueError(
            f"provider {name!r} is not known.{spelling.nearest(name, names)} Known providers: "
            f"{', '.join(names)}. For any other, pass token_url or issuer"
        )
    # To parse the whole file would take many times as long, in each process that names a provider.
    mine = re.split(r"^\[\w+\]$", rest, maxsplit=1, flags=re.MULTILINE)[0]
    table: dict[str, Any] = tomllib.loads(header + mine)[name]
    return table
