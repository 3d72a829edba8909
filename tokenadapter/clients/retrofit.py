"""One line for code that already has a session: sign its requests under a prefix.

The session keeps all that it has: its own adapters still send the requests, and undoing a retrofit
restores everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary, ref

from requests import Session
from requests.adapters import BaseAdapter
from requests.exceptions import InvalidSchema

from tokenadapter.clients.mounts import plain, watched
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.clients.signers import change_lock, split_settings
from tokenadapter.late_imports import late
from tokenadapter.spelling import check_names
from tokenadapter.values import parameters

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool, PoolManager

    from tokenadapter.clients import urllib3_pools
    from tokenadapter.core.keeper import TokenKeeper
    from tokenadapter.protocols import Grant, TokenSource
else:
    urllib3_pools = late("tokenadapter.clients.urllib3_pools")

__all__ = ["Retrofit", "retrofit"]


def retrofit(
    target: Session | PoolManager | HTTPConnectionPool,
    prefix: str,
    source: Grant | TokenSource | TokenKeeper,
    **settings: Any,
) -> Retrofit:
    """Make an existing session or pool sign its requests under *prefix*.

    ::

        retrofit(client.session, "https://api.example.com/", source, store=store)

    :param target: a :class:`requests.Session`, or of urllib3 a :class:`~urllib3.PoolManager` or a
        connection pool.  It may be in use by other threads.
    :param settings: the settings of :class:`~tokenadapter.TokenAdapter`, without those of the
        transport: *target* still sends with its own retries, pools and TLS settings.
    :returns: an object that undoes the retrofit; as a context manager, at the end of the block.
    :raises TypeError: if *target* is not supported, or a setting is unknown.
    :raises UnsafeTarget: if a token must not go to *prefix*.
    """
    ours, others = split_settings(settings)
    check_names("retrofit", others, parameters(TokenAdapter) or others)
    if others:
        raise TypeError(
            f"retrofit() does not take {', '.join(sorted(others))}: the session or pool sends the "
            "requests with its own settings"
        )
    adapter = TokenAdapter(prefix, source, **ours)
    if isinstance(target, Session):
        return Retrofit(adapter, _Mounts(target, adapter).undo)
    return Retrofit(adapter, urllib3_pools.fit(target, adapter))


class Retrofit:
    """The result of :func:`~tokenadapter.retrofit`, which can be undone.

    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps the token.
    """

    def __init__(self, adapter: TokenAdapter, undo: Callable[[], object]) -> None:
        self.keeper: TokenKeeper = adapter.keeper
        self._prefix = adapter.prefix
        self._undo: Callable[[], object] | None = undo

    def __repr__(self) -> str:
        return f"<Retrofit {self._prefix} of {self.keeper.store!r}>"

    def undo(self) -> None:
        """Restore the previous state.

        Several retrofits of one session or pool can be undone in any order.  A second call does
        nothing.  Requests in progress are not affected.
        """
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


class _Mounts:
    """An adapter mounted over the session's adapters for its prefix and for parts of it."""

    def __init__(self, session: Session, adapter: TokenAdapter) -> None:
        self._session = ref(session)
        url = f"{adapter.prefix}/"
        with change_lock():
            before = plain(session.adapters)
            adapter.around(_transport(session, url)).mount(session)
            self._mine: dict[str, BaseAdapter] = {}
            now = plain(session.adapters)
            for key, mounted in now.items():
                if before.get(key) is not mounted:
                    self._mine[key] = mounted
                elif adapter.covers(key) and not isinstance(mounted, TokenAdapter):
                    self._mine[key] = adapter.around(mounted)
            self._before = {key: before[key] for key in self._mine if key in before}
            session.adapters = watched({**now, **self._mine})
            _LAYERS.setdefault(session, []).append(self)
        found = session.get_adapter(url=url)
        if not (isinstance(found, TokenAdapter) and found.covers(url)):
            self.undo()
            raise TypeError(
                f"{type(session).__name__} ignores mounted adapters: pass it the adapter in the "
                "way that it supports, or use tokenadapter.installed()"
            )

    def undo(self) -> None:
        session = self._session()
        if session is None:
            return
        with change_lock():
            layers = _LAYERS[session]
            layers.remove(self)
            adapters = plain(session.adapters)
            for key, mounted in self._mine.items():
                over = next((one for one in layers if one._before.get(key) is mounted), None)
                if over is not None:
                    _put_back(over._before, key, self._before)
                elif adapters.get(key) is mounted:
                    _put_back(adapters, key, self._before)
            session.adapters = watched(adapters)


def _put_back(
    adapters: dict[str, BaseAdapter], key: str, before: Mapping[str, BaseAdapter]
) -> None:
    if key in before:
        adapters[key] = before[key]
    else:
        del adapters[key]


def _transport(session: Session, url: str) -> BaseAdapter:
    """The adapter with which a session sends to *url*, apart from token adapters."""
    for key, adapter in plain(session.adapters).items():
        is_ours = isinstance(adapter, TokenAdapter) and adapter.covers(url)
        if url.lower().startswith(key.lower()) and not is_ours:
            return adapter
    raise InvalidSchema(f"No connection adapters were found for {url!r}")


_LAYERS: WeakKeyDictionary[Session, list[_Mounts]] = WeakKeyDictionary()
