"""Token adapters that stand over the same way out, and which of them signs a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from threading import Lock, get_ident
from typing import Any

from tokenadapter.clients.prefix import own_urls, resource
from tokenadapter.clients.requests import TokenAdapter

__all__ = ["Signer", "changing", "choose", "own_settings", "sorted_out", "tell_near_miss"]


class Signer:
    """A token adapter that was put somewhere; of one that was put there twice, each has its own.

    :ivar is_off: whether it was taken off again; what still has it makes no use of it.
    """

    __slots__ = ("adapter", "is_off", "own_urls")

    def __init__(self, adapter: TokenAdapter) -> None:
        self.adapter: TokenAdapter = adapter
        self.is_off: bool = False
        # Those beyond its prefix too: they must not get the token of a neighbour.
        self.own_urls: frozenset[str] = own_urls(adapter.keeper.grant.urls, lambda url: True)


def choose(signers: Iterable[Signer], url: str) -> TokenAdapter | None:
    """Who signs a request to *url*: of those that cover it, the one with the longest prefix, and
    of equals the last.

    Nobody does if it is a token request: one to a URL of any of their token sources, or, where a
    plain function is the source, one that this function makes.
    """
    chosen: TokenAdapter | None = None
    for signer in signers:
        if signer.is_off:
            continue
        adapter = signer.adapter
        if signer.own_urls and resource(url) in signer.own_urls:
            return None
        if adapter.covers(url):
            if _is_asked(adapter):
                return None
            if chosen is None or len(adapter.prefix) >= len(chosen.prefix):
                chosen = adapter
    return chosen


def tell_near_miss(signers: Iterable[Signer], url: str) -> None:
    """Say once if a request, which nobody signs, misses a prefix by the spelling of its host."""
    adapters = [signer.adapter for signer in signers if not signer.is_off]
    near = [adapter for adapter in adapters if url.lower().startswith(adapter.near)]
    if near and not any(adapter.is_at_home(url) or _is_asked(adapter) for adapter in adapters):
        near[0].tell_near_miss(url)


def _is_asked(adapter: TokenAdapter) -> bool:
    """Whether this thread is in the plain function that is the source of *adapter*."""
    return getattr(adapter.keeper.grant, "asked_by", None) == get_ident()


def changing() -> Lock:
    """The lock for whoever changes who signs where.  Requests need none: they look once."""
    return _Shared.lock


def own_settings() -> set[str]:
    """The names of a token adapter's settings, but for those that are about the sending."""
    return (TokenAdapter.__init__.__kwdefaults__ or {}).keys() - {"inner"}


def sorted_out(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those that are settings of a token adapter, and the others: they are about the sending."""
    known = own_settings()
    ours = {name: value for name, value in settings.items() if name in known}
    return ours, {name: settings[name] for name in settings.keys() - known}


def _after_fork() -> None:
    _Shared.lock = Lock()  # whoever held it is not here


class _Shared:
    lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
