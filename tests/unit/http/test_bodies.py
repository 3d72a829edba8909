"""Every body is replayed in full, or not at all."""

from __future__ import annotations

import array
import gc
import hashlib
import io
import os
import socket
import tempfile
import threading
from collections import deque
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from mmap import PROT_READ, mmap
from pathlib import Path
from unittest import mock

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3.exceptions import UnrewindableBodyError
from urllib3.util import Retry

from tokenadapter.http import bodies as recorder
from tokenadapter.http.bodies import NotReplayable, prepare

LIMIT = 64 * 1024 * 1024
BIG = bytes(range(256)) * 16 * 1024  # 4 MiB: more than the buffers of a loopback connection


class Reader:
    """A body with ``read`` and nothing else."""

    def __init__(self, data: bytes | str) -> None:
        self.file = io.StringIO(data) if isinstance(data, str) else io.BytesIO(data)

    def read(self, size: int = -1) -> bytes | str:
        return self.file.read(size)


def pipe_of(data: bytes) -> io.BufferedReader:
    reading, writing = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=fill, daemon=True).start()
    return os.fdopen(reading, "rb")


def chunks_of(data: bytes, size: int = 50_000):
    return (data[i : i + size] for i in range(0, len(data), size))


def sent(payload) -> bytes:
    """The bytes that urllib3 would send."""
    chunks = urllib3.util.request.body_to_chunks(payload, "POST", 16384).chunks
    return b"".join(c.encode() if isinstance(c, str) else bytes(c) for c in chunks or ())


# --- Repeatable bodies


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"bytes",
        "text",
        bytearray(b"array"),
        memoryview(b"view"),
        array.array("I", [1, 2]),
        [b"a", "b"],
        (b"a", b"b"),
    ],
    ids=lambda body: type(body).__name__,
)
def test_a_repeatable_body_is_not_wrapped(body):
    prepared = prepare(body, limit=LIMIT)
    assert prepared.payload is body
    assert not prepared.one_shot
    first = sent(prepared.payload)
    prepared.rewind()
    assert sent(prepared.payload) == first
    prepared.close()


def test_a_seekable_body_is_rewound_to_its_start_position(tmp_path):
    (tmp_path / "body").write_bytes(b"skipped" + BIG)
    with (tmp_path / "body").open("rb") as file:
        for body in (file, io.BytesIO(b"skipped" + BIG)):
            body.seek(7)
            prepared = prepare(body, limit=LIMIT)
            assert prepared.payload is body
            assert not prepared.one_shot
            body.read(100_000)
            prepared.rewind()
            assert sent(prepared.payload) == BIG


def test_a_text_file_is_rewound_to_its_start_position(tmp_path):
    (tmp_path / "body").write_text("skipped\nzwölf\n" * 3, encoding="utf-8")
    with (tmp_path / "body").open(encoding="utf-8") as file:
        file.readline()
        prepared = prepare(file, limit=LIMIT)
        first = sent(prepared.payload)
        prepared.rewind()
        assert sent(prepared.payload) == first
        assert first.startswith("zwölf\n".encode())


def test_a_text_file_without_a_position_is_recorded(tmp_path):
    (tmp_path / "body").write_text("skipped\nzwölf\n" * 3, encoding="utf-8")
    with (tmp_path / "body").open(encoding="utf-8") as file:
        next(file)  # which disables tell()
        prepared = prepare(file, limit=LIMIT)
        assert prepared.one_shot
        first = sent(prepared.payload)
        prepared.rewind()
        assert sent(prepared.payload) == first
        assert first.startswith("zwölf\n".encode())


@pytest.mark.parametrize("change", [b"grown", b""], ids=["grown", "shrunk"])
def test_a_file_that_changed_its_size_is_not_sent_again(tmp_path, change):
    path = tmp_path / "body"
    path.write_bytes(b"body")
    with path.open("rb") as file:
        prepared = prepare(file, limit=LIMIT)
        sent(prepared.payload)
        path.write_bytes(change)
        with pytest.raises(NotReplayable, match="size of the file changed"):
            prepared.rewind()


