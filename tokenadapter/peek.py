"""Reading a response before its caller does: a look at its JSON, and the end of a refusal."""

from __future__ import annotations

import io
import json
from time import monotonic
from typing import TYPE_CHECKING, Any

import urllib3
from requests.exceptions import RequestException

from tokenadapter.wire import body_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Response

__all__ = ["bounded_content", "drain", "peek_json", "set_aside"]

LIMIT = 65536
"""Bytes of a body that are read before its caller asks for it."""


def peek_json(response: Response, limit: int = LIMIT) -> Any:
    """The JSON value in a response's body, without consuming what the caller will read.

    The body is waited for, so on a ``stream=True`` response ask only where an answer in JSON is a
    matter of a moment: its status and content type say so.  The whole of it may take as long as the
    request gave to one read (its read time-out), and half a minute if that has no bound.

    :param limit: bytes, as transferred and as decoded: a longer body is not looked at.
    :return: the value, or ``None`` if there is none: no JSON content type, no body, a longer or
        slower body, a broken one (what is wrong with it, the caller learns when reading it).
    """
    if not _says_json(response.headers.get("Content-Type", "")):
        return None
    try:
        body = _content(response, limit)
        return _parsed(body) if body and len(body) <= limit else None
    except (ValueError, RecursionError, urllib3.exceptions.DecodeError):
        return None


def bounded_content(body: bytes, headers: Mapping[str, str], limit: int = LIMIT) -> bytes | None:
    """An encoded body decoded, or ``None`` if it cannot be, or is longer than the limit then."""
    try:
        content = _decoded(body, headers, limit)
    except urllib3.exceptions.DecodeError:
        return None
    return content if len(content) <= limit else None


def set_aside(response: Response, *, limit: int = LIMIT, timeout: float = 1.0) -> None:
    """Give the connection of a response back to its pool; the body stays to be read.

    For a wait in which somebody else may need the connection.  A body that is too long, too slow,
    broken, or followed by more than it should be stays where it is.

    :param limit: bytes, as transferred.
    :param timeout: seconds that the whole of it may take.
    """
    raw = response.raw
    if _is_loaded(response) or not isinstance(raw, urllib3.HTTPResponse):
        return  # no connection is held: it has been read, or is a mock
    body = body_of(raw, limit, monotonic() + timeout)
    if body is None:
        return
    # It is through the original response that requests reads cookies.
    response.raw = urllib3.HTTPResponse(
        _Whole(body),
        original_response=raw._original_response,
        headers=raw.headers,
        status=raw.status,
        version=raw.version,
        reason=raw.reason,
        preload_content=False,
        decode_content=raw.decode_content,
        retries=raw.retries,
        request_url=raw.geturl(),
    )
    raw.drain_conn()


def drain(response: Response, *, limit: int = LIMIT, timeout: float = 1.0) -> None:
    """Finish a response that no caller will read, so that its connection can be used again.

    Its body stays at hand as ``response.content``.  A body that is too long, too slow, broken, or
    followed by more than it should be is not worth it: the connection is closed, the content empty.
    Either way the connection is back in its pool.

    :param limit: bytes, as transferred and as decoded: of a few bytes, a server can make gigabytes.
    :param timeout: seconds that the whole of it may take.
    """
    if _is_loaded(response):
        return
    content = _drained(response, limit, monotonic() + timeout)
    if content is None:
        response.close()
    response._content, response._content_consumed = content or b"", True


class _Whole(io.BytesIO):
    """A body that closes when it is read at its end: that is how urllib3 knows the end."""

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if not piece and size != 0:
            self.close()
        return piece

    read1 = read


def _says_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    # Some APIs that began with JSONP label their JSON as a script.
    return kind in ("application/json", "text/json", "text/javascript") or kind.endswith("+json")


def _is_loaded(response: Response) -> bool:
    return response.raw is None or getattr(response, "_content", False) is not False


def _content(response: Response, limit: int) -> bytes | None:
    """The decoded body, cut somewhere beyond the limit; ``None`` if it cannot be had whole."""
    if _is_loaded(response):
        return response.content
    raw = response.raw
    body = body_of(raw, limit)
    if body is None or not hasattr(raw, "stream"):  # as requests decides whether raw can decode
        return body
    return _decoded(body, response.headers, limit)


def _decoded(body: bytes, headers: Mapping[str, str], limit: int) -> bytes:
    """The decoded body, cut somewhere beyond the limit."""
    encoding = {"Content-Encoding": headers.get("Content-Encoding", "")}
    twin = urllib3.HTTPResponse(io.BytesIO(body), headers=encoding, preload_content=False)
    # Each urllib3 that setup.py admits decodes no farther than it is asked to.
    return twin.read(limit + 1, decode_content=True)


def _drained(response: Response, limit: int, deadline: float) -> bytes | None:
    """The decoded body, read to its end; ``None`` if it cannot be had whole."""
    if body_of(response.raw, limit, deadline) is None:
        return None
    content = bytearray()
    try:
        # What is at hand, decoded piece by piece; at its end the connection is given back.
        for piece in response.iter_content(limit):
            content += piece
            if len(content) > limit:
                return None
    except RequestException:  # it cannot be decoded
        return None
    return bytes(content)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        # No JSON by RFC 8259 section 8.1, but the names and codes in it are ASCII all the same.
        return json.loads(body.decode("latin-1"))
