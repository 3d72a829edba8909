"""Read a response before its caller does: look at its JSON, or finish a refused request.

The body is read ahead below all parsing, from the stream of :class:`http.client.HTTPResponse` (its
``fp``).  The bytes are kept unchanged, including chunk framing, and put back in front of the rest.
So the bookkeeping of urllib3 and requests (lengths, chunks, decoding, the return of the connection,
errors at their position) is unaffected.  Responses that do not come from a socket (those of mocks
and caches) are files, and are rewound.

All code of this package that depends on the internals of urllib3 and :mod:`http.client` is here.
"""

from __future__ import annotations

import io
import json
from http.client import HTTPResponse
from time import monotonic
from typing import TYPE_CHECKING, Any

import urllib3
from requests.exceptions import RequestException

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from requests import Response

__all__ = [
    "body_of",
    "bounded_content",
    "drain",
    "json_of",
    "peek_json",
    "says_json",
    "set_aside",
]

LIMIT = 65536
"""Bytes of a body that are read before its caller asks for it."""

DRAINED_FOR = 1.0
"""Seconds that the body of a refusal may take which no caller will read."""

PEEKED_FOR = 30.0
"""Seconds to wait for a body into which a verdict looks, if the request has no read timeout."""

DECODERS: Collection[str] = urllib3.HTTPResponse.CONTENT_DECODERS
"""The encodings that can be decoded up to a limit here."""


def peek_json(response: Response, limit: int = LIMIT) -> Any:
    """The JSON value in the body of a response, which stays unread for the caller.

    This waits for the body, so call it for a ``stream=True`` response only if status and content
    type promise a quick JSON body.  The whole body may take as long as the read timeout of the
    request, or half a minute if there is none.

    :param limit: bytes, as transferred and as decoded: a longer body is not parsed.
    :return: the value, or ``None`` without one: no JSON content type, no body, a body that is too
        long or too slow, or a broken body (the caller gets the error when reading it).
    """
    if not says_json(response.headers.get("Content-Type", "")):
        return None
    try:
        body = _content(response, limit)
        return _parsed(body) if body and len(body) <= limit else None
    except (ValueError, RecursionError, urllib3.exceptions.DecodeError):
        return None


def json_of(body: bytes | None, headers: Mapping[str, str], limit: int = LIMIT) -> Any:
    """The JSON value in an encoded body, ``None`` if there is none: as :func:`peek_json`."""
    content = None if body is None else bounded_content(body, headers, limit)
    try:
        return _parsed(content) if content else None
    except (ValueError, RecursionError):
        return None


def bounded_content(body: bytes, headers: Mapping[str, str], limit: int = LIMIT) -> bytes | None:
    """The decoded body, or ``None`` if decoding fails or exceeds the limit."""
    try:
        content = _decoded(body, headers, limit)
    except urllib3.exceptions.DecodeError:
        return None
    return content if len(content) <= limit else None


def set_aside(response: Response, *, limit: int = LIMIT, timeout: float = DRAINED_FOR) -> None:
    """Return the connection of a response to its pool.  The body can still be read.

    Used before a wait in which another request may need the connection.  A body that is too long,
    too slow, broken, or followed by surplus bytes stays on its connection.

    :param limit: bytes, as transferred.
    :param timeout: seconds that the whole body may take.
    """
    raw = response.raw
    if _is_loaded(response) or not isinstance(raw, urllib3.HTTPResponse):
        return  # it has no connection: it was read, or is a mock
    body = body_of(raw, limit, monotonic() + timeout)
    if body is None:
        return
    # requests reads cookies from the original response.
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


def drain(response: Response, *, limit: int = LIMIT, timeout: float = DRAINED_FOR) -> None:
    """Finish a response that no caller will read, so that its connection can be reused.

    The body is available as ``response.content``.  If the body is too long, too slow, broken, or
    followed by surplus bytes, the connection is closed and the content is empty.  Either way the
    connection is returned to its pool.

    :param limit: bytes, as transferred and as decoded: a few bytes can decode to gigabytes.
    :param timeout: seconds that the whole body may take.
    """
    if _is_loaded(response):
        return
    content = _drained(response, limit, monotonic() + timeout)
    if content is None:
        response.close()
    response._content, response._content_consumed = content or b"", True


class _Whole(io.BytesIO):
    """A body that closes when it is read at its end, as urllib3 expects."""

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if not piece and size != 0:
            self.close()
        return piece

    read1 = read


