"""Mask secrets in texts that a server or a library wrote, before they are shown or stored.

A server may echo what it was sent, and rarely just as it was sent: HTML-escaped in a page for
people, with ``\\u0026`` for ``&`` in a JSON text, percent-encoded in a URL, in hexadecimal or
base64 in a dump.  So the text is decoded in all these ways, and searched for each secret whatever
its case.  A text that contains a secret is withheld as a whole: stars would show how long the
secret is and where it begins, and an encoding that was overlooked would show the rest of it.

A secret that is short, or a plain word, occurs in texts that do not echo it: the secret ``are``
occurs in "Bearer".  Such a secret counts only where it is a whole word, and only that word is
starred.  A secret that is a usual word of refusals, such as ``wrong``, is not hidden at all: no
reader can tell that it was echoed, and a refusal without its words says nothing.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

__all__ = ["WITHHELD", "masked", "query_secrets", "reveals", "secrets_in"]

WITHHELD = "(withheld: it repeats a secret)"
"""What replaces a text that contains a secret."""

# A secret that has fewer characters than the first number, or only letters and fewer than the
# second, occurs by chance: it counts as a whole word only.
_SHORT = 8
_WORD = 16
# How often a text is decoded: one program may encode what another has encoded.
_ROUNDS = 4
# The longest encoding of a secret is so many times as long as the secret.
_LONGEST_ENCODING = 16

# The words in which RFC 6749 section 5.2 and servers word their refusals.
_WORDS_OF_REFUSALS = frozenset(
    re.findall(
        r"\w+",
        """
    a access account an and are authentication authorization bad basic bearer cannot client
    code credential credentials denied does error exist expired failed for found grant has id
    in incorrect invalid is key login mismatch missing must name no not of on or param
    parameter password refresh refused rejected request required revoked scope secret server
    supported the this to token type unauthorized unknown unsupported user username value was
    with wrong you your
        """,
    )
)

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrt])|(.))")


def masked(text: str, secrets: Iterable[str], limit: int = 200) -> str:
    """*text* on one line of at most *limit* characters; :data:`WITHHELD` if it contains a secret.

    Of a secret that is short or a plain word, only the word itself is hidden, and so are the user
    and the password in a URL.
    """
    text = _printable(text)
    secrets = {secret for secret in secrets if not _says_nothing(secret)}
    # A secret that begins in the part that is shown ends before this.
    text = text[: limit + _LONGEST_ENCODING * max(map(len, secrets), default=0) + 1]
    # The longest first: one secret may be part of another.
    for secret in sorted(filter(_is_found_by_chance, secrets), key=len, reverse=True):
        for spelling in {secret, quote(secret), quote_plus(secret)}:
            text = re.sub(_whole(spelling), "***", text, flags=re.IGNORECASE)
    if reveals(text, secrets):
        return WITHHELD
    # A password that was not percent-encoded may contain a slash.
    text = re.sub(r"//\S*@", "//***@", text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def reveals(text: str, secrets: Iterable[str]) -> bool:
    """Whether *text* contains one of *secrets*, as it is or encoded."""
    decoded = _decoded(text)
    # Not only decoded: the characters beside a secret may look like part of an encoding.
    readings = [text.casefold(), decoded]
    dense = [_dense(reading) for reading in readings]
    for secret in secrets:
        if _says_nothing(secret):
            continue
        needles = {secret.casefold(), *map(_decoded, _spellings(secret))}
        if _is_found_by_chance(secret):
            if any(re.search(_whole(one), text) for one in needles for text in readings):
                return True
        elif any(one in text for one in {*map(_dense, needles)} - {""} for text in dense):
            return True
    return False


def query_secrets(query: str) -> set[str]:
    """What may be secret in a query or form: the whole of it, and each value."""
    return {query, *(value for _, value in parse_qsl(query))}


def secrets_in(value: Any) -> Iterator[str]:
    """Each text and number in a JSON value, a form or headers: any of them may be a secret."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        yield from query_secrets(value)
        # In a header, the key behind the name of its scheme.
        yield value.rpartition(" ")[2]
    elif isinstance(value, Iterable):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from secrets_in(item)
    elif not isinstance(value, bool | None):
        yield str(value)


def _says_nothing(secret: str) -> bool:
    """Whether *secret* is a usual word of refusals, or nothing at all."""
    return secret.casefold() in _WORDS_OF_REFUSALS or not _dense(secret)


def _is_found_by_chance(secret: str) -> bool:
    return len(secret) < (_WORD if secret.isalpha() else _SHORT)


def _spellings(secret: str) -> Iterator[str]:
    """*secret* as it is, and in the encodings that :func:`_decoded` does not undo."""
    yield secret
    data = secret.encode(errors="replace")
    yield data.hex()
    if _is_found_by_chance(secret):
        yield b64encode(data).decode().rstrip("=")
        return
    for before in range(3):
        # Within other data: the first and the last characters depend on the data beside it.
        encoded = b64encode(bytes(before) + data).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[before] : len(encoded) - ((len(data) + before) % 3 > 0)]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


def _decoded(text: str) -> str:
    """*text* after all decoding, in one case."""
    text = text.casefold()
    for _ in range(_ROUNDS):
        before = text
        text = _ESCAPE.sub(_unescaped, unquote(html.unescape(text)))
        # The halves of a character beyond the 16 bits of an escape.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = text.casefold()
        if text == before:
            break
    return text


def _unescaped(escape: re.Match[str]) -> str:
    """What stands for an escape of JSON and most languages."""
    code = escape[1] or escape[2]
    if code:
        return chr(int(code, 16))
    return " " if escape[3] else escape[4]


def _dense(text: str) -> str:
    """*text* without the characters that programs drop or add at the end of a line: white space,
    what cannot be printed, and the plus sign, which means a space in a form."""
    return "".join(char for char in text if char.isprintable() and char not in " +")


def _whole(word: str) -> str:
    """A pattern for *word* where it is not part of another word."""
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def _printable(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
