"""One profile: the prefixes of an API, and how its token is obtained and stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.config.config_file import ConfigFile, as_arguments, xdg_directory
from tokenadapter.config.functions import NamedFunction
from tokenadapter.config.grants import FunctionOfProfile, ProfileGrant
from tokenadapter.config.problems import Problems
from tokenadapter.config.references import Reference, references_in
from tokenadapter.config.schema import PROFILE, VERDICT, checked
from tokenadapter.config.source_tables import grant_of
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import re
    from urllib import parse

    from tokenadapter.clients import prefix as client_prefix
    from tokenadapter.clients import requests as requests_client
    from tokenadapter.clients.requests import TokenAdapter
    from tokenadapter.config import encryption
    from tokenadapter.http import verdicts
    from tokenadapter.protocols import TokenStore
    from tokenadapter.stores import urls
    from tokenadapter.token import Token
else:
    client_prefix = late("tokenadapter.clients.prefix")
    encryption = late("tokenadapter.config.encryption")
    re = late("re")
    requests_client = late("tokenadapter.clients.requests")
    parse = late("urllib.parse")
    urls = late("tokenadapter.stores.urls")
    verdicts = late("tokenadapter.http.verdicts")

__all__ = ["Profile", "shared_prefixes"]

_KEEPER_SETTINGS = ("renew_early", "lock_timeout")
_KEEPER_FUNCTIONS = ("on_refresh", "on_event")
_ADAPTER_SETTINGS = (
    "header",
    "scheme",
    "override_auth",
    "allow_http",
    "max_replays",
    "replay_limit",
)
# A path without "%", ";" and backslashes, and without a segment that begins with a dot.
_PLAIN_REST = r"(?:/(?!\.)[A-Za-z0-9_.~-]*)*(?:[?#][!-~]*)?"
_PLAIN_BASE = (
    r"https://[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[1-9][0-9]{0,3})?(?:/(?!\.)[A-Za-z0-9_.~-]+)*"
)


class Profile:
    """A profile, checked as far as that is possible without importing requests.

    :param config: the file that contains it.
    :param name: its name.
    :raises ProfileError: if it is invalid.
    :ivar prefixes: the API's base URLs, which share the token.
    :ivar username: the user that servers expect if a program sends the token as a password.
    """

    def __init__(self, config: ConfigFile, name: str) -> None:
        self.config = config
        self.name = name
        table, problems = config.table(name), Problems()
        with problems.collected():
            self._settings = checked(config, [name], table, PROFILE, ["source"])
            if ("prefix" in table) == ("prefixes" in table):
                raise config.error(
                    [name, "prefix"],
                    "Give the API's base URL as 'prefix', or several as 'prefixes', but not both.",
                )
        with problems.collected():
            source = table.get("source")
            if isinstance(source, dict):
                self.grant: ProfileGrant | FunctionOfProfile = grant_of(
                    config, name, source, partial(_OtherProfile, config)
                )
        with problems.collected():
            self._verdict = self._given_verdict(table.get("verdict"))
        problems.raise_any()
        self.prefixes: list[str] = self._settings.get("prefixes") or [self._settings["prefix"]]
        self.header: str = self._settings.get("header", "Authorization")
        self.scheme: str = self._settings.get("scheme", "Bearer")
        self.username: str | None = self._settings.get("username")
        self._keeper: TokenKeeper | None = None
        self._store: TokenStore | None = None

    def __repr__(self) -> str:
        return f"<Profile {self.name} of {self.config.path}>"

    @property
    def as_arguments(self) -> str:
        """How a command line names this profile."""
        return as_arguments(self.name, self.config.path)

    @property
    def store_url(self) -> str:
        """The URL of its store: the profile's, or else a file in the user's state directory."""
        given: str | None = self._settings.get("store")
        if given is not None:
            return self._from_here(given)
        state = xdg_directory("XDG_STATE_HOME", "~/.local/state")
        return f"file:{state}/tokenadapter/{self.name}.json"

    @property
    def is_in_memory(self) -> bool:
        """Whether the store lasts only as long as the process."""
        return self.store_url.partition(":")[0].lower() == "memory"

    def _from_here(self, url: str) -> str:
        """*url* with a relative path counted from the configuration file: counted from the working
        directory, two programs would have two stores."""
        if urls.is_path(url):
            url = f"file:{parse.quote(url)}"
        scheme, _, path = url.partition(":")
        is_relative = scheme.lower() == "file" and path and path[0] not in "/~\\%?#"
        if not is_relative or path[1:2] == ":":  # a drive of Windows
            return url
        return f"file:{parse.quote(os.path.dirname(self.config.path))}/{path}"

    def store(self) -> TokenStore:
        """The store.

        :raises ProfileError: if its URL is invalid, or a package that it needs is not installed.
        """
        if self._store is None:
            key = "store"
            try:
                store = urls.store_from_url(self.store_url)
                if "encryption_key" in self._settings:
                    key = "encryption_key"
                    store = encryption.EncryptedProfileStore(
                        store, self._settings[key], self.name, self.config.path
                    )
            except (ImportError, ValueError) as error:
                problem = str(error).removeprefix("store: ")
                raise self.config.error([self.name, key], problem) from None
            self._store = store
        return self._store

    def has_hidden_token(self) -> bool:
        """Whether there is a token whose ``encryption_key`` only a command or the keyring can read.
        Neither is asked for the key.

        :raises StoreError: if the store cannot be read, or the token is not encrypted.
        """
        if "encryption_key" not in self._settings:
            return False
        store = self.store()
        assert isinstance(store, encryption.EncryptedProfileStore)
        return store.is_hidden()

    @property
    def encryption_references(self) -> list[Reference]:
        """Where the ``encryption_key`` is."""
        return references_in(self._settings.get("encryption_key"))

    def references(self) -> list[Reference]:
        """Where its secrets are, or the program that prints the token."""
        of_source = self.grant.references() if isinstance(self.grant, ProfileGrant) else ()
        return [*self.encryption_references, *of_source]

    def keeper(self) -> TokenKeeper:
        """The keeper that its adapters share.

        :raises ProfileError: if one of its settings is invalid.
        """
        if self._keeper is None:
            settings = self._given(_KEEPER_SETTINGS)
            for name, function in self._given(_KEEPER_FUNCTIONS).items():
                settings[name] = self._function(name, function)
            store = self.store()
            try:
                self._keeper = TokenKeeper(self.grant, store, **settings)
            except ValueError as error:  # all other settings have been checked already
                raise self.config.error([self.name, "source", "grace"], str(error)) from None
        return self._keeper

    def adapters(self) -> list[TokenAdapter]:
        """An adapter for each prefix.

        :raises ProfileError: if a prefix or a setting is invalid.
        """
        settings = self._given(_ADAPTER_SETTINGS)
        verdict = self._verdict and self._verdict()
        keeper = self.keeper()
        adapters = []
        for prefix in self.prefixes:
            try:
                made = requests_client.TokenAdapter(prefix, keeper, verdict=verdict, **settings)
            except (TypeError, ValueError) as error:
                # The message begins with the setting, unless that is the prefix.
                first = str(error).partition(" ")[0].partition("=")[0]
                key = "prefix" if "prefix" in self._settings else "prefixes"
                key = first if first in settings else key
                raise self.config.error([self.name, key], str(error)) from None
            adapters.append(made)
        return adapters

    def covers(self, url: str) -> bool:
        """Whether *url* is under a prefix, and none of the token source's own URLs.

        :raises ProfileError: if a prefix or a setting is invalid.
        """
        is_plain = any(_is_plainly_under(url, prefix) for prefix in self.prefixes)
        if is_plain and not url.startswith(tuple(self.grant.urls)):
            return True
        return any(adapter.covers(url) for adapter in self.adapters())

    def named_functions(self) -> list[NamedFunction]:
        """The user's functions that it names."""
        keeper = self.keeper()
        given = [
            *(self.grant.functions() if isinstance(self.grant, ProfileGrant) else ()),
            getattr(self.grant, "function", None),
            self._verdict and self._verdict(),
            keeper.on_refresh,
            keeper.journal.listener,
        ]
        return [function for function in given if isinstance(function, NamedFunction)]

    # --- tables --------------------------------------------------------------------------

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._settings[name] for name in names if name in self._settings}

    def _function(self, key: str, name: str) -> NamedFunction:
        return NamedFunction(name, f"{self.name}.{key}", self.config.path)

    def _given_verdict(self, given: Any) -> Callable[[], Any] | None:
        """Makes the verdict, if the profile has one."""
        if isinstance(given, str):
            function = self._function("verdict", given)
            return lambda: function
        if not isinstance(given, dict):
            return None
        values = checked(self.config, [self.name, "verdict"], given, VERDICT)
        if "json" in values:
            values["json"] = dict(_paths(values["json"]))

        def made() -> Any:
            try:
                return verdicts.expired_on(**values)
            except (TypeError, ValueError) as error:
                raise self.config.error([self.name, "verdict"], str(error)) from None

        return made


