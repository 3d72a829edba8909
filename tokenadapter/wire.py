"""The body of a response, read ahead of the caller and put back: every byte stays where it was.

That is done below all parsing, on the stream that :class:`http.client.HTTPResponse` reads from (its
``fp``): what is read there is kept as it came, chunk framing included, and put back in front of the
rest.  So urllib3's and requests' own accounting (lengths, chunks, decoding, the return of the
connection, an error at its place) goes on as if nobody had looked.  Responses that do not come from
a socket (those of mocks and caches) are files, and are rewound.

Whatever of this package leans on the inner parts of urllib3 and :mod:`http.client` stands here.
"""

from __future__ import annotations

import io
from http.client import HTTPResponse
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["body_of"]

# Seconds to wait for a body of whose packets nobody has said how late they may be.
_PATIENCE = 30.0


def body_of(raw: Any, limit: int, deadline: float | None = None) -> bytes | None:
    """The encoded body of a response that nobody has read from, which stays unread.

    :param limit: bytes.
    :param deadline: until when to wait for it, by the monotonic clock; by default for as long as
        one read may take, or half a minute where that has no bound.
    :return: ``None`` if it is not there whole in time, or longer than the limit.
    """
    # Both names are urllib3's privates, and have been the same since its beginnings: requests
    # reads the cookies through the second.  Without them nothing is looked at.
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
        # Bytes behind the answer belong to no answer: that connection must not be used again.
        surplus = deadline is not None and wire.surplus
    except ValueError:
        return None
    else:
        return None if surplus else body
    finally:
        wire.be_patient()
        original.fp = io.BufferedReader(_Again(wire))


def _chunks(wire: _Wire) -> Iterator[bytes]:
    """The data of a chunked body (RFC 9112 section 7.1)."""
    while size := int(wire.line().partition(b";")[0], 16):
        yield wire.take(size)
        wire.line()
    while wire.line().strip():
        pass  # a trailer field


class _Wire:
    """The bytes that a server sends after its headers, kept as they come.

    They are taken with ``read1``, which loses nothing when it fails and waits for one packet only,
    so that a server that sends a byte a second cannot stretch the time.
    """

    def __init__(self, fp: io.BufferedReader, limit: int, deadline: float | None) -> None:
        self.fp = fp
        self.seen = bytearray()
        self.failure: OSError | None = None
        # http.client lets go of a socket that closes after this answer; its reader still has it.
        self.sock = getattr(getattr(fp, "raw", None), "_sock", None)
        self._at = 0
        self._limit = limit
        # How long the caller would wait for one packet.
        self._timeout: float | None = None if self.sock is None else self.sock.gettimeout()
        self._is_patient = deadline is None
        self._deadline = (
            monotonic() + (self._timeout or _PATIENCE) if deadline is None else deadline
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
                # Our time is up, and not the caller's: they read on from here.
                _forget_timeout(self.fp)
            else:
                self.failure = failure.with_traceback(None)  # it would lead back here
            raise ValueError("the stream is broken or too slow") from None
        self.seen += piece
        return bool(piece)

    def be_patient(self) -> None:
        """Let the caller wait for each packet as long as they wanted to."""
        if self.sock is not None:
            self.sock.settimeout(self._timeout)


def _forget_timeout(fp: io.BufferedReader) -> None:
    """Let a stream be read from after one of its reads has timed out: it would refuse that."""
    raw: Any = fp.raw
    while isinstance(raw, _Again):
        raw = raw._wire.fp.raw
    raw._timeout_occurred = False


class _Again(io.RawIOBase):
    """What has been seen of a stream, then the error met there, or else the rest of the stream."""

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
