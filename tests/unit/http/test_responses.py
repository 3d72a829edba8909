"""Reading a response ahead, or draining it, has no visible effect."""

from __future__ import annotations

import gc
import gzip
import io
import json
import socket
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar

from tokenadapter.http.responses import drain, peek_json, set_aside

VALUE = {"error": "token_expired", "lines": ["zwölf\n"] * 2000}
BODY = json.dumps(VALUE, indent=1, ensure_ascii=False).encode()


class Server:
    """Answers each request with the next of its scripts: bytes, and events to wait for."""

    def __init__(self, *scripts: list[bytes | threading.Event]) -> None:
        self.scripts = list(scripts)
        self.sockets: list[socket.socket] = []
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for each in (self.listener, *self.sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join()

    @property
    def connections(self) -> int:
        return len(self.sockets)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            # Or a piece waits until the client has the previous piece.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(connection)
            thread = threading.Thread(target=self.answer, args=[connection])
            self.threads.append(thread)
            thread.start()

    def answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            try:
                while file.readline():
                    while file.readline().strip():
                        pass
                    script = self.scripts.pop(0)
                    for step in script:
                        if isinstance(step, bytes):
                            connection.sendall(step)
                        else:
                            while not step.wait(0.01) and not self.ended.is_set():
                                pass
                    if b"Connection: close" in script[0]:
                        return
            except OSError:
                return  # the client disconnected


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A single connection, so that a connection that is not returned blocks the next request."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
        yield session


def head(
    *fields: str, status: str = "200 Yes", content_type: str = "application/json; charset=utf-8"
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *fields]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def chunked(body: bytes) -> bytes:
    """Chunks of many sizes, with all that the grammar allows."""
    wire, start, size = b"", 0, 1
    while start < len(body):
        chunk = body[start : start + size]
        wire += b'%X;name="quo;ted"\r\n%b\r\n' % (len(chunk), chunk)
        start, size = start + size, size * 3
    return wire + b"000\r\nTrailer: field\r\n\r\n"


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}

FRAMINGS = {
    "length": lambda b, *f: [head(f"Content-Length: {len(b)}", *f), b[:50], b[50:]],
    "chunked": lambda b, *f: [head("Transfer-Encoding: chunked", *f), chunked(b)],
    "close": lambda b, *f: [head("Connection: close", *f), b],
}

WAYS: dict[str, Callable[[requests.Response], object]] = {
    "content": lambda r: r.content,
    "text": lambda r: r.text,
    "json": lambda r: r.json(),
    "iter_content": lambda r: list(r.iter_content(1000)),
    "iter_content(None)": lambda r: list(r.iter_content(None)),
    "iter_lines": lambda r: list(r.iter_lines()),
    "raw.read": lambda r: r.raw.read(),
    "raw.read raw": lambda r: r.raw.read(decode_content=False),
    "raw.read decoded": lambda r: r.raw.read(decode_content=True),
    "raw.read pieces": lambda r: [r.raw.read(n, decode_content=True) for n in (1, 70, 10**6)],
    "raw.read1": lambda r: b"".join(iter(lambda: r.raw.read1(77), b"")),
    "raw.readinto": lambda r: (buffer := bytearray(300), r.raw.readinto(buffer)),
    "raw.stream": lambda r: list(r.raw.stream(333, decode_content=True)),
    "raw.data": lambda r: r.raw.data,
    "raw lines": lambda r: list(r.raw),
    "raw.tell": lambda r: (r.raw.read(5), r.raw.tell(), r.raw.length_remaining),
    "close": lambda r: (r.close(), r.raw.closed, r.content),
    "fileno": lambda r: r.raw.fileno() > 0,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_reading_ahead_does_not_change_what_the_caller_reads(session, encoding, framing, way):
    body = ENCODINGS[encoding](BODY)
    script = FRAMINGS[framing](body, f"Content-Encoding: {encoding}")
    with Server(script, script, script) as server:
        with session.get(server.url, stream=True) as response:
            plain = WAYS[way](response)
        with session.get(server.url, stream=True) as response:
            raw = response.raw
            assert peek_json(response) == VALUE
            assert peek_json(response) == VALUE
            assert response.raw is raw
            assert WAYS[way](response) == plain
        assert session.get(server.url).content == BODY


def test_a_response_that_was_read_ahead_returns_its_connection(session):
    scripts = [FRAMINGS["length"](BODY), FRAMINGS["chunked"](BODY), FRAMINGS["length"](BODY)]
    with Server(*scripts) as server:
        for _ in scripts:
            response = session.get(server.url, stream=True)
            assert peek_json(response) == VALUE
            assert response.content == BODY
        assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", head("Content-Length: 10")),
        ("HEAD", head("Transfer-Encoding: chunked")),
        ("GET", head(status="204 No Content")),
        ("GET", head("Content-Length: 0")),
    ],
)
@pytest.mark.parametrize("read", [peek_json, drain])
def test_a_response_without_a_body_is_not_waited_for(session, method, answer, read):
    with Server([answer], [answer]) as server:
        for _ in range(2):
            response = session.request(method, server.url, stream=True)
            assert read(response) is None
            assert response.content == b""
        assert server.connections == 1


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("read", [peek_json, drain])
def test_a_body_that_was_read_to_its_end_has_no_json(session, framing, read):
    with Server(FRAMINGS[framing](BODY)) as server:
        response = session.get(server.url, stream=True)
        assert response.raw.read() == BODY
        assert read(response) is None


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_beyond_the_limit_is_not_parsed(session, framing):
    with Server(FRAMINGS[framing](BODY)) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response, limit=len(BODY) - 1) is None
        assert response.content == BODY


