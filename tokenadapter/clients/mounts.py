"""The adapters of a session: their order, and the lookouts among them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import InvalidSchema

from tokenadapter.clients.prefix import resource
from tokenadapter.clients.rules import Rules
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from requests.models import PreparedRequest, Response

    from tokenadapter.clients import notices
else:
    notices = late("tokenadapter.clients.notices")

__all__ = ["Lookout", "longest_first", "plain", "watched"]

_SCHEMES = ("https://", "http://")


class Lookout(BaseAdapter):
    """Mounted for the host of a prefix and its other spellings, to log once that a request missed
    the prefix.

    The session's own adapter for the URL sends the request.
    """

    def __init__(self, key: str, rules: Rules, adapters: _Watched) -> None:
        super().__init__()
        self._key = key
        self._rules = rules
        # A weak reference, so that adapters that a session drops are freed at once.
        self._adapters = ref(adapters)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        url = request.url or ""
        # The program may intentionally have another adapter that signs there.
        others = _rules_among(plain(self._adapters() or {}).values())
        if not any(rules.prefix.has_same_origin(url) for rules in others):
            notices.log_near_miss(self._rules, url)
        response = self.behind(url).send(request, *args, **kwargs)
        if response.status_code == 401:
            notices.log_unsigned(self._rules, request, response)
        return response

    def behind(self, url: str) -> BaseAdapter:
        """The adapter with which the session would send a request to *url*."""
        adapters = self._adapters()
        if adapters is None:
            return HTTPAdapter()  # it was copied into another mapping
        for key, adapter in plain(adapters).items():
            if url.lower().startswith(key.lower()):
                return adapter
        raise InvalidSchema(f"No connection adapters were found for {url!r}")

    def close(self) -> None:
        """Do nothing: the session closes its adapters itself."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._key} of {self._rules.prefix!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while a copy is being made
            raise AttributeError(name)
        return getattr(self.behind(self._key), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lookout) and self._is_for() == other._is_for()

    def __hash__(self) -> int:
        return hash(self._is_for())

    def _is_for(self) -> tuple[str, int]:
        return self._key, id(self._rules)


class _Watched(OrderedDict[str, BaseAdapter]):
    """Adapters with lookouts among them.  Each copy gets new lookouts."""

    def __reduce__(self) -> tuple[Any, ...]:
        return watched, (dict(plain(self)),)


def plain(adapters: Mapping[str, BaseAdapter]) -> OrderedDict[str, BaseAdapter]:
    """Adapters without the lookouts among them."""
    return OrderedDict((k, found) for k, found in adapters.items() if type(found) is not Lookout)


def watched(adapters: Mapping[str, BaseAdapter]) -> OrderedDict[str, BaseAdapter]:
    """Adapters, with lookouts for the prefixes of the signing ones.

    The lookouts come after all other adapters but those for a whole scheme, so that requests that
    are signed, or have an adapter of their own, are not slowed down.
    """
    others = plain(adapters)
    near = {
        key: rules for rules in _rules_among(others.values()) for key in rules.prefix.near_misses
    }
    if not near:
        return others
    keys = list(others)
    behind = min((keys.index(key) for key in _SCHEMES if key in others), default=len(keys))
    found = _Watched((key, others[key]) for key in keys[:behind])
    found.update((key, Lookout(key, near[key], found)) for key in near if key not in others)
    found.update((key, others[key]) for key in keys[behind:])
    return found


def _rules_among(adapters: Iterable[BaseAdapter]) -> list[Rules]:
    """The rules of the token adapters among *adapters*."""
    found = (getattr(adapter, "rules", None) for adapter in adapters)
    return [rules for rules in found if isinstance(rules, Rules)]


def longest_first(
    mine: Sequence[str], adapters: Mapping[str, BaseAdapter]
) -> OrderedDict[str, BaseAdapter]:
    """Adapters in the order in which a session must try them, since it takes the first match.

    All spellings of a prefix count as long as the usual one.  Among equals, *mine* come first, in
    their order, so that the usual spelling is found first.
    """
    rank = {key: _usual_length(key) for key in adapters}
    keys = sorted([*mine, *adapters], key=rank.__getitem__, reverse=True)
    return OrderedDict((key, adapters[key]) for key in keys)


def _usual_length(mounted: str) -> int:
    usual = resource(mounted)
    return len(usual) + (not usual.endswith("/"))