def shared_prefixes(profiles: Iterable[Profile]) -> Mapping[str, list[str]]:
    """The prefixes that several of *profiles* have, however they spell them, and the names of those
    profiles."""
    names: dict[str, list[str]] = {}
    for profile in profiles:
        # An invalid prefix is reported when it is used.
        with suppress(ValueError):
            for url in set(map(_canonical, profile.prefixes)):
                names.setdefault(url, []).append(profile.name)
    return {url: sharing for url, sharing in names.items() if len(sharing) > 1}


def _canonical(prefix: str) -> str:
    """*prefix* as requests spells it, without importing requests if it is plain."""
    base = prefix.removesuffix("/")
    if re.fullmatch(_PLAIN_BASE, base):
        host, slash, path = base.removeprefix("https://").partition("/")
        return f"https://{host.removesuffix(':443')}{slash}{path}"
    return client_prefix.Prefix(prefix, allow_http=True).url


def _is_plainly_under(url: str, prefix: str) -> bool:
    """Whether *url* is under *prefix*, without requests, which is slow to import.

    ``False`` leaves the answer open.  ``True`` needs a prefix and a URL of characters that every
    parser reads alike, as :mod:`tokenadapter.clients.prefix` does.
    """
    base = prefix.removesuffix("/")
    return (
        url.startswith(base)
        and re.fullmatch(_PLAIN_BASE, base) is not None
        and re.fullmatch(_PLAIN_REST, url[len(base) :]) is not None
    )


class _OtherProfile:
    """Keeps the token of the profile *name*, which another profile presents."""

    __slots__ = ("_config", "_made", "_name")

    def __init__(self, config: ConfigFile, name: str) -> None:
        self._config = config
        self._name = name
        # One keeper for all calls: each keeper reads its store and the key to it.
        self._made: TokenKeeper | None = None

    def current(self) -> Token:
        return self._keeper().current()

    def renew(self, rejected: Token) -> Token:
        return self._keeper().renew(rejected)

    def _keeper(self) -> TokenKeeper:
        if self._made is None:
            self._made = Profile(self._config, self._name).keeper()
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._config, self._name)


def _paths(table: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a table and the tables within, by dotted path: TOML reads a dotted key as a
    table within."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{lead}{name}.")
        else:
            yield lead + name, value