def test_a_file_that_was_closed_is_not_sent_again(tmp_path):
    (tmp_path / "body").write_bytes(b"body")
    with (tmp_path / "body").open("rb") as file:
        prepared = prepare(file, limit=LIMIT)
    with pytest.raises(NotReplayable, match="closed file"):
        prepared.rewind()


def test_a_body_closed_before_sending_fails_as_without_us():
    body = io.BytesIO(b"body")
    body.close()
    with pytest.raises(ValueError, match="closed file"):
        sent(prepare(body, limit=LIMIT).payload)


def test_a_mapped_file_is_read_like_a_file(tmp_path):
    (tmp_path / "body").write_bytes(b"skipped" + BIG)
    with (tmp_path / "body").open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as body:
        body.seek(7)
        prepared = prepare(body, limit=LIMIT)
        for _ in range(2):
            assert sent(prepared.payload) == BIG
            prepared.rewind()
        prepared.close()


# --- Recording


class Iterables:
    """Bodies of many types with the same pieces, each of which can be read only once."""

    @staticmethod
    def generator(pieces):
        yield from pieces

    @staticmethod
    def endless_looking(pieces):
        class Once:
            """Its own iterator, so that a second iteration finds it empty."""

            def __init__(self) -> None:
                self.left = deque(pieces)

            def __iter__(self):
                while self.left:
                    yield self.left.popleft()

        return Once()

    @staticmethod
    def reused_buffer(pieces):
        buffer = bytearray()
        for piece in pieces:
            buffer[:] = piece.encode() if isinstance(piece, str) else piece
            yield buffer


class Pieces(Reader):
    """A reader whose reads are as short as its pieces, like those of a socket."""

    def __init__(self, pieces) -> None:
        self.left = deque(piece for piece in pieces if piece)

    def read(self, size: int = -1) -> bytes | str:
        if not self.left:
            return b""
        piece = self.left.popleft()
        if 0 <= size < len(piece):
            self.left.appendleft(piece[size:])
            piece = piece[:size]
        return piece


def begin(payload, stop: int, size: int) -> bytes:
    """Send up to ``stop`` chunks, then stop in the middle."""
    if hasattr(payload, "read"):
        return b"".join(payload.read(size) for _ in range(stop))
    chunks = iter(payload)
    return b"".join(bytes(next(chunks, b"")) for _ in range(stop))


bodies = st.lists(st.binary(max_size=60) | st.text(max_size=20), max_size=12)
shapes = st.sampled_from(
    [Iterables.generator, Iterables.endless_looking, Iterables.reused_buffer, Pieces]
)
small = st.integers(0, 200)


def joined(pieces) -> bytes:
    return b"".join(p.encode() if isinstance(p, str) else p for p in pieces)


@given(bodies, shapes, st.lists(st.tuples(st.integers(0, 8), st.integers(1, 40))), small, small)
def test_the_last_full_sending_is_the_whole_body(pieces, shape, stops, memory, block):
    whole = joined(pieces)
    with mock.patch.multiple(recorder, MEMORY=memory, BLOCK=block + 1):
        prepared = prepare(shape(pieces), limit=LIMIT)
        for stop, size in stops:
            assert whole.startswith(begin(prepared.payload, stop, size))
            prepared.rewind()
        assert sent(prepared.payload) == whole
        prepared.rewind()
        assert sent(prepared.payload) == whole
        prepared.close()


@given(bodies, shapes, st.lists(st.integers(0, 8)), small)
def test_beyond_the_limit_no_incomplete_body_is_sent(pieces, shape, stops, limit):
    whole = joined(pieces)
    prepared = prepare(shape(pieces), limit=limit + 1)
    for stop in stops:
        start = begin(prepared.payload, stop, 40)
        try:
            prepared.rewind()
        except NotReplayable:
            assert start + sent(prepared.payload) == whole
            return
    assert sent(prepared.payload) == whole
    if len(whole) > limit + 1:
        with pytest.raises(NotReplayable, match="longer than"):
            prepared.rewind()
    prepared.close()