def says_json(content_type: str) -> bool:
    """Whether a ``Content-Type`` is one of JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    # Some APIs that began with JSONP label their JSON as a script.
    return kind in ("application/json", "text/json", "text/javascript") or kind.endswith("+json")


def _is_loaded(response: Response) -> bool:
    return response.raw is None or getattr(response, "_content", False) is not False


def _content(response: Response, limit: int) -> bytes | None:
    """The decoded body, cut somewhere beyond the limit; ``None`` if it is incomplete."""
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
    # All versions of urllib3 that setup.py allows decode no more than requested.
    return twin.read(limit + 1, decode_content=True)


def _drained(response: Response, limit: int, deadline: float) -> bytes | None:
    """The decoded body, read to its end; ``None`` if it is incomplete or too long."""
    if body_of(response.raw, limit, deadline) is None:
        return None
    content = bytearray()
    try:
        # Decodes the body piece by piece; the end returns the connection to the pool.
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
        # Invalid by RFC 8259 section 8.1, but the names and codes in it are ASCII all the same.
        return json.loads(body.decode("latin-1"))


def body_of(raw: Any, limit: int, deadline: float | None = None) -> bytes | None:
    """The encoded body of an unread response, which stays unread.

    :param limit: bytes.
    :param deadline: until when to wait for the body, by the monotonic clock; by default the read
        timeout from now on, or half a minute if there is none.
    :return: ``None`` if the body is not complete in time, or longer than the limit.
    """
    # Both names are private to urllib3, and have never changed: requests reads cookies through the
    # second.  Without them, nothing is read ahead.
    file = getattr(raw, "_fp", raw)
    original = getattr(raw, "_original_response", None)
    try:
        if file.seekable():
            start = file.tell()
            body: bytes = file.read(limit + 1)
            file.seek(start)
            return body if len(body) <= limit else None
    except (AttributeError, OSError, ValueError):
        return None
    return _from_wire(original, limit, deadline) if isinstance(original, HTTPResponse) else None


def _from_wire(original: HTTPResponse, limit: int, deadline: float | None) -> bytes | None:
    if original.length == 0 or original.isclosed():  # HEAD, 204, 304, or an empty body
        return b""
    if original.length is not None and original.length > limit:
        return None
    wire = _Wire(original.fp, limit, deadline)
    try:
        if original.chunked:
            body = b"".join(_chunks(wire))
        elif original.length is None:
            body = wire.rest()
        else:
            body = wire.take(original.length)
        # Bytes after the response belong to no response, so the connection must not be reused.
        surplus = deadline is not None and wire.surplus
    except ValueError:
        return None
    else:
        return None if surplus else body
    finally:
        wire.restore_timeout()
        original.fp = io.BufferedReader(_Again(wire))


def _chunks(wire: _Wire) -> Iterator[bytes]:
    """The data of a chunked body (RFC 9112 section 7.1)."""
    while size := int(wire.line().partition(b";")[0], 16):
        yield wire.take(size)
        wire.line()
    while wire.line().strip():
        pass  # a trailer field


class _Wire:
    """The bytes that a server sends after its headers, recorded unchanged.

    They are read with ``read1``, which loses nothing when it fails and waits for a single packet,
    so that a server that sends one byte per second cannot exceed the time.
    """

    def __init__(self, fp: io.BufferedReader, limit: int, deadline: float | None) -> None:
        self.fp = fp
        self.seen = bytearray()
        self.failure: OSError | None = None
        # http.client drops a socket that closes after this response, but its reader keeps it.
        self.sock = getattr(getattr(fp, "raw", None), "_sock", None)
        self._at = 0
        self._limit = limit
        # The caller's timeout for one packet.
        self._timeout: float | None = None if self.sock is None else self.sock.gettimeout()
        self._is_patient = deadline is None
        self._deadline = (
            monotonic() + (self._timeout or PEEKED_FOR) if deadline is None else deadline
        )

    @property
    def surplus(self) -> bool:
        return len(self.seen) > self._at

    def take(self, size: int) -> bytes:
        if size < 0:
            raise ValueError("a negative length")
        while len(self.seen) < self._at + size:
            self._need_more()
        return self._advance(self._at + size)

    def line(self) -> bytes:
        while (end := self.seen.find(b"\n", self._at)) < 0:
            self._need_more()
        return self._advance(end + 1)

    def rest(self) -> bytes:
        while self._more():
            pass
        return self._advance(len(self.seen))

    def _advance(self, end: int) -> bytes:
        piece = bytes(self.seen[self._at : end])
        self._at = end
        return piece

    def _need_more(self) -> None:
        if not self._more():
            raise ValueError("the end came too early")

    def _more(self) -> bool:
        """Wait for the next bytes; false at the end of the stream."""
        if len(self.seen) > self._limit:
            raise ValueError("longer than the limit")
        left = self._deadline - monotonic()
        if left <= 0:
            raise ValueError("too slow")
        if self.sock is not None:
            self.sock.settimeout(left)
        try:
            piece = self.fp.read1(8192)
        except OSError as failure:
            if isinstance(failure, TimeoutError) and (self.seen or not self._is_patient):
                # Our time is up, not the caller's, who can continue to read.
                _forget_timeout(self.fp)
            else:
                self.failure = failure.with_traceback(None)  # it would refer to this object
            raise ValueError("the stream is broken or too slow") from None
        self.seen += piece
        return bool(piece)

    def restore_timeout(self) -> None:
        """Restore the caller's timeout for each packet."""
        if self.sock is not None:
            self.sock.settimeout(self._timeout)


def _forget_timeout(fp: io.BufferedReader) -> None:
    """Make a stream readable again after a read has timed out."""
    raw: Any = fp.raw
    while isinstance(raw, _Again):
        raw = raw._wire.fp.raw
    raw._timeout_occurred = False


class _Again(io.RawIOBase):
    """The bytes read ahead from a stream, then its error, or else the rest of the stream."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._sock = wire.sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seen = self._wire.seen
        if seen:
            size = min(len(buffer), len(seen))
            buffer[:size] = seen[:size]
            del seen[:size]
            return size
        if self._wire.failure is not None:
            raise self._wire.failure
        return self._wire.fp.readinto1(buffer)

    def fileno(self) -> int:
        return self._wire.fp.fileno()

    def close(self) -> None:
        super().close()
        self._wire.fp.close()
