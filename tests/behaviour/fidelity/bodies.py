"""Every kind of request body, with the bytes that must arrive."""

from __future__ import annotations

import io
import mmap
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import urllib3
from requests_toolbelt import MultipartEncoder, MultipartEncoderMonitor, StreamingIterator

# Several blocks of urllib3 (16 KiB), and less than a pipe holds (64 KiB): no writer has to wait.
DATA = bytes(range(256)) * 196
ASCII = "a line of text\n" * 3000
TEXT = "zwölf Boxkämpfer\n" * 2500
SKIPPED = b"skipped"
# More than a recording holds in memory.
LARGE = DATA * 24


class Place:
    """Where bodies are made; what has to be closed is closed when it is left."""

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        self.path = folder / "body"

    def file(self, data: bytes, mode: str = "rb", start: int = 0) -> IO[Any]:
        """An open file with that content, standing at *start*."""
        self.path.write_bytes(data)
        file = self.path.open(mode, encoding=None if "b" in mode else "utf-8")
        file.seek(start)
        return self.stack.enter_context(file)


class Given(NamedTuple):
    """The keyword arguments of a request, and the body that must arrive.

    ``None``: that which requests makes of the arguments, once and for all.
    """

    kwargs: Mapping[str, Any]
    whole: bytes | None = None


class Kind(NamedTuple):
    make: Callable[[Place], Given]
    settings: Mapping[str, Any] = {}
    """Those of the adapter."""
    repeats: bool = True
    """Whether it can be sent again."""


def data(body: Any, whole: bytes, **headers: str) -> Given:
    return Given({"data": body, "headers": headers}, whole)


class Reader:
    """``read``, and nothing else."""

    def __init__(self, content: bytes | str) -> None:
        self.file: IO[Any] = (
            io.StringIO(content) if isinstance(content, str) else io.BytesIO(content)
        )

    def read(self, size: int = -1) -> Any:
        return self.file.read(size)


class ReaderWithLen(Reader):
    def __len__(self) -> int:
        return len(DATA)


class ReaderWithLength(Reader):
    len = len(DATA)


class Chunks:
    """Gives a new iterator each time, all of them of the same chunks."""

    def __iter__(self) -> Iterator[bytes]:
        return chunks(DATA)


class SizedChunks(Chunks):
    def __len__(self) -> int:
        return len(DATA)


class OnceOnly:
    """Looks as if it could be iterated again, and is empty then."""

    def __init__(self) -> None:
        self.left = [*chunks(DATA)]

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            yield self.left.pop(0)