def attempt(payload, stop: int) -> tuple[bytes, Exception | None]:
    """Send up to ``stop`` chunks; return what was sent, and the error that ended it."""
    chunks = iter(lambda: payload.read(7), b"") if hasattr(payload, "read") else iter(payload)
    received = b""
    try:
        for chunk in islice(chunks, stop):
            received += chunk
    except OSError as raised:
        return received, raised
    return received, None


@given(bodies, st.sampled_from(["iterable", "reader"]), st.lists(st.integers(0, 8)))
def test_an_error_of_the_source_is_raised_again_at_the_same_position(pieces, shape, stops):
    error = OSError("the source broke")

    def broken():
        yield from pieces
        raise error

    class Broken(Pieces):
        def read(self, size: int = -1) -> bytes | str:
            if not self.left and not self.raised:
                self.raised = True  # afterwards it looks exhausted, like a generator
                raise error
            return super().read(size)

        raised = False

    prepared = prepare(Broken(pieces) if shape == "reader" else broken(), limit=LIMIT)
    for stop in (*stops, 1000, 1000):
        received, raised = attempt(prepared.payload, stop)
        assert joined(pieces).startswith(received)
        if stop == 1000 or raised:
            assert (received, raised) == (joined(pieces), error)
        prepared.rewind()
    prepared.close()


def test_an_end_stays_the_end():
    class Growing(Pieces):
        pass

    source = Growing([b"all there was"])
    prepared = prepare(source, limit=LIMIT)
    assert sent(prepared.payload) == b"all there was"
    source.left.append(b" and more")
    prepared.rewind()
    assert sent(prepared.payload) == b"all there was"


def test_the_source_is_not_read_ahead():
    drawn = []

    def source():
        for chunk in (b"one", b"two", b"three"):
            drawn.append(chunk)
            yield chunk

    class Lazy:
        def __iter__(self):
            drawn.append("begun")
            return source()

    prepared = prepare(Lazy(), limit=LIMIT)
    chunks = iter(prepared.payload)
    assert drawn == []
    assert next(chunks) == b"one"
    assert drawn == ["begun", b"one"]
    prepared.rewind()
    chunks = iter(prepared.payload)
    assert next(chunks) == b"one"
    assert drawn == ["begun", b"one"]
    assert next(chunks) == b"two"
    assert drawn == ["begun", b"one", b"two"]


def test_chunks_of_the_source_are_preserved():
    pieces = [b"one", b"two", bytes(100_000)]
    assert list(prepare(iter(pieces), limit=LIMIT).payload) == pieces


def test_a_generator_is_left_open_for_its_owner():
    source = chunks_of(BIG)
    prepared = prepare(source, limit=LIMIT)
    chunk = next(iter(prepared.payload))
    prepared.close()
    del prepared
    gc.collect()
    assert chunk + b"".join(source) == BIG


def test_an_iterable_stays_an_iterable_and_a_reader_a_reader():
    assert not hasattr(prepare(iter([b"x"]), limit=LIMIT).payload, "read")
    reader = prepare(Reader(b"abcdef"), limit=LIMIT).payload
    assert (reader.read(0), reader.read(2), reader.read(), reader.read()) == (
        b"",
        b"ab",
        b"cdef",
        b"",
    )


def test_a_length_is_kept_where_there_was_one():
    class Encoder(Reader):
        len = 4

    class Sized(Reader):
        def __len__(self):
            return 4

    class SizedChunks:
        def __len__(self):
            return 4

        def __iter__(self):
            yield b"body"

    def wrapped(body):
        return prepare(body, limit=LIMIT).payload

    assert wrapped(Encoder(b"body")).len == 4
    assert len(wrapped(Sized(b"body"))) == len(wrapped(SizedChunks())) == 4
    for body in (Encoder(b"body"), Sized(b"body"), SizedChunks()):
        assert requests.utils.super_len(wrapped(body)) == 4
    for body in (Reader(b"body"), iter([b"body"])):
        assert not hasattr(wrapped(body), "len")
        assert not hasattr(wrapped(body), "__len__")
        assert requests.utils.super_len(wrapped(body)) == 0


