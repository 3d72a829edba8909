"""What an adapter is given: checked at once, and understood as requests would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from urllib3.util import Retry, Timeout

from tokenadapter.late import late

if TYPE_CHECKING:
    from tokenadapter import spelling
else:
    spelling = late("tokenadapter.spelling")

__all__ = ["check", "read_timeout", "twin", "without_401"]

T = TypeVar("T")

# What else than letters and digits stands in the name of a header (RFC 9110 section 5.6.2).
_IN_NAMES = str.maketrans("", "", "!#$%&'*+-.^_`|~")


def check(
    verdict: object,
    attach: object,
    inner: object,
    header: str,
    scheme: str,
    max_replays: int,
    replay_limit: int,
) -> None:
    """Say at once what would fail only when a token ends."""
    for name, value in (("verdict", verdict), ("attach", attach)):
        if value is not None and not callable(value):
            raise TypeError(f"{name} is a function, not {value!r}")
    if inner is not None and (isinstance(inner, type) or not callable(getattr(inner, "send", 0))):
        raise TypeError(f"inner is an adapter, not {spelling.kind_of(inner)}")
    for name, text in (("header", header), ("scheme", scheme)):
        if not isinstance(text, str):
            raise TypeError(f"{name} is a text, not {text!r}")
    if not header or not (header.isascii() and (header.translate(_IN_NAMES) or "x").isalnum()):
        raise ValueError(f"header cannot stand in a request: {header!r}")
    if not (scheme.isascii() and scheme.isprintable() and scheme == scheme.strip()):
        raise ValueError(f"scheme cannot stand in a request: {scheme!r}")
    for name, number in (("max_replays", max_replays), ("replay_limit", replay_limit)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} is a whole number, not {number!r}")
        if number < 0:
            raise ValueError(f"{name} cannot be less than 0, but is {number}")


def read_timeout(timeout: Any) -> float | None:
    """The read time-out, in seconds, of what requests takes for a time-out."""
    if isinstance(timeout, tuple):
        timeout = timeout[-1]
    elif isinstance(timeout, Timeout):
        timeout = timeout.total if timeout.total is not None else timeout.read_timeout
    return timeout if isinstance(timeout, (int, float)) else None


def without_401(retry: Retry) -> Retry:
    """A 401 is not for urllib3 to repeat: it would send the same dead token."""
    statuses = retry.status_forcelist
    if not statuses or 401 not in statuses:
        return retry
    return retry.new(status_forcelist=[status for status in statuses if status != 401])


def twin(adapter: T, **changes: Any) -> T:
    """*adapter* with some attributes changed; all others are shared, connection pools too.

    ``copy.copy`` would make new pools: that is how adapters of requests come out of a pickle.
    """
    other = object.__new__(type(adapter))
    vars(other).update(vars(adapter), **changes)
    return other