def test_the_limit_is_inclusive(session):
    with Server(*[FRAMINGS[framing](BODY) for framing in ("length", "close")]) as server:
        for _ in range(2):
            with session.get(server.url, stream=True) as response:
                assert peek_json(response, limit=len(BODY)) == VALUE


def test_a_body_that_exceeds_the_limit_when_decoded_is_not_parsed(session):
    bomb = gzip.compress(json.dumps(" " * 1_000_000).encode())
    with Server(FRAMINGS["length"](bomb, "Content-Encoding: gzip")) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response) is None
        assert response.json() == " " * 1_000_000


@pytest.mark.parametrize(
    "fields",
    [{"content_type": "text/html"}, {"content_type": "application/json-seq"}],
    ids=["html", "json-seq"],
)
def test_a_body_without_a_json_content_type_is_not_waited_for(session, fields):
    sending = threading.Event()
    with Server([head("Content-Length: 2", **fields), sending, b"{}"]) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response) is None
        sending.set()
        assert response.content == b"{}"


def test_a_body_with_too_large_a_content_length_is_not_waited_for(session):
    sending = threading.Event()
    with Server([head(f"Content-Length: {len(BODY)}"), sending, BODY]) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response, limit=len(BODY) - 1) is None
        sending.set()
        assert response.content == BODY


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON;charset=utf-8", "application/problem+json", "text/json"],
)
def test_several_content_types_count_as_json(session, content_type):
    with Server([head("Content-Length: 3", content_type=content_type), b"[1]"]) as server:
        assert peek_json(session.get(server.url, stream=True)) == [1]


@pytest.mark.parametrize(
    "body", [b"{", b"<html>", b"[" * 50_000, b"\xff\xfe"], ids=["cut", "html", "deep", "binary"]
)
def test_an_invalid_json_body_has_no_value(session, body):
    with Server(FRAMINGS["length"](body)) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response) is None
        assert response.content == body


def test_json_in_a_legacy_encoding_is_parsed(session):
    body = '{"code": "expired", "text": "abgelaufen für immer"}'.encode("latin-1")
    with Server(FRAMINGS["length"](body)) as server:
        assert peek_json(session.get(server.url, stream=True))["code"] == "expired"


def test_an_endless_stream_is_passed_to_the_caller_unchanged(session):
    """Chunk by chunk, not only after a whole block."""
    go_on = threading.Event()
    first = head("Transfer-Encoding: chunked") + b"64\r\n" + b"x" * 100 + b"\r\n"
    with Server([first, go_on, b"3\r\nend\r\n0\r\n\r\n"]) as server:
        response = session.get(server.url, stream=True, timeout=10)
        assert peek_json(response, limit=50) is None
        chunks = response.iter_content(10_000)
        assert next(chunks) == b"x" * 100
        go_on.set()
        assert next(chunks) == b"end"
        assert list(chunks) == []