def test_with_limit_0_a_body_is_not_wrapped():
    source = chunks_of(BIG)
    prepared = prepare(source, limit=0)
    assert prepared.payload is source
    assert prepared.one_shot
    with pytest.raises(NotReplayable, match="turned off"):
        prepared.rewind()
    prepared.close()


def test_a_body_that_cannot_be_sent_fails_as_without_us():
    with pytest.raises(TypeError):
        sent(prepare(5, limit=LIMIT).payload)
    with pytest.raises(TypeError):
        sent(prepare(iter([5.0]), limit=LIMIT).payload)


def open_files() -> int:
    gc.collect()
    return len([*Path("/proc/self/fd").iterdir()])


def test_a_recording_is_freed_at_the_limit_and_when_closed():
    before = open_files()
    prepared = prepare(chunks_of(BIG), limit=len(BIG))
    assert sent(prepared.payload) == BIG
    assert open_files() == before + 1  # the anonymous temporary file
    prepared.close()
    assert open_files() == before

    prepared = prepare(chunks_of(BIG, 500_000), limit=3_000_000)
    chunks = iter(prepared.payload)
    while open_files() == before:
        next(chunks)
    while open_files() > before:
        next(chunks)
    for back in (prepared.rewind, prepared.payload.tell):
        with pytest.raises(NotReplayable, match="3000000 bytes"):
            back()
    prepared.close()


def test_replays_leak_no_descriptors():
    before = open_files()
    for _ in range(50):
        prepared = prepare(chunks_of(BIG), limit=LIMIT)
        for _ in range(2):
            begin(prepared.payload, 30, 1)
            prepared.rewind()
        prepared.close()
    assert open_files() == before


def test_a_body_that_cannot_be_recorded_is_sent_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    prepared = prepare(chunks_of(BIG), limit=LIMIT)
    assert sent(prepared.payload) == BIG
    with pytest.raises(NotReplayable, match="could not be recorded"):
        prepared.rewind()
    prepared.close()


def test_a_full_disk_is_reported_at_the_rewind_at_the_latest(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "w+b"))
    monkeypatch.setattr(recorder, "MEMORY", 10)
    prepared = prepare(iter([b"a few bytes, fewer than are flushed"]), limit=LIMIT)
    assert sent(prepared.payload) == b"a few bytes, fewer than are flushed"
    with pytest.raises(NotReplayable):
        prepared.rewind()
    prepared.close()


def test_a_recorder_seeks_only_backwards():
    payload = prepare(iter([b"abc", b"def"]), limit=LIMIT).payload
    next(iter(payload))
    assert payload.tell() == 3
    for wrong in [(4,), (-1,), (0, os.SEEK_END)]:
        with pytest.raises(io.UnsupportedOperation):
            payload.seek(*wrong)
    assert payload.seek(1) == 1
    assert sent(payload) == b"bcdef"


# --- On the wire


class Uploads:
    """Takes uploads, and answers each as its script says.

    ``early``: 401 after a first part of the body, and close.  ``late``: 401 after all of it.
    ``reset``: no answer at all.  ``take``: 200.
    """

    def __init__(self, *script: str) -> None:
        self.script = deque(script)
        self.received: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                while file.readline() and self.answer(connection, file, self.script.popleft()):
                    pass

    def answer(self, connection: socket.socket, file: io.BufferedReader, what: str) -> bool:
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        body = self.body(file, headers)
        if what in ("early", "reset"):
            next(body)
            if what == "early":
                connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
            return False
        digest = hashlib.sha256()
        for part in body:
            digest.update(part)
        self.received.append(digest.hexdigest())
        status = b"401 No" if what == "late" else b"200 Yes"
        connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        return True

    @staticmethod
    def body(file, headers):
        if b"content-length" in headers:
            left = int(headers[b"content-length"])
            while left:
                part = file.read(min(left, 10_000))
                left -= len(part)
                yield part
            return
        while size := int(file.readline(), 16):
            yield file.read(size)
            file.readline()
        file.readline()


