"""What came back, without the request: the request contains secrets, and is dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import datetime
    from email import utils as email_utils
    from http.cookiejar import CookieJar
else:
    datetime = late("datetime")
    email_utils = late("email.utils")

__all__ = ["NOT_NOW", "NoReply", "Reply", "moment", "retry_after"]

NOT_NOW = frozenset({408, 425, 429})
"""Request Timeout, Too Early, Too Many Requests: the server did not process the request."""

# Not Found, Method Not Allowed, Gone.
_NOT_HERE = frozenset({404, 405, 410})
# As seconds this is the year 5138, as milliseconds 1973.
_MILLISECONDS_FROM = 1e11


class NoReply(NamedTuple):
    """There was no answer, or none that could be read to its end."""

    why: str
    sent: bool
    """Whether the request may have been sent."""
    lasting: bool = False
    """Whether retrying is useless until the configuration changes."""
    local: bool = False
    """Whether it failed here, before a server could answer."""
    advice: str = "Try again later."
    """What to do."""
    cause: BaseException | None = None
    """What code of the user raised, and nothing was sent then."""


class Reply:
    """An answer, read to its end.

    :param headers: by names whose case does not matter.
    :ivar content: the body as a JSON value, or as the parameters of a form (RFC 6749 says JSON,
        but some servers answer in the format of the request); ``None`` if it is neither.
    """

    __slots__ = ("body", "content", "cookies", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], cookies: CookieJar, body: bytes
    ) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.cookies: CookieJar = cookies
        self.body: bytes = body
        self.content: Any = self._read()

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status in NOT_NOW

    @property
    def is_not_here(self) -> bool:
        """Whether there is nothing at the URL that takes such a request."""
        return self.status in _NOT_HERE

    @property
    def fields(self) -> Mapping[str, Any]:
        """The members of the JSON object or form; empty if the body is neither."""
        return self.content if isinstance(self.content, dict) else {}

    @property
    def error(self) -> str | None:
        """The ``error`` code (RFC 6749 section 5.2)."""
        return self._text("error")

    @property
    def explanation(self) -> str | None:
        """The server's message for people: ``error_description``, or the names that APIs beyond
        OAuth use."""
        return self._text("error_description") or self._text("message") or self._text("detail")

    @property
    def error_uri(self) -> str | None:
        """The address of a page about the error."""
        return self._text("error_uri")

    @property
    def date(self) -> float | None:
        """The server's time (POSIX timestamp in seconds), if the answer has a date."""
        return moment(self.headers.get("Date"))

    @property
    def shape(self) -> str:
        """What the body is, in words."""
        if not self.body.strip():
            return "an empty answer"
        if self.content is not None:
            return "JSON"
        if "html" in self._media_type or self.body.lstrip().startswith(b"<"):
            return "HTML"
        return f"{self._media_type or 'an answer of no declared type'}, not JSON"

    def __repr__(self) -> str:
        return f"<Reply {self.status}>"

    @property
    def _media_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def _text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return value if isinstance(value, str) and value else None

    def _read(self) -> Any:
        if self._media_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(self.body.decode("utf-8", "replace")))
        try:
            text = self.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            # All that matters is ASCII; a description in another encoding does no harm.
            text = self.body.decode("latin-1")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None


def moment(value: object) -> float | None:
    """A POSIX timestamp in seconds, or ``None`` if *value* is no point in time.

    :param value: a number or numeric text, of seconds or milliseconds; ISO 8601, in UTC if it
        names no zone; or an HTTP date (RFC 9110 section 5.6.7).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    except ValueError:
        parsers = datetime.datetime.fromisoformat, email_utils.parsedate_to_datetime
        return _date(str(value), *parsers)
    if not isfinite(seconds):
        return None
    return seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds


def retry_after(header: str | None, now: float) -> float | None:
    """The wait that a ``Retry-After`` header asks for (RFC 9110 section 10.2.3), in seconds.

    :param header: a number of seconds or an HTTP date.
    :param now: the time that a date is counted from (POSIX timestamp in seconds).
    :returns: 0 or more, or ``None`` if the header is absent or means nothing.
    """
    header = (header or "").strip()
    if header.isascii() and header.isdigit():
        # int() would take long for absurd numbers of digits.
        return float(header[:12])
    end = _date(header, email_utils.parsedate_to_datetime)
    return None if end is None else max(end - now, 0.0)


def _date(text: str, *parsers: Callable[[str], datetime.datetime]) -> float | None:
    for parse in parsers:
        try:
            date = parse(text)
            # Without a zone, an HTTP date is GMT, not local time (RFC 9110 section 5.6.7).
            return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):  # the latter: a year or an offset beyond all dates
            continue
    return None
