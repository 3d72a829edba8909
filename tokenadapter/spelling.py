"""One URL has several spellings: what they have in common, and which of them goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from requests.models import PreparedRequest

if TYPE_CHECKING:
    from requests.adapters import BaseAdapter

__all__ = ["longest_first", "own_urls", "resource", "without_query"]


def resource(url: str) -> str:
    """The URL without query, fragment and default port."""
    scheme, mark, rest = url.partition("#")[0].partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    host = host.removesuffix(":443" if scheme == "https" else ":80")
    return f"{scheme}{mark}{host}{slash}{path}"


def without_query(request: PreparedRequest) -> str:
    """The URL of a request as it may be told to people."""
    return (request.url or "").partition("?")[0]


def own_urls(urls: Sequence[str], covers: Callable[[str], bool]) -> frozenset[str]:
    """Those of a token source's own URLs that lie under a prefix, as :func:`resource` has them."""
    own = set()
    for url in urls:
        prepared = PreparedRequest()
        prepared.prepare_url(url, None)
        if covers(prepared.url or ""):
            own.add(resource(prepared.url or ""))
    return frozenset(own)


def longest_first(
    mine: Sequence[str], adapters: Mapping[str, BaseAdapter]
) -> OrderedDict[str, BaseAdapter]:
    """Adapters in the order in which a session has to look at them: it takes the first that fits.

    All spellings of a prefix count as long as the usual one, and of equals *mine* come first, in
    their order: the usual spelling is found without a look at the others.
    """
    rank = {key: _usual_length(key) for key in adapters}
    keys = sorted([*mine, *adapters], key=rank.__getitem__, reverse=True)
    return OrderedDict((key, adapters[key]) for key in keys)


def _usual_length(mounted: str) -> int:
    usual = resource(mounted)
    return len(usual) + (not usual.endswith("/"))
