"""A point in time, in the ways in which servers write it."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from tokenadapter.late import late

if TYPE_CHECKING:
    import datetime
    from email import utils as email_utils
else:
    datetime = late("datetime")
    email_utils = late("email.utils")

__all__ = ["moment"]

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


def _date(text: str) -> float | None:
    for parse in (datetime.datetime.fromisoformat, email_utils.parsedate_to_datetime):
        try:
            date = parse(text)
            return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):  # the latter of a year or an offset beyond all dates
            continue
    return None
