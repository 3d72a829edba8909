"""Points in time and waits, in the ways in which servers write them."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import datetime
    from email import utils as email_utils
else:
    datetime = late("datetime")
    email_utils = late("email.utils")

__all__ = ["moment", "retry_after"]

# As seconds this is the year 5138, as milliseconds 1973.
_MILLISECONDS_FROM = 1e11


def moment(value: object) -> float | None:
    """A POSIX timestamp in seconds, or ``None`` if *value* is no point in time.

    :param value: a number or numeric text, of seconds or milliseconds; ISO 8601, in UTC if it
        does not say otherwise; or an HTTP date (RFC 9110 section 5.6.7).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    except ValueError:
        return _date(str(value))
    if not isfinite(seconds):
        return None
    return seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds


def retry_after(header: str | None, now: float) -> float | None:
    """What a ``Retry-After`` header asks for (RFC 9110 section 10.2.3), in seconds.

    :param header: a number of seconds or an HTTP date.
    :param now: the time that a date is counted from (POSIX timestamp in seconds).
    :returns: 0 or more, or ``None`` if the header is absent or means nothing.
    """
    if not header:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        # No longer than that: int() takes its time for absurd numbers of digits.
        return float(header[:12])
    try:
        date = email_utils.parsedate_to_datetime(header)
        # Without a zone it is meant as GMT, not as local time (RFC 9110 section 5.6.7).
        since = (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(since - now, 0.0)


def _date(text: str) -> float | None:
    for parse in (datetime.datetime.fromisoformat, email_utils.parsedate_to_datetime):
        try:
            date = parse(text)
            return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):  # the latter of a year or an offset beyond all dates
            continue
    return None
