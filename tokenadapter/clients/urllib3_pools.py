"""The client for bare urllib3: pools and pool managers that sign requests.

A pool sends one hop of a request, below the redirects of a pool manager, so each hop is compared
with the prefix again.  :mod:`tokenadapter.clients.urllib3_hop` processes the hops.  This module
adapts pools, and the managers that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.poolmanager import PoolKey

from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.clients.signers import Signer, adapter_settings, change_lock, split_settings
from tokenadapter.clients.urllib3_hop import origin_of, with_token
from tokenadapter.spelling import check_names, kind_of

if TYPE_CHECKING:
    import os

    from tokenadapter.core.keeper import TokenKeeper
    from tokenadapter.protocols import Grant, TokenSource, TokenStore

__all__ = ["TokenPoolManager", "fit"]

# Attributes that are added to objects of urllib3 and to their classes.
_SIGNERS = "_tokenadapter_signers"
_PLAIN = "_tokenadapter_plain"


class TokenPoolManager(PoolManager):
    """A :class:`urllib3.PoolManager` that signs requests under one URL prefix.

    ::

        http = TokenPoolManager("https://api.example.com/", source, store=store)
        http.request("GET", "https://api.example.com/invoices")

    It raises the errors of a :class:`~tokenadapter.TokenAdapter`, each also a
    :class:`urllib3.exceptions.HTTPError`.  Pools that lead to the host and port of *prefix* present
    the client certificate of *source*, if it has one and the settings have neither ``cert_file``
    nor ``ssl_context`` (RFC 8705 section 3).

    :param prefix: see :class:`~tokenadapter.TokenAdapter`, as for *source* and *store*.
    :param settings: the other settings of a :class:`~tokenadapter.TokenAdapter`, and those of a
        :class:`urllib3.PoolManager`: ``retries``, ``timeout``, ``maxsize``, ``ca_certs``, ...
    :raises UnsafeTarget: if a token must not be sent to *prefix*.
    :ivar prefix: the base URL under which requests are signed, as urllib3 spells URLs.
    :ivar keeper: the :class:`~tokenadapter.TokenKeeper` that keeps its token.
    """

    def __init__(
        self,
        prefix: str,
        source: Grant | TokenSource | TokenKeeper,
        *,
        store: TokenStore | str | os.PathLike[str] | None = None,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        ours, others = split_settings(settings)
        # urllib3 would reject a wrong name only at the first request.
        of_pools = {field.removeprefix("key_") for field in PoolKey._fields}
        check_names(type(self).__name__, others, of_pools | adapter_settings())
        adapter = TokenAdapter(prefix, source, store=store, **ours)
        self.prefix: str = adapter.prefix
        self.keeper: TokenKeeper = adapter.keeper
        super().__init__(num_pools, headers, **others)
        self._adapter = adapter
        _add(self, Signer(adapter))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} of {self.keeper.store!r}>"

    def _new_pool(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool = _fitted_pool(self, super()._new_pool(*args, **kwargs))
        _set_certificate(pool, self._adapter)
        return pool


def _set_certificate(pool: HTTPConnectionPool, adapter: TokenAdapter) -> None:
    """Have *pool* present the client certificate of the token source, if it leads to the API and
    its settings do not say what to present."""
    cert = adapter.rules.cert
    if (
        cert is not None
        and isinstance(pool, HTTPSConnectionPool)
        and adapter.rules.prefix.has_same_origin(origin_of(pool))
        and pool.cert_file is None
        and pool.conn_kw.get("ssl_context") is None
    ):
        pool.cert_file, pool.key_file = cert if isinstance(cert, tuple) else (cert, None)


def fit(target: object, adapter: TokenAdapter) -> Callable[[], None]:
    """Make a pool manager or a pool sign with *adapter*, and return a function that undoes this.

    :raises TypeError: if *target* is neither.
    """
    if not isinstance(target, (PoolManager, HTTPConnectionPool)):
        raise TypeError(
            "retrofit() takes a requests.Session, or of urllib3 a PoolManager or a connection "
            f"pool, not {kind_of(target)}"
        )
    signer = Signer(adapter)
    with change_lock():
        _add(target, signer)
        # New pools are adapted from now on; adapt the existing ones.
        for pool in _pools(target):
            if signer not in _signers(pool):
                _add(pool, signer)
    return partial(_undo, ref(target), signer)


def _undo(target: ref[PoolManager | HTTPConnectionPool], signer: Signer) -> None:
    signer.is_off = True  # also for pools that the manager has dropped
    found = target()
    if found is not None:
        with change_lock():
            for fitted in (found, *_pools(found)):
                _remove(fitted, signer)


# --- adapting an object by changing its class -------------------------------------------------


def _pools(target: PoolManager | HTTPConnectionPool) -> list[HTTPConnectionPool]:
    """The current pools of a manager."""
    if not isinstance(target, PoolManager):
        return []
    with target.pools.lock:
        found = [target.pools.get(key) for key in target.pools.keys()]  # noqa: SIM118
    return [pool for pool in found if pool is not None]


def _add(target: PoolManager | HTTPConnectionPool, signer: Signer) -> None:
    vars(target)[_SIGNERS] = (*_signers(target), signer)
    kind: Any = type(target)
    if not isinstance(target, TokenPoolManager) and not hasattr(kind, _PLAIN):
        target.__class__ = _fitted_class(kind)


def _remove(target: PoolManager | HTTPConnectionPool, signer: Signer) -> None:
    left = tuple(one for one in _signers(target) if one is not signer)
    vars(target)[_SIGNERS] = left
    plain = getattr(type(target), _PLAIN, None)
    if plain is not None and not left:
        target.__class__ = plain


def _signers(target: PoolManager | HTTPConnectionPool) -> tuple[Signer, ...]:
    found: tuple[Signer, ...] = vars(target).get(_SIGNERS, ())
    return found


@cache
def _fitted_class(kind: Any) -> Any:
    """A subclass of *kind*, for existing objects.

    It calls methods of *kind* by name, not by ``super()``: an object may get its old class back
    while one of its calls is in progress.
    """
    methods: dict[str, Any] = {_PLAIN: kind}
    if issubclass(kind, PoolManager):

        def _new_pool(self: Any, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
            return _fitted_pool(self, kind._new_pool(self, *args, **kwargs))

        methods["_new_pool"] = _new_pool
    else:

        def urlopen(self: Any, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
            return with_token(partial(kind.urlopen, self), self, _signers(self), *args, **kwargs)

        methods["urlopen"] = urlopen
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


def _fitted_pool(manager: PoolManager, pool: HTTPConnectionPool) -> HTTPConnectionPool:
    for signer in _signers(manager):
        _add(pool, signer)
    return pool
