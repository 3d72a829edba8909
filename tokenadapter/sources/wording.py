"""What a server or a library says, made fit for our messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus

__all__ = ["plain", "query_secrets"]


def plain(text: str, secrets: Iterable[str], limit: int = 200) -> str:
    """*text* on one line of at most *limit* characters, with stars for what must not be told.

    That is each of *secrets*, as it is and percent-encoded, and the user and password of a URL.
    """
    text = _printable(text)
    spellings = {
        _printable(spelling)
        for secret in secrets
        for spelling in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    }
    # The longest first: one secret may be a part of another.
    for spelling in sorted(spellings - {""}, key=len, reverse=True):
        text = text.replace(spelling, "***")
    # A password that was not percent-encoded may hold a slash.
    text = re.sub(r"//\S*@", "//***@", text)
    # Cut at last: half a secret could not be found any more.
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def query_secrets(query: str) -> set[str]:
    """What may be secret in a query or form: all of it, and each value."""
    return {query, *(value for _, value in parse_qsl(query))}


def _printable(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