BROKEN = {
    "cut short": [head("Content-Length: 99", "Connection: close"), b'{"a": '],
    "chunk cut short": [head("Transfer-Encoding: chunked", "Connection: close"), b"63\r\n{"],
    "chunks cut short": [head("Transfer-Encoding: chunked", "Connection: close"), b"1\r\n{\r\n"],
    "no chunk size": [head("Transfer-Encoding: chunked"), b"1\r\n{\r\nsize\r\n"],
    "negative chunk size": [head("Transfer-Encoding: chunked"), b"1\r\n{\r\n-5\r\n" + b"0" * 9],
    "stalled": [head("Content-Length: 99"), b'{"a": ', threading.Event()],
    "stalled chunk": [head("Transfer-Encoding: chunked"), b"63\r\n{}", threading.Event()],
    "not gzip": [head("Content-Length: 9", "Content-Encoding: gzip"), b"not gzip!"],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_body_raises_at_the_same_position(session, broken):
    def read(response: requests.Response) -> tuple[bytes, type, type]:
        received: list[bytes] = []
        # The latter from a negative chunk size, which urllib3 takes at its word.
        with pytest.raises((requests.RequestException, ValueError)) as caught:
            received.extend(response.iter_content(2))
        response.close()
        return b"".join(received), caught.type, type(caught.value.args[0])

    script = BROKEN[broken]
    with Server(script, script) as server:
        plain = read(session.get(server.url, stream=True, timeout=0.2))
        response = session.get(server.url, stream=True, timeout=0.2)
        assert peek_json(response) is None
        assert peek_json(response) is None
        assert read(response) == plain


@pytest.mark.parametrize("broken", ["stalled", "cut short"])
def test_a_broken_response_is_freed_with_its_last_reference(session, broken):
    with Server(BROKEN[broken]) as server:
        response = session.get(server.url, stream=True, timeout=0.2)
        assert peek_json(response) is None
        original = weakref.ref(response.raw._original_response)
        gc.disable()
        try:
            del response
            assert original() is None
        finally:
            gc.enable()


# --- Responses that do not come from a socket


def response_of(raw: object, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = 200
    response.headers.update({"Content-Type": "application/json", **headers})
    response.raw = raw
    return response


def test_a_mock_of_bytes_stays_unread():
    response = response_of(io.BytesIO(BODY))
    assert peek_json(response) == VALUE
    assert response.raw.read() == BODY


def test_a_mock_of_urllib3_stays_unread():
    headers = {"Content-Encoding": "gzip"}
    packed = gzip.compress(BODY)
    raw = urllib3.HTTPResponse(io.BytesIO(packed), headers, preload_content=False)
    response = response_of(raw, **headers)
    assert peek_json(response, limit=10) is None
    assert peek_json(response) == VALUE
    assert response.content == BODY


def test_a_mock_is_decoded_as_requests_would():
    response = response_of(io.BytesIO(BODY), **{"Content-Encoding": "gzip"})
    assert peek_json(response) == VALUE
    assert response.content == BODY


def test_a_response_that_has_been_read_is_not_read_again():
    response = response_of(io.BytesIO(BODY))
    assert response.content == BODY
    assert peek_json(response) == VALUE
    assert peek_json(response, limit=10) is None
    drain(response)
    assert response.content == BODY


@pytest.mark.parametrize("raw", [None, object(), io.BytesIO()], ids=["none", "odd", "closed"])
def test_an_unknown_kind_of_response_is_left_alone(raw):
    if raw:
        getattr(raw, "close", int)()
    assert peek_json(response_of(raw)) is None


# --- Setting aside


@pytest.mark.parametrize("way", sorted({*WAYS} - {"fileno"}))
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_response_that_was_set_aside_frees_its_connection_and_can_be_read(
    session, encoding, framing, way
):
    body = ENCODINGS[encoding](BODY)
    script = FRAMINGS[framing](body, f"Content-Encoding: {encoding}", "Set-Cookie: a=1")
    with Server(script, script, script) as server:
        with session.get(server.url, stream=True) as response:
            plain = WAYS[way](response)
        session.cookies.clear()
        response = session.get(server.url, stream=True)
        set_aside(response)
        # The pool has one place.
        assert session.get(server.url).content == BODY
        assert not response._content_consumed
        assert response.raw.status == 200
        jar = RequestsCookieJar()
        extract_cookies_to_jar(jar, response.request, response.raw)
        assert jar.get_dict() == {"a": "1"}
        # The boundaries of network packets are lost.
        ours = WAYS[way](response)
        assert ours == plain or b"".join(ours) == b"".join(plain) != b""


@pytest.mark.parametrize("read", [lambda r: r.content, peek_json], ids=["content", "peek"])
def test_a_response_that_was_read_can_be_set_aside(session, read):
    with Server(FRAMINGS["chunked"](BODY), FRAMINGS["length"](BODY)) as server:
        response = session.get(server.url, stream=True)
        read(response)
        set_aside(response)
        assert session.get(server.url).content == BODY
        assert response.content == BODY


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_body_beyond_the_limit_is_not_set_aside(session, framing):
    with Server(FRAMINGS[framing](BODY)) as server:
        response = session.get(server.url, stream=True)
        raw = response.raw
        set_aside(response, limit=len(BODY) // 2)
        assert response.raw is raw
        assert response.content == BODY


@pytest.mark.parametrize("raw", [None, io.BytesIO(BODY), object()], ids=["none", "bytes", "odd"])
def test_a_mock_has_no_connection_to_set_aside(raw):
    response = response_of(raw)
    set_aside(response)
    assert response.raw is raw


# --- Draining

never = threading.Event()


def refusal(*fields: str) -> bytes:
    return head(*fields, status="401 No")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_drained_response_keeps_its_content_and_frees_its_connection(session, framing, encoding):
    body = ENCODINGS[encoding](BODY)
    script = FRAMINGS[framing](body, f"Content-Encoding: {encoding}")
    with Server(script, script) as server:
        for _ in range(2):
            response = session.get(server.url, stream=True)
            drain(response)
            assert response.content == BODY
        assert server.connections == 1


def test_a_response_can_be_read_ahead_and_then_drained(session):
    script = FRAMINGS["chunked"](BODY)
    with Server(script, script) as server:
        for limit in (len(BODY) * 2, 10):
            response = session.get(server.url, stream=True)
            peek_json(response, limit)
            drain(response)
            assert response.content == BODY
        assert server.connections == 1


def test_a_response_that_was_partly_read_ahead_is_not_waited_for(session):
    with Server([refusal("Transfer-Encoding: chunked"), b"63\r\n" + b"x" * 50, never]) as server:
        response = session.get(server.url, stream=True)
        assert peek_json(response, limit=10) is None
        drain(response, timeout=0.1)
        assert response.content == b""


def test_the_time_limit_applies_to_streams_without_a_socket():
    class Connection:
        @staticmethod
        def makefile(_mode: str) -> io.BytesIO:
            return io.BytesIO(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nsome")

    for timeout, content in ((1, b"some"), (0, b"")):
        original = HTTPResponse(Connection())
        original.begin()
        response = response_of(
            urllib3.HTTPResponse(
                original, original_response=original, preload_content=False, status=401
            )
        )
        drain(response, timeout=timeout)
        assert response.content == content


def test_a_refusal_that_closes_keeps_its_content(session):
    with Server(FRAMINGS["close"](BODY), FRAMINGS["close"](BODY)) as server:
        for _ in range(2):
            response = session.get(server.url, stream=True)
            drain(response)
            assert response.content == BODY


UNFIT = {
    "long": [refusal(f"Content-Length: {10**6}"), never],
    "long chunk": [refusal("Transfer-Encoding: chunked"), b"FFFFFF\r\n" + b"x" * 100_000, never],
    "long chunk extension": [refusal("Transfer-Encoding: chunked"), b"1;" + b"x" * 100_000, never],
    "stalled": [refusal("Content-Length: 9"), b"some", never],
    "stalled and closing": [refusal("Content-Length: 9", "Connection: close"), b"some", never],
    "stalled chunk": [refusal("Transfer-Encoding: chunked"), b"9\r\nsome", never],
    "stalled trailer": [refusal("Transfer-Encoding: chunked"), b"0\r\n", never],
    "dripping": [refusal("Content-Length: 9999"), *[b"x", threading.Event()] * 9999],
    "dripping chunk size": [
        refusal("Transfer-Encoding: chunked"),
        *[b"0", threading.Event()] * 9999,
    ],
    "cut short": [refusal("Content-Length: 9", "Connection: close"), b"some"],
    "not chunked": [refusal("Transfer-Encoding: chunked"), b"<html>\r\n", never],
    "more than said": [refusal("Content-Length: 4") + b"some and more", never],
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_long_slow_or_broken_response_is_closed_instead_of_drained(session, unfit):
    with Server(UNFIT[unfit], FRAMINGS["length"](BODY)) as server:
        response = session.get(server.url, stream=True)
        drain(response, timeout=0.1)
        assert response.content == b""
        assert response.raw.closed
        assert session.get(server.url).content == BODY
        assert server.connections == 2


def test_an_undecodable_response_has_no_content_and_frees_its_connection(session):
    script = FRAMINGS["length"](b"not gzip", "Content-Encoding: gzip")
    with Server(script, FRAMINGS["length"](BODY)) as server:
        response = session.get(server.url, stream=True)
        drain(response)
        assert response.content == b""
        assert session.get(server.url).content == BODY
        assert server.connections == 1


def test_a_mock_is_drained_too():
    response = response_of(urllib3.HTTPResponse(io.BytesIO(BODY), preload_content=False))
    drain(response)
    assert response.content == BODY
    drain(response_of(None))
    with closing(io.BytesIO(BODY)) as raw:
        response = response_of(raw)
        drain(response, limit=10)
        assert raw.closed
