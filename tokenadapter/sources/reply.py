"""What came back, apart from the request: that holds secrets, and is let go of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

__all__ = ["NoReply", "Reply"]


class NoReply(NamedTuple):
    """There was no answer, or none that could be read to its end."""

    why: str
    sent: bool
    """Whether the request may have been sent."""
    lasting: bool = False
    """Whether that does not change until somebody changes something."""
    local: bool = False
    """Whether it failed here, before any server was asked."""
    advice: str = "Try again later."
    """What to do where it may change."""


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
    def fields(self) -> Mapping[str, Any]:
        """The members of the body, where it has any."""
        return self.content if isinstance(self.content, dict) else {}

    @property
    def error(self) -> str | None:
        """The ``error`` code (RFC 6749 section 5.2)."""
        return self._text("error")

    @property
    def explanation(self) -> str | None:
        """What the server says for people to read: ``error_description``, or what APIs beyond
        OAuth call it."""
        return self._text("error_description") or self._text("message") or self._text("detail")

    @property
    def error_uri(self) -> str | None:
        """Where the server says more."""
        return self._text("error_uri")

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
            # What matters is ASCII; a description in another encoding does no harm.
            text = self.body.decode("latin-1")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