def request_of(url: str, body, length: int | None = None) -> requests.PreparedRequest:
    request = requests.Request("PUT", url).prepare()
    request.body = body
    del request.headers["Content-Length"]
    if length is not None:
        request.headers["Content-Length"] = str(length)
    return request


def send_until_taken(adapter: HTTPAdapter, request: requests.PreparedRequest, limit: int) -> int:
    body = prepare(request.body, limit=limit)
    copy = request.copy()
    copy.body = body.payload
    response = adapter.send(copy)
    replays = 0
    while response.status_code == 401:
        response.close()
        body.rewind()
        response = adapter.send(copy)
        replays += 1
    body.close()
    response.close()
    return replays


def raw_response(data: bytes) -> urllib3.HTTPResponse:
    return urllib3.HTTPResponse(pipe_of(data), preload_content=False)


def socket_file(data: bytes) -> io.BufferedReader:
    here, there = socket.socketpair()

    def fill() -> None:
        with there, suppress(BrokenPipeError):
            there.sendall(data)

    threading.Thread(target=fill, daemon=True).start()
    with here:
        return here.makefile("rb")


TEXT = "zwölf Boxkämpfer\n" * 200_000

KINDS = {
    "bytes": (lambda: BIG, BIG),
    "str": (lambda: TEXT, TEXT.encode()),
    "parts": (lambda: [BIG, "ä", BIG], BIG + "ä".encode() + BIG),
    "memory file": (lambda: io.BytesIO(BIG), BIG),
    "generator": (lambda: chunks_of(BIG), BIG),
    "generator of text": (lambda: iter([TEXT]), TEXT.encode()),
    "pipe": (lambda: pipe_of(BIG), BIG),
    "pipe of text": (
        lambda: io.TextIOWrapper(pipe_of(TEXT.encode()), encoding="utf-8"),
        TEXT.encode(),
    ),
    "socket": (lambda: socket_file(BIG), BIG),
    "raw response": (lambda: raw_response(BIG), BIG),
    "reader": (lambda: Reader(BIG), BIG),
    "reader of text": (lambda: Reader(TEXT), TEXT.encode()),
}


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_upload_is_replayed_in_full(kind, length):
    make, whole = KINDS[kind]
    body = make()
    with Uploads("early", "late", "early", "take") as server, closing(HTTPAdapter()) as adapter:
        request = request_of(server.url, body, len(whole) if length else None)
        assert send_until_taken(adapter, request, LIMIT) == 3
    assert server.received == [hashlib.sha256(whole).hexdigest()] * 2
    if hasattr(body, "close"):
        body.close()


def test_retries_of_urllib3_send_the_whole_body_too():
    retrying = HTTPAdapter(max_retries=Retry(3, allowed_methods=None))
    with Uploads("reset", "reset", "take") as server, closing(retrying) as adapter:
        assert send_until_taken(adapter, request_of(server.url, chunks_of(BIG)), LIMIT) == 0
    assert server.received == [hashlib.sha256(BIG).hexdigest()]


def test_retries_of_urllib3_send_no_incomplete_body_beyond_the_limit():
    retrying = HTTPAdapter(max_retries=Retry(3, allowed_methods=None))
    with Uploads("reset", "take") as server, closing(retrying) as adapter:
        request = request_of(server.url, chunks_of(BIG))
        with pytest.raises(UnrewindableBodyError) as caught:
            send_until_taken(adapter, request, 40_000)
    assert isinstance(caught.value.__cause__, NotReplayable)
    assert server.received == []


def test_a_refused_upload_beyond_the_limit_is_not_replayed():
    with Uploads("late", "take") as server, closing(HTTPAdapter()) as adapter:
        with pytest.raises(NotReplayable):
            send_until_taken(adapter, request_of(server.url, chunks_of(BIG)), len(BIG) - 1)
        assert list(server.script) == ["take"]
