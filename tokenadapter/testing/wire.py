"""HTTP/1.1 on one connection: requests read, answers written (RFC 9112).

Not based on :mod:`http.server`, which parses headers as e-mail.  That takes longer than all other
work of the server for a request.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from threading import Event
from typing import Any, NamedTuple

_LINE_LIMIT = 65536
_READ_SIZE = 65536
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Head(NamedTuple):
    """A request up to its body."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # by lower-case name
    keep_alive: bool


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class BadRequest(Exception):
    """The received bytes are not HTTP."""


def json_answer(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON body."""
    content_type = {"Content-Type": "application/json"}
    return Answer(status, json.dumps(content).encode(), {**content_type, **(headers or {})})


class Wire:
    """One connection.  Every method raises :class:`OSError` when it has ended."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")

    def close(self) -> None:
        """Close the connection: the client reads the end of the stream."""
        self._file.close()
        self._socket.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def head(self) -> Head:
        """The head of the next request."""
        request_line = self._line().split(" ")
        headers: dict[str, str] = {}
        while line := self._line():
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest(f"not a header: {line!r}")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if len(request_line) != 3:
            raise BadRequest(f"not a request line: {request_line!r}")
        method, target, version = request_line
        path, _, query = target.partition("?")
        keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Head(method, path, query, headers, keep_alive)

    def body(self, head: Head) -> Iterator[bytes]:
        """The body that follows a head, piece by piece."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _number(self._line().partition(";")[0], 16):
                yield from self._take(size)
                self._line()
            while self._line():
                pass  # a trailer
        elif "content-length" in head.headers:
            yield from self._take(_number(head.headers["content-length"], 10))

    def send(self, head: Head | None, answer: Answer) -> None:
        """Write an answer at once."""
        self._socket.sendall(_encode(head, answer))

    def drip(self, head: Head, answer: Answer, interval: float, stopping: Event) -> None:
        """Write an answer byte by byte, with ``interval`` seconds after each."""
        for byte in _encode(head, answer):
            self._socket.sendall(bytes((byte,)))
            if stopping.wait(interval):
                raise ConnectionAbortedError

    def wait_for_end(self) -> None:
        """Return when the client has closed the connection or the listener has shut it down."""
        while self._file.read1(_READ_SIZE):
            pass

    def _line(self) -> str:
        line = self._file.readline(_LINE_LIMIT)
        if not line.endswith(b"\n"):
            raise ConnectionAbortedError
        return str(line, "latin-1").rstrip("\r\n")

    def _take(self, size: int) -> Iterator[bytes]:
        while size > 0:
            piece = self._file.read1(min(size, _READ_SIZE))
            if not piece:
                raise ConnectionAbortedError
            size -= len(piece)
            yield piece


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise BadRequest(f"not a length: {text!r}") from None


def _encode(head: Head | None, answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines.append(f"Content-Length: {len(answer.body)}")
    if head is None or not head.keep_alive:
        lines.append("Connection: close")
    start = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    bodiless = answer.status in (204, 304) or (head is not None and head.method == "HEAD")
    return start if bodiless else start + answer.body