class Changing(io.FileIO):
    """A file that another process extends or truncates once it has been read to its end."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        self.new_size = size

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(-1 if size is None else size)
        if not piece:
            os.truncate(self.name, self.new_size)
        return piece


def chunks(whole: bytes, size: int = 10_000) -> Iterator[bytes]:
    return (whole[i : i + size] for i in range(0, len(whole), size))


def mapped(place: Place) -> mmap.mmap:
    file = place.file(SKIPPED + DATA)
    body = place.stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    body.seek(len(SKIPPED))
    return body


def pipe(place: Place, content: bytes, mode: str = "rb") -> IO[Any]:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(content)
    encoding = None if "b" in mode else "utf-8"
    return place.stack.enter_context(os.fdopen(reading, mode, encoding=encoding))


def socket_file(place: Place) -> IO[bytes]:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(DATA)
        return place.stack.enter_context(here.makefile("rb"))


def spooled(place: Place) -> IO[bytes]:
    file = tempfile.SpooledTemporaryFile(max_size=1)  # noqa: SIM115
    place.stack.push(file)
    file.write(SKIPPED + DATA)
    file.seek(len(SKIPPED))
    return file


def zip_member(place: Place) -> IO[bytes]:
    with zipfile.ZipFile(place.path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", DATA)
    opened = place.stack.enter_context(zipfile.ZipFile(place.path))
    return place.stack.enter_context(opened.open("member"))


def answer_of_another_request() -> urllib3.HTTPResponse:
    return urllib3.HTTPResponse(io.BytesIO(DATA), preload_content=False)


def changing(place: Place, size: int) -> Changing:
    place.path.write_bytes(DATA)
    return place.stack.enter_context(Changing(place.path, size))


def encoded(place: Place, wrap: Callable[[Any], Any] = lambda encoder: encoder) -> Given:
    def encoder() -> MultipartEncoder:
        file = place.file(DATA)
        return MultipartEncoder({"field": "zwölf", "file": ("ä.bin", file, "a/b")}, "boundary")

    return data(wrap(encoder()), encoder().to_string(), **{"Content-Type": encoder().content_type})


PAIRS = {"name": "zwölf", "several": ["1", "2"], "data": "x" * 20_000}

KINDS = {
    "none": Kind(lambda place: Given({}, b"")),
    "empty bytes": Kind(lambda place: data(b"", b"")),
    "bytes": Kind(lambda place: data(DATA, DATA)),
    "bytearray": Kind(lambda place: data(bytearray(DATA), DATA)),
    "memoryview": Kind(lambda place: data(memoryview(DATA), DATA)),
    "str": Kind(lambda place: data(TEXT, TEXT.encode())),
    "form": Kind(lambda place: Given({"data": PAIRS})),
    "form of pairs": Kind(lambda place: Given({"data": [("a", "1"), ("a", "2")]})),
    "JSON": Kind(lambda place: Given({"json": PAIRS})),
    "multipart bytes": Kind(lambda place: Given({"files": {"f": DATA}, "data": {"a": "1"}})),
    "multipart file": Kind(
        lambda place: Given({"files": [("f", ("ä.bin", place.file(DATA), "a/b", {"X": "y"}))]})
    ),
    "multipart file from an offset": Kind(
        lambda place: Given({"files": {"f": place.file(DATA, start=1000)}})
    ),
    "file": Kind(lambda place: data(place.file(DATA), DATA)),
    "file from an offset": Kind(
        lambda place: data(place.file(SKIPPED + DATA, start=len(SKIPPED)), DATA)
    ),
    "empty file": Kind(lambda place: data(place.file(b""), b"")),
    "unbuffered file": Kind(
        lambda place: data(changing(place, len(DATA)), DATA),
    ),
    "text file": Kind(lambda place: data(place.file(TEXT.encode(), "r"), TEXT.encode())),
    "mapped file": Kind(lambda place: data(mapped(place), DATA)),
    "spooled file": Kind(lambda place: data(spooled(place), DATA)),
    "zip member": Kind(lambda place: data(zip_member(place), DATA)),
    "BytesIO": Kind(lambda place: data(io.BytesIO(DATA), DATA)),
    "BytesIO from an offset": Kind(
        lambda place: data((b := io.BytesIO(SKIPPED + DATA), b.seek(len(SKIPPED)))[0], DATA)
    ),
    "empty BytesIO": Kind(lambda place: data(io.BytesIO(), b"")),
    "StringIO": Kind(lambda place: data(io.StringIO(ASCII), ASCII.encode())),
    "re-iterable": Kind(lambda place: data(Chunks(), DATA)),
    "re-iterable with a length": Kind(lambda place: data(SizedChunks(), DATA)),
    "re-iterable by its looks": Kind(lambda place: data(OnceOnly(), DATA)),
    "generator": Kind(lambda place: data(chunks(DATA), DATA)),
    "generator of text": Kind(lambda place: data(iter([TEXT, "ä"]), f"{TEXT}ä".encode())),
    "generator with gaps": Kind(lambda place: data(iter([b"", b"a", b"", DATA]), b"a" + DATA)),
    "empty generator": Kind(lambda place: data(iter([]), b"")),
    "large generator": Kind(lambda place: data(chunks(LARGE, 100_000), LARGE)),
    "pipe": Kind(lambda place: data(pipe(place, DATA), DATA)),
    "pipe of text": Kind(lambda place: data(pipe(place, TEXT.encode(), "r"), TEXT.encode())),
    "socket": Kind(lambda place: data(socket_file(place), DATA)),
    "answer of another request": Kind(lambda place: data(answer_of_another_request(), DATA)),
    "reader": Kind(lambda place: data(Reader(DATA), DATA)),
    "reader of text": Kind(lambda place: data(Reader(TEXT), TEXT.encode())),
    "reader with __len__": Kind(lambda place: data(ReaderWithLen(DATA), DATA)),
    "reader with len": Kind(lambda place: data(ReaderWithLength(DATA), DATA)),
    "streaming iterator": Kind(
        lambda place: data(StreamingIterator(len(DATA), chunks(DATA)), DATA)
    ),
    "multipart encoder": Kind(encoded),
    "multipart monitor": Kind(lambda place: encoded(place, MultipartEncoderMonitor)),
    "file that grows": Kind(
        lambda place: data(changing(place, len(DATA) + 1), DATA), repeats=False
    ),
    "file that shrinks": Kind(
        lambda place: data(changing(place, len(DATA) - 1), DATA), repeats=False
    ),
    "generator past the limit": Kind(
        lambda place: data(chunks(DATA), DATA), {"replay_limit": len(DATA) - 1}, repeats=False
    ),
    "generator up to the limit": Kind(
        lambda place: data(chunks(DATA), DATA), {"replay_limit": len(DATA)}
    ),
    "generator, not recorded": Kind(
        lambda place: data(chunks(DATA), DATA), {"replay_limit": 0}, repeats=False
    ),
    "file, nothing recorded": Kind(lambda place: data(place.file(DATA), DATA), {"replay_limit": 0}),
}
