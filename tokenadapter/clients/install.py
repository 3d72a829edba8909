"""Token adapters for every session of the process: also those that libraries made long ago.

Two methods of :class:`requests.Session` are replaced while anything is installed, and nothing else
is: no session, no adapter of one.  A session looks up its own adapter as ever; what it finds is
given to the one installed adapter that covers the URL, as the one that does the sending.
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

from tokenadapter.clients.prefix import Lookout
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.clients.signers import Signer, changing, choose, tell_near_miss

__all__ = ["install", "installed", "uninstall"]


def install(*adapters: TokenAdapter) -> None:
    """Let every :mod:`requests` session of this process sign its requests under their prefixes.

    Also those that exist already, those of libraries, and module-level calls such as
    ``requests.get``.  What a session would send a request with still does so: its adapter, with
    its retries, its pools and its TLS settings.  Only a :class:`~tokenadapter.TokenAdapter` that a
    session has of its own for a URL goes before those that are installed; of these, the one with
    the longest prefix signs, and of equals the last one.

    Token requests are left untouched: those to a URL of a token source, whoever makes them, and
    those that a plain function makes when it is asked for a token.

    :raises TypeError: if one is no adapter to install: it has an ``inner`` adapter or is none.
    """
    _installation.add(_signers(adapters), stay=True)


def uninstall(*adapters: TokenAdapter) -> None:
    """Take back what :func:`~tokenadapter.install` did, once for each adapter.

    Without arguments, all of it.  The order is of no matter; requests under way end as they began.

    :raises ValueError: if one is not installed.
    """
    _installation.remove(_installation.standing(adapters))


@contextmanager
def installed(*adapters: TokenAdapter) -> Iterator[None]:
    """:func:`~tokenadapter.install` for the length of a ``with`` block, for all threads.

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
    """One method of every session, and how it is replaced and put back.

    Others replace it too: tracers, mocks.  Where another has come over ours, ours stays below it
    and does nothing more; where another put back what was there before, ours is put anew.
    """

    def __init__(self, name: str, replace: Callable[[Any], Any]) -> None:
        self._name = name
        self._replace = replace
        # What each of ours has replaced.
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
    """What is installed now."""

    def __init__(self) -> None:
        # Read without a lock by every request, and replaced as a whole.
        self.signers: tuple[Signer, ...] = ()
        self._staying: tuple[Signer, ...] = ()
        self._methods = _Method("get_adapter", _get_adapter), _Method("send", _send)

    def add(self, signers: Sequence[Signer], *, stay: bool = False) -> None:
        with changing():
            self.signers += tuple(signers)
            if stay:
                self._staying += tuple(signers)
            for method in self._methods if self.signers else ():
                method.put()

    def remove(self, signers: Sequence[Signer]) -> None:
        with changing():
            self.signers = tuple(one for one in self.signers if one not in signers)
            self._staying = tuple(one for one in self._staying if one not in signers)
            for method in () if self.signers else self._methods:
                method.take()

    def standing(self, adapters: Sequence[TokenAdapter]) -> Sequence[Signer]:
        """What :func:`install` put there, of these adapters or of all."""
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
    """Stands for a session that looks up its adapters in a way of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_adapter(self, url: str) -> BaseAdapter:
        _looking_up.is_under_way = True  # it may call the method of its base class, which is ours
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
        # A class may override the method, and a mock may have left an old one on the object.
        looks_up = getattr(self.get_adapter, "__func__", None)
        if _installation.signers and looks_up is not Session.get_adapter:
            return plain(_WithOurLookup(self), request, **kwargs)
        return plain(self, request, **kwargs)

    return send


def _fitted(found: BaseAdapter, url: str) -> BaseAdapter:
    """What sends a request to *url* in place of the adapter that a session found for it."""
    if isinstance(found, TokenAdapter) and found.covers(url):
        return found
    adapter = choose(_installation.signers, url)
    if adapter is None:
        if not isinstance(found, TokenAdapter):
            tell_near_miss(_installation.signers, url)
        return found
    return adapter.around(found.behind(url) if isinstance(found, Lookout) else found)


def _signers(adapters: Sequence[TokenAdapter]) -> tuple[Signer, ...]:
    for adapter in adapters:
        if not isinstance(adapter, TokenAdapter):
            raise TypeError(f"only a TokenAdapter can be installed, not {adapter!r}")
        if adapter.inner is not None:
            raise TypeError(
                f"{adapter!r} has an inner adapter: omit inner=, because each session sends with "
                "its own adapter"
            )
    return tuple(map(Signer, adapters))


_installation = _Installation()
_looking_up = local()
