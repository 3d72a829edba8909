"""How Redis is reached, what a record is there, and what its errors mean."""

from __future__ import annotations

import json
import re
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter.late_imports import imported, late
from tokenadapter.stores._text import FORMAT
from tokenadapter.values import Document, one_line

if TYPE_CHECKING:
    from tokenadapter import errors
else:
    errors = late("tokenadapter.errors")

__all__ = ["checked", "connect", "decode", "failure", "leave_replica", "tagged", "without_secrets"]
# Seconds until an answer counts as lost.  A server answers in less than a thousandth of that.
_TIMEOUT = 5.0

_LOGIN = "Check the user and the password that the URL or the client gives."
_RIGHTS = "Allow this user EVAL, and the keys and the commands that the documentation names."
_REPLICA = "It is a replica: name the primary, or let Sentinel or the cluster client find it."
_MEMORY = "Give it more memory (maxmemory), or let it hold less."
_CLUSTER = "It is a cluster: give a RedisCluster client."
_PART = "A part of the cluster is down: it serves again when that is back."
# By what Redis says, or by the client's name for it.  In a script, Redis says more than that.
_ADVICE = {
    "NewerFormat": "Upgrade, or use another key.",
    "Authentication": _LOGIN,
    "authenticated": _LOGIN,
    "NoPermission": _RIGHTS,
    "NOPERM": _RIGHTS,
    "ReadOnly": _REPLICA,
    "READONLY": _REPLICA,
    "OutOfMemory": _MEMORY,
    "OOM": _MEMORY,
    "MISCONF": "It cannot write to its disk: its own log says why.",
    "NOREPLICAS": "It waits for its replicas to come back (min-replicas-to-write).",
    "WRONGTYPE": "Something else uses that key: choose another one.",
    "Conflict": _CLUSTER,
    "MOVED": _CLUSTER,
    "CLUSTERDOWN": _PART,
    "ClusterDown": _PART,
    "SlotNotCovered": _PART,
    "BusyLoading": "It is starting: try again.",
    "BUSY": "A script of somebody else keeps it busy: try again.",
    "unknown command": "It needs EVAL (Lua scripts), which some proxies do not pass on.",
}
_OTHERWISE = "Check its address, and that it runs: try again."


def connect(url: str) -> Any:
    """A client for *url*, which connects when it is first used.

    :raises ImportError: if redis-py, or for ``valkey:`` and ``valkeys:`` valkey-py, is missing.
    :raises ValueError: if the URL cannot be read.
    """
    kind = "valkey" if url.startswith("valkey") else "redis"
    if "@" in urlsplit(url).path and not url.startswith("unix:"):
        raise _unreadable()  # where the password has a slash, its beginning would be a port
    try:
        package, retry = imported(kind), imported(f"{kind}.retry")
        backoff = imported(f"{kind}.backoff")
    except ImportError as error:
        raise ImportError(
            f"RedisStore needs {kind}-py: pip install 'tokenadapter[{kind}]'"
        ) from error
    try:
        return package.from_url(
            url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # A connection that has died while nobody used it is replaced; the keeper does the rest.
            retry=retry.Retry(backoff.NoBackoff(), 1),
            # For redis-py before 6, which else would not try again for them.
            retry_on_error=[package.exceptions.ConnectionError, package.exceptions.TimeoutError],
        )
    except ValueError:
        # What it says may show a part of a password.
        raise _unreadable() from None


def _unreadable() -> ValueError:
    return ValueError(
        "The URL of Redis cannot be read: redis://user:password@host:6379/0, where the "
        "password is percent-encoded; rediss:// for TLS, unix:// for a socket."
    )


def checked(client: Any) -> Any:
    """*client* itself.

    :raises TypeError: if it is none that can be used.
    """
    is_async = "asyncio" in type(client).__module__
    if is_async or isinstance(client, type) or not hasattr(client, "execute_command"):
        # Not the object itself: a URL of another type shows its password.
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        raise TypeError(f"give a redis-py client, not one of asyncio, or a URL, not {kind}")
    return client


def without_secrets(url: str) -> str:
    """*url* as it may be shown."""
    scheme, _, rest = url.partition("://")
    # The password may hold what ends a host or a path: it ends at the last @.
    place = re.split("[?#]", rest.rpartition("@")[2])[0]
    return f"{scheme}://{place}"


def tagged(key: str) -> str:
    """*key* with a hash tag, so that all keys that begin with it are on one node of a cluster."""
    _, opened, rest = key.partition("{")
    return key if opened and rest.find("}") > 0 else f"{{{key}}}"


def decode(held: list[bytes | None]) -> tuple[Document, str] | None:
    """The document and the tag from what a record holds, or ``None`` if it is no record.

    :raises NewerFormat: if it is one that this version cannot read.
    """
    form, tag, content, total = held
    if form is None or tag is None or content is None:
        return None
    if form != FORMAT.encode():
        if form.startswith(b"tokenadapter/"):
            name = one_line(form.decode(errors="replace"), 50)
            raise NewerFormat(f"a newer tokenadapter wrote it, as {name}")
        return None
    if total != sha1(content, usedforsecurity=False).hexdigest().encode():
        return None
    try:
        document, text = json.loads(content), tag.decode()
    except (ValueError, RecursionError):
        return None
    return (document, text) if isinstance(document, dict) else None


class NewerFormat(Exception):
    """The record is of a format that this version does not know."""


def leave_replica(client: Any, error: Exception) -> None:
    """Let *client* look for the primary anew if *error* says that it has reached a replica: a
    primary that became one may keep its connections."""
    pool = getattr(client, "connection_pool", None)
    if pool is not None and _advice(error) == _REPLICA:
        pool.disconnect(inuse_connections=False)


def failure(slot: object, task: str, error: Exception) -> errors.StoreError:
    """The :class:`StoreError` for *error*, which kept *slot* from doing its *task*."""
    text = str(error).rstrip(".") or type(error).__name__
    return errors.StoreError(
        f"{slot!r} cannot {task}: {text}. Nothing stored was lost. {_advice(error)}"
    )


def _advice(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}"
    return next((_ADVICE[sign] for sign in _ADVICE if sign in told), _OTHERWISE)
