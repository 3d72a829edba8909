"""Stores by their URLs, for settings and command lines: ``file:~/.local/state/x/token.json``.

A path without a scheme is a file.

This module knows some schemes.  Other packages register more, each as an entry point of the group
``tokenadapter.stores`` whose name is the scheme and whose object is a function of the whole URL::

    [project.entry-points."tokenadapter.stores"]
    vault = "my_package:store_from_vault_url"
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, cast
from urllib.parse import unquote

from tokenadapter.late_imports import late
from tokenadapter.protocols import TokenStore
from tokenadapter.values import checked_store

if TYPE_CHECKING:
    import difflib
    from importlib import metadata
    from importlib.metadata import EntryPoint

    from tokenadapter.stores import django, file, keyring, memory, redis, sql
else:
    difflib = late("difflib")
    django = late("tokenadapter.stores.django")
    file = late("tokenadapter.stores.file")
    keyring = late("tokenadapter.stores.keyring")
    memory = late("tokenadapter.stores.memory")
    metadata = late("importlib.metadata")
    redis = late("tokenadapter.stores.redis")
    sql = late("tokenadapter.stores.sql")

__all__ = ["is_path", "schemes", "store_from_url"]

_GROUP: Final = "tokenadapter.stores"
# A single letter would be a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]+)((?:\+[A-Za-z0-9_.-]+)?):", re.ASCII)
# The end of the name of a file.
_SUFFIX = re.compile(r".\.[^.]{0,20}$")
# The server in a network URL: user and password, host, port.
_SERVER = re.compile(r"[^/?#]*://(?:[^/?#]*@)?(?:\[[^\]/]*\]|[^:/?#@]*)(?::\d*)?(?:[/?]|$)")


def store_from_url(url: str | os.PathLike[str]) -> TokenStore:
    """The store that *url* names, or the :class:`~tokenadapter.FileStore` at a path.

    ======================================  =====================================================
    URL                                     store
    ======================================  =====================================================
    ``file:~/x/token.json``,                :class:`~tokenadapter.FileStore`
    ``file:///var/lib/x/token.json``,
    ``~/x/token.json``, ``token.json``
    ``memory:name``                         :class:`~tokenadapter.MemoryStore`
    ``redis://host:6379/0#key``,            ``RedisStore``
    ``rediss://…``, ``unix:///…``,
    ``valkey://…``, ``valkeys://…``
    ``postgresql+psycopg://…/db#slot``,     ``SQLStore``; the part before the ``#`` is a URL of
    ``mysql+pymysql://…``,                  SQLAlchemy, except for ``create=1``: create the table
    ``sqlite:///path?create=1#slot``, …
    ``django:alias#key``                    ``DjangoCacheStore``
    ``keyring:service/user``                ``KeyringStore``
    ======================================  =====================================================

    Write a character that would end a part early as ``%`` and two hexadecimal digits.

    :raises ValueError: if *url* names no store.  The message says what was expected, and shows no
        password.
    :raises TypeError: if *url* is not text.
    :raises ImportError: if a package that the store needs is not installed.
    """
    if isinstance(url, os.PathLike):
        return file.FileStore(url)
    if not isinstance(url, str):
        raise TypeError(f"the URL of a store is text, not {type(url).__name__}")
    if is_path(url):
        return file.FileStore(url)
    match = _SCHEME.match(url)
    if match is None:
        raise ValueError(
            "store: this names no kind of store. A file is file:~/path/token.json; the kinds are "
            f"{_listed(schemes())}"
        )
    scheme = match[1].lower()
    make = _KNOWN.get(scheme)
    if make is not None and (not match[2] or make is _sql):
        return make(url, url[match.end() :])
    elsewhere = {entry_point.name.lower(): entry_point for entry_point in _registered()}
    entry_point = elsewhere.get(scheme + match[2].lower()) or elsewhere.get(scheme)
    if entry_point is not None:
        return _made_elsewhere(entry_point, url)
    near = difflib.get_close_matches(scheme, schemes(), 1, 0.5)
    hint = f"Did you mean {near[0]}:? " if near else ""
    raise ValueError(
        f"store: unknown kind of store {scheme + match[2]}:. {hint}The kinds are "
        f"{_listed(schemes())}; other packages can register more"
    )


def is_path(text: str) -> bool:
    """Whether *text* is the path of a file, without a scheme.

    A single word without a suffix is not a path: ``redis`` or a pasted secret would become a file.
    The last part of a JWT is longer than a suffix.
    """
    name = re.split(r"[/\\]", text)[-1]
    has_scheme = _SCHEME.match(text) is not None or "://" in text
    return not has_scheme and bool(name) and (name != text or bool(_SUFFIX.search(name)))


def schemes() -> list[str]:
    """The schemes that :func:`store_from_url` knows, including registered ones."""
    return sorted({*_KNOWN, *(entry_point.name.lower() for entry_point in _registered())})


def _file(url: str, rest: str) -> TokenStore:
    if re.search("[?#]", rest):
        _refuse(url, "a path, with %3F for ? and %23 for #", "file:~/x/token.json")
    path = unquote(rest)
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            _refuse(url, "no host: three slashes and a path", "file:///var/lib/x/token.json")
        if os.name == "nt" and path[2:3] == ":":
            path = path[1:]
    if not path or path.endswith(("/", os.sep)):
        _refuse(url, "the path of a file", "file:~/x/token.json")
    return file.FileStore(path)


def _memory(url: str, rest: str) -> TokenStore:
    if not rest:
        _refuse(url, "a name, by which the sessions of a process share the token", "memory:billing")
    return memory.MemoryStore(unquote(rest))


def _redis(url: str, rest: str) -> TokenStore:
    example = "redis://localhost:6379/0#billing"
    if url[:4].lower() == "unix":
        example = "unix:///run/redis.sock?db=0#billing"
    server, key = _server_and_slot(url, "the key after a #", example)
    return redis.RedisStore(server, key)


def _sql(url: str, rest: str) -> TokenStore:
    example = "postgresql+psycopg://user@host/database#billing"
    server, slot = _server_and_slot(url, "the slot after a #", example)
    place, _, query = server.partition("?")
    options = query.split("&")
    ours = [option for option in options if option.partition("=")[0] == "create"]
    if not {*ours} <= {"create=1", "create=0"}:
        _refuse(
            url,
            "create=1, which creates the table, or create=0",
            example.replace("#", "?create=1#"),
        )
    theirs = "&".join(option for option in options if option not in ours)
    create = ours[-1:] == ["create=1"]
    with _as_value_error("sqlalchemy."):
        return sql.SQLStore(f"{place}?{theirs}" if theirs else place, slot, create=create)


def _django(url: str, rest: str) -> TokenStore:
    alias, _, key = rest.partition("#")
    if not alias or not key or alias.startswith("/"):
        _refuse(url, "an alias of settings.CACHES, a # and a key", "django:default#billing")
    with _as_value_error("django."):
        return django.DjangoCacheStore(unquote(alias), key=unquote(key))


def _keyring(url: str, rest: str) -> TokenStore:
    service, _, user = rest.partition("/")
    if not service or not user or "/" in user:
        _refuse(
            url, "a service, a slash and a user, with %2F for / within them", "keyring:billing/me"
        )
    return keyring.KeyringStore(unquote(service), unquote(user))


_KNOWN: dict[str, Callable[[str, str], TokenStore]] = {
    "file": _file,
    "memory": _memory,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "valkey": _redis,
    "valkeys": _redis,
    "postgresql": _sql,
    "mysql": _sql,
    "mariadb": _sql,
    "sqlite": _sql,
    "oracle": _sql,
    "mssql": _sql,
    "django": _django,
    "keyring": _keyring,
}


def _server_and_slot(url: str, what: str, example: str) -> tuple[str, str]:
    """The parts before and after the ``#``."""
    server, _, slot = url.rpartition("#")
    if not slot or not server:
        _refuse(url, what, example)
    # An error of the library that parses the URL could show a part of a password that it took for a
    # port.
    if "#" in server or not _SERVER.match(server):
        _refuse(
            url,
            "//host, optionally with :port after it and user:password@ before it, with every "
            "character of these except letters and digits as %XX",
            example,
        )
    return server, unquote(slot)


@contextmanager
def _as_value_error(library: str) -> Iterator[None]:
    """Turn an error class of a library, which says that a name is unknown, into ``ValueError``."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(library):
            raise
        raise ValueError(f"store: {error}") from error


def _refuse(url: str, expected: str, example: str) -> NoReturn:
    # In a URL that cannot be parsed, a password may be anywhere: show only the scheme.
    scheme = url.partition(":")[0].lower()
    raise ValueError(f"store: after {scheme}: expected {expected}, as in {example}")


def _registered() -> list[EntryPoint]:
    return [*metadata.entry_points(group=_GROUP)]


def _made_elsewhere(entry_point: EntryPoint, url: str) -> TokenStore:
    store = entry_point.load()(url)
    try:
        return checked_store(f"what {entry_point.value} returns", cast("TokenStore", store))
    except TypeError as error:
        raise ValueError(f"store: {entry_point.name}: cannot be used: {error}") from None


def _listed(names: list[str]) -> str:
    return ", ".join(f"{name}:" for name in names)
