"""Token adapters for every session of the process, including existing sessions of libraries.

While an adapter is installed, two methods of :class:`requests.Session` are replaced.  Sessions and
their adapters stay unchanged.  A session looks up its own adapter as usual, and the installed
adapter that covers the URL sends the request through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from threading import local
from typing import Any
from weakref import WeakKeyDictionary

from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter

from tokenadapter.clients.mounts import Lookout
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.clients.signers import Signer, change_lock, choose, log_near_miss, log_unsigned
from tokenadapter.spelling import kind_of

__all__ = ["install", "installed", "uninstall"]


def install(*adapters: TokenAdapter) -> None:
    """Make every :mod:`requests` session of this process sign requests under the given prefixes.

    This includes existing sessions, those of libraries, and module-level calls such as
    ``requests.get``.  Each session still sends with its own adapter, with its retries, pools and
    TLS settings.  A :class:`~tokenadapter.TokenAdapter` that is mounted on the session itself takes
    precedence over installed adapters.  Among installed adapters, the one with the longest prefix
    signs, and among equal prefixes the last one.

    Token requests are never signed: requests to a URL of a token source, and requests that a token
    function makes while it obtains a token.

    :raises TypeError: if an argument is not a :class:`~tokenadapter.TokenAdapter`, or has an
        ``inner`` adapter.
    """
    _installation.add(_signers(adapters), stay=True)


def uninstall(*adapters: TokenAdapter) -> None:
    """Undo :func:`~tokenadapter.install`, once for each adapter, in any order.

    Without arguments, uninstall all adapters.  Requests in progress are not affected.

    :raises ValueError: if an adapter is not installed.
    """
    _installation.remove(_installation.standing(adapters))


@contextmanager
def installed(*adapters: TokenAdapter) -> Iterator[None]:
    """:func:`~tokenadapter.install` for the duration of a ``with`` block, in all threads.

    ::

        with tokenadapter.installed(TokenAdapter("https://api.example.com/", source)):
            legacy.main()
    """
    signers = _signers(adapters)
    _installation.add(signers)
    try:
        yield
    finally:
        _installation.remove(signers)


class _Method:
    """One method of every session, which is replaced and restored.

    Tracers and mocks replace such methods too.  If another replacement wraps ours, ours stays below
    it without effect.  If another one restores an older method, ours is put in place again.
    """

    def __init__(self, name: str, replace: Callable[[Any], Any]) -> None:
        self._name = name
        self._replace = replace
        # For each of our replacements, the method that it replaced.
        self._replaced: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def put(self) -> None:
        current = getattr(Session, self._name)
        if current not in self._replaced:
            ours = wraps(current)(self._replace(current))
            self._replaced[ours] = current
            setattr(Session, self._name, ours)

    def take(self) -> None:
        current = getattr(Session, self._name)
        if current in self._replaced:
            setattr(Session, self._name, self._replaced[current])


class _Installation:
    """The installed adapters."""

    def __init__(self) -> None:
        # Every request reads this tuple without a lock, so it is replaced as a whole.
        self.signers: tuple[Signer, ...] = ()
        self._staying: tuple[Signer, ...] = ()
        self._methods = _Method("get_adapter", _get_adapter), _Method("send", _send)

    def add(self, signers: Sequence[Signer], *, stay: bool = False) -> None:
        with change_lock():
            self.signers += tuple(signers)
            if stay:
                self._staying += tuple(signers)
            for method in self._methods if self.signers else ():
                method.put()

    def remove(self, signers: Sequence[Signer]) -> None:
        with change_lock():
            self.signers = tuple(one for one in self.signers if one not in signers)
            self._staying = tuple(one for one in self._staying if one not in signers)
            for method in () if self.signers else self._methods:
                method.take()

    def standing(self, adapters: Sequence[TokenAdapter]) -> Sequence[Signer]:
        """The signers that :func:`install` added for these adapters, or all of them."""
        left = list(reversed(self._staying))
        if not adapters:
            return left
        found = []
        for adapter in adapters:
            signer = next((one for one in left if one.adapter is adapter), None)
            if signer is None:
                raise ValueError(f"{adapter!r} is not installed")
            left.remove(signer)
            found.append(signer)
        return found


class _WithOurLookup:
    """Wraps a session that has its own ``get_adapter``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_adapter(self, url: str) -> BaseAdapter:
        _looking_up.is_under_way = True  # it may call the base class method, which is ours
        try:
            found = self._session.get_adapter(url=url)
        finally:
            _looking_up.is_under_way = False
        return _fitted(found, url)


def _get_adapter(plain: Callable[..., BaseAdapter]) -> Callable[..., BaseAdapter]:
    def get_adapter(self: Session, url: str) -> BaseAdapter:
        found = plain(self, url=url)
        return found if getattr(_looking_up, "is_under_way", False) else _fitted(found, url)

    return get_adapter


def _send(plain: Callable[..., Response]) -> Callable[..., Response]:
    def send(self: Any, request: PreparedRequest, **kwargs: Any) -> Response:
        # A class may override get_adapter, and a mock may have left one on the object.
        looks_up = getattr(self.get_adapter, "__func__", None)
        if _installation.signers and looks_up is not Session.get_adapter:
            self = _WithOurLookup(self)
        response = plain(self, request, **kwargs)
        if getattr(response, "status_code", None) == 401:
            _log_unsigned(self, response)
        return response

    return send


def _log_unsigned(session: Any, response: Response) -> None:
    request: PreparedRequest | None = getattr(response, "request", None)
    if request is None or isinstance(session.get_adapter(url=request.url), TokenAdapter):
        return
    log_unsigned(_installation.signers, request, response)


def _fitted(found: BaseAdapter, url: str) -> BaseAdapter:
    """The adapter that sends a request to *url*, instead of the one that the session found."""
    if isinstance(found, TokenAdapter) and found.covers(url):
        return found
    adapter = choose(_installation.signers, url)
    if adapter is None:
        if not isinstance(found, TokenAdapter):
            log_near_miss(_installation.signers, url)
        return found
    return adapter.around(found.behind(url) if isinstance(found, Lookout) else found)


def _signers(adapters: Sequence[TokenAdapter]) -> tuple[Signer, ...]:
    for adapter in adapters:
        if not isinstance(adapter, TokenAdapter):
            raise TypeError(f"only a TokenAdapter can be installed, not {kind_of(adapter)}")
        if adapter.inner is not None:
            raise TypeError(
                f"{adapter!r} has an inner adapter: omit inner=, because each session sends with "
                "its own adapter"
            )
    return tuple(map(Signer, adapters))


_installation = _Installation()
_looking_up = local()
