"""Several token adapters on one session, pool or process, and which of them signs a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from threading import Lock, get_ident
from typing import Any

from requests import PreparedRequest

from tokenadapter.clients import notices
from tokenadapter.clients.prefix import OwnUrls
from tokenadapter.clients.requests import TokenAdapter
from tokenadapter.clients.rules import Rules
from tokenadapter.values import parameters

__all__ = [
    "Signer",
    "adapter_settings",
    "change_lock",
    "choose",
    "log_near_miss",
    "log_unsigned",
    "split_settings",
]


class Signer:
    """One installation of a token adapter.  An adapter that is installed twice has two signers.

    :ivar is_off: whether the adapter was removed.  Objects that still refer to the signer ignore
        it.
    """

    __slots__ = ("adapter", "is_off", "own_urls")

    def __init__(self, adapter: TokenAdapter) -> None:
        self.adapter: TokenAdapter = adapter
        self.is_off: bool = False
        # Including URLs outside its prefix, which must not get the token of another adapter.
        self.own_urls: OwnUrls = OwnUrls(adapter.keeper.grant)


def choose(signers: Iterable[Signer], url: str) -> TokenAdapter | None:
    """The adapter that signs a request to *url*: the one with the longest prefix that covers the
    URL, and among equal prefixes the last.

    A token request is not signed: a request to a URL of any of the token sources, or one that a
    token function makes.
    """
    chosen: TokenAdapter | None = None
    for signer in signers:
        if signer.is_off:
            continue
        adapter = signer.adapter
        if url in signer.own_urls:
            return None
        if adapter.covers(url):
            if _is_asked(adapter.rules):
                return None
            if chosen is None or len(adapter.prefix) >= len(chosen.prefix):
                chosen = adapter
    return chosen


def log_near_miss(signers: Iterable[Signer], url: str) -> None:
    """Log once if an unsigned request misses a prefix only by the spelling of its host."""
    all_rules = [signer.adapter.rules for signer in signers if not signer.is_off]
    near = [rules for rules in all_rules if url.lower().startswith(rules.prefix.near_misses)]
    if near and not any(
        rules.prefix.has_same_origin(url) or _is_asked(rules) for rules in all_rules
    ):
        notices.log_near_miss(_closest(near, url), url)


def log_unsigned(signers: Iterable[Signer], request: PreparedRequest, response: Any) -> None:
    """Log once if an unsigned request was refused, and only its path is outside a prefix.

    :param response: the response, with the status 401.
    """
    url = request.url or ""
    near = [
        signer.adapter.rules
        for signer in signers
        if not signer.is_off and signer.adapter.rules.prefix.has_same_origin(url)
    ]
    if near and not any(
        url in signer.own_urls or signer.adapter.covers(url) or _is_asked(signer.adapter.rules)
        for signer in signers
    ):
        notices.log_unsigned(_closest(near, url), request, response)


def _closest(near: Iterable[Rules], url: str) -> Rules:
    """The rules whose prefix has the path most like that of *url*."""

    def likeness(rules: Rules) -> int:
        paths = [text.split("/", 3)[-1] for text in (f"{rules.prefix.url}/", url)]
        return len(os.path.commonprefix(paths))  # noqa: RUF071 - by character, as of a typo

    return max(near, key=likeness)


def _is_asked(rules: Rules) -> bool:
    """Whether this thread is in the token function of a client with *rules*."""
    return getattr(rules.keeper.grant, "asked_by", None) == get_ident()


def change_lock() -> Lock:
    """The lock for changes of the signers.  Requests read them once and need no lock."""
    return _Shared.lock


def adapter_settings() -> set[str]:
    """The names of a token adapter's settings, without those of the transport."""
    return (parameters(Rules) or set()) - {"prefix", "source"}


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split *settings* into those of a token adapter and those of the transport."""
    known = adapter_settings()
    ours = {name: value for name, value in settings.items() if name in known}
    return ours, {name: settings[name] for name in settings.keys() - known}


def _after_fork() -> None:
    _Shared.lock = Lock()  # the thread that held the old one is not in this process


class _Shared:
    lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
