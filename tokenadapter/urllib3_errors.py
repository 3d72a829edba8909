"""Our errors for callers of bare urllib3: they are errors of urllib3 too, and else the same."""

from __future__ import annotations

from functools import cache
from typing import Any

from urllib3.exceptions import HTTPError

from tokenadapter.errors import TokenError

__all__ = ["for_urllib3"]


def for_urllib3(error: TokenError) -> TokenError:
    """*error* again, as a :class:`urllib3.exceptions.HTTPError` too."""
    rebuild, (kind, *state) = TokenError.__reduce__(error)
    twin: TokenError = rebuild(_of_both(kind), *state)
    return twin.with_traceback(error.__traceback__)


@cache
def _of_both(kind: Any) -> Any:
    if issubclass(kind, HTTPError):
        return kind

    def __reduce__(self: TokenError) -> tuple[Any, ...]:  # noqa: N807
        rebuild, (_, *state) = TokenError.__reduce__(self)
        return for_urllib3, (rebuild(kind, *state),)

    # To people it has the same name, and pickle finds it by the way that it was made.
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": __reduce__}
    return type(kind.__name__, (kind, HTTPError), names)
