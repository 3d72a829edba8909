"""Connecting to Redis, reading a record there, and what to do about an error of Redis."""

from __future__ import annotations

import json
import re
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

from tokenadapter.late_imports import imported
from tokenadapter.stores.toolkit import FORMAT, Refused
from tokenadapter.values import Document, one_line

__all__ = ["advice", "checked", "connect", "decode", "leave_replica", "tagged", "without_secrets"]

# Seconds until an answer counts as lost.  A server answers in less than a thousandth of that.
_TIMEOUT = 5.0

_LOGIN = "Check the user and the password that the URL or the client gives."
_RIGHTS = "Allow this user EVAL, and the keys and the commands that the documentation names."
_REPLICA = "It is a replica: name the primary, or let Sentinel or the cluster client find it."
_MEMORY = "Give it more memory (maxmemory), or store less in it."
_CLUSTER = "It is a cluster: pass a RedisCluster client."
_PART = "A part of the cluster is down: it serves again when that is back."
# By a part of Redis' message, or of the client's name for the error.
_ADVICE = {
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
    "Moved": _CLUSTER,
    "MOVED": _CLUSTER,
    "CLUSTERDOWN": _PART,
    "ClusterDown": _PART,
    "SlotNotCovered": _PART,
    "BusyLoading": "It is starting: try again.",
    "BUSY": "Another program's script keeps it busy: try again.",
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
            # A connection that has died while it was idle is replaced; the keeper does the rest.
            retry=retry.Retry(backoff.NoBackoff(), 1),
            # For redis-py before 6, which would not retry these errors otherwise.
            retry_on_error=[package.exceptions.ConnectionError, package.exceptions.TimeoutError],
        )
    except ValueError:
        # The text of the error may show a part of a password.
        raise _unreadable() from None


def _unreadable() -> ValueError:
    return ValueError(
        "The URL of Redis cannot be read: redis://user:password@host:6379/0, where the "
        "password is percent-encoded; rediss:// for TLS, unix:// for a socket."
    )


def checked(client: Any) -> Any:
    """*client* itself.

    :raises TypeError: if it is not a client that can be used.
    """
    is_async = "asyncio" in type(client).__module__
    if is_async or isinstance(client, type) or not hasattr(client, "execute_command"):
        # Not the object itself: a URL of another type shows its password.
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        raise TypeError(
            f"client_or_url is a URL or a synchronous client of redis-py or valkey-py, not {kind}"
        )
    return client


def without_secrets(url: str) -> str:
    """*url* without what must not be shown."""
    scheme, _, rest = url.partition("://")
    # The password may contain characters that end a host or a path: it ends at the last @.
    place = re.split("[?#]", rest.rpartition("@")[2])[0]
    return f"{scheme}://{place}"


def tagged(key: str) -> str:
    """*key* with a hash tag, so that all keys that begin with the result are on one node of a
    cluster."""
    _, opened, rest = key.partition("{")
    return key if opened and rest.find("}") > 0 else f"{{{key}}}"


def decode(held: list[bytes | None]) -> tuple[Document, str] | None:
    """The document and the tag in the fields of a hash, or ``None`` if they are not a record.

    :raises Refused: if a newer version wrote the record.
    """
    form, tag, content, total = held
    if form is None or tag is None or content is None:
        return None
    if form != FORMAT.encode():
        if form.startswith(b"tokenadapter/"):
            name = one_line(form.decode(errors="replace"), 50)
            raise Refused(f"a newer tokenadapter wrote it, as {name}: upgrade, or use another key")
        return None
    if total != sha1(content, usedforsecurity=False).hexdigest().encode():
        return None
    try:
        document, text = json.loads(content), tag.decode()
    except (ValueError, RecursionError):
        return None
    return (document, text) if isinstance(document, dict) else None


def leave_replica(client: Any, error: Exception) -> None:
    """Make *client* find the primary again if *error* says that it has reached a replica: a primary
    that became a replica may keep its connections."""
    pool = getattr(client, "connection_pool", None)
    if pool is not None and advice(error) == _REPLICA:
        pool.disconnect(inuse_connections=False)


def advice(error: Exception) -> str:
    """What to do about an error of Redis."""
    text = f"{type(error).__name__}: {error}"
    return next((_ADVICE[sign] for sign in _ADVICE if sign in text), _OTHERWISE)
