"""Whether the body of a request can be sent again, and how.

A request whose token turned out dead is sent again whole, or not at all.

* ``None``, bytes and other buffers, ``str``, and lists or tuples of parts repeat as they are.
* A body whose ``seekable()`` is true is rewound to where it stood.  A file must have kept its size:
  the ``Content-Length`` stands, and more or fewer bytes would not be the request that was refused.
* Everything else (generators, pipes, sockets, encoders) is *recorded while it is sent*.  That an
  iterable gives a new iterator proves nothing: raw responses and generator classes do, and are
  empty the second time.

A recording reaches as far as the sending did: after an early answer most of the source is still
undrawn, and a replay sends what was recorded, then what is left.  It is held in memory, then in an
anonymous temporary file, up to a limit; past that, or if the recording fails, it is dropped and the
sending goes on without it.  A recorder has the shape of its source: one that is read stays a
reader, and an iterable stays an iterable, which keeps its chunks and their timing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO, UnsupportedOperation
from typing import IO, TYPE_CHECKING, Any

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import tempfile
else:
    tempfile = late("tempfile")

__all__ = ["AsyncRecorder", "Body", "NotReplayable", "Recorder", "prepare", "record", "recorded"]


class Body:
    """The body of one request, and the way back to where it stood.

    :ivar payload: what to send: the body itself, or a recorder of the same shape around it.  It is
        good for any number of sendings, each after the first preceded by :meth:`rewind`.
    :ivar one_shot: whether the body can be drawn but once, so that a replay depends on how much of
        it can be recorded.
    """

    __slots__ = ("_close", "_rewind", "one_shot", "payload")

    def __init__(
        self,
        payload: Any,
        *,
        one_shot: bool = False,
        rewind: Callable[[], object] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self.payload: Any = payload
        self.one_shot: bool = one_shot
        self._rewind = rewind
        self._close = close

    def rewind(self) -> None:
        """Bring :attr:`payload` back to where the body stood.

        :raises NotReplayable: if that is not possible; nothing less must be sent then.
        """
        try:
            if self._rewind is not None:
                self._rewind()
        except NotReplayable:
            raise
        except (OSError, ValueError) as error:  # ValueError: the file has been closed
            raise NotReplayable(f"the body cannot be rewound: {error}") from error

    def close(self) -> None:
        """Free what was recorded: neither a replay nor a retry comes any more.

        The body itself is left as it is; it belongs to the caller.
        """
        if self._close is not None:
            self._close()


def prepare(body: Any, *, limit: int) -> Body:
    """Make a request's body ready to be sent more than once.

    :param body: what urllib3 takes for one: ``None``, a buffer, a ``str``, an object with
        ``read``, or an iterable of ``str`` and buffers.  It must stand where its sending begins.
    :param limit: how many bytes of a one-shot body are recorded at most.  With 0 it is handed on
        unwrapped and cannot be replayed.
    """
    if body is None or isinstance(body, (str, list, tuple)) or _is_buffer(body):
        return Body(body)
    start = _position(body)
    if start is not None:
        return Body(body, rewind=partial(_go_back, body, start, _file_size(body)))
    return recorded(body, record, limit)


def recorded(body: Any, record: Callable[[Any, int], Recorder], limit: int) -> Body:
    """A body that can be drawn but once, recorded by *record*; unless the limit is 0."""
    if limit <= 0:
        return Body(body, one_shot=True, rewind=_refuse)
    recorder = record(body, limit)
    return Body(recorder, one_shot=True, rewind=partial(recorder.seek, 0), close=recorder.close)


def _is_buffer(body: Any) -> bool:
    # urllib3 asks for "read" first: a mapped file, which is both, is drawn like a file.
    if hasattr(body, "read"):
        return False
    try:
        memoryview(body).release()
    except TypeError:
        return False
    return True


def _position(body: Any) -> int | None:
    """Where a seekable body stands; ``None`` if it is not seekable or cannot tell."""
    try:
        position: int | None = body.tell() if body.seekable() else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return position


def _file_size(body: Any) -> int | None:
    """The size in bytes of the file behind a body; ``None`` if there is none."""
    try:
        return os.fstat(body.fileno()).st_size
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _go_back(body: Any, start: int, size: int | None) -> None:
    body.seek(start)
    if _file_size(body) != size:
        raise NotReplayable("the file changed its size while it was sent")


def _refuse() -> None:
    raise NotReplayable("the body can be drawn but once, and recording is turned off")


BLOCK = 65536
"""Bytes of a recording that are read at a time."""

MEMORY = 1024 * 1024
"""Bytes of a recording that are held in memory before it moves to a file."""


class NotReplayable(OSError):
    """The body cannot be sent again as it was.

    It is an :class:`OSError` because urllib3 takes only that for a failed ``tell`` or ``seek``: its
    own retries then end in an :class:`~urllib3.exceptions.UnrewindableBodyError`, with this one as
    the cause, instead of sending less.

    :ivar reason: why, as a clause: "the file changed its size while it was sent".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def record(source: Any, limit: int) -> Recorder:
    """Wrap a body that can be drawn but once.

    :param source: an object with ``read``, or an iterable of ``str`` and buffers.
    :param limit: how many bytes are recorded at most.
    """
    sized = hasattr(source, "__len__")
    if hasattr(source, "read"):
        return (_SizedReader if sized else _Reader)(source, limit)
    return (_SizedRecorder if sized else Recorder)(source, limit)


class Recorder:
    """An iterable body that keeps what it yields, so that it can yield it again.

    Where it stands is where its recording stands; at the end of that it draws from the source,
    never further than asked.  How the source ended is kept as well: an end stays the end, and an
    error is raised again at its place, where the source itself would now look exhausted.
    """

    def __init__(self, source: Any, limit: int) -> None:
        self._source = source
        self._chunks = _chunks(source)
        self._limit = limit
        self._kept: IO[bytes] | None = BytesIO()
        self._size = 0
        self._at = 0
        self._lost = ""
        self._ended = False
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        while chunk := self._next(BLOCK):
            yield chunk

    def tell(self) -> int:
        if self._kept is None:
            raise NotReplayable(self._lost)
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._kept is None:
            raise NotReplayable(self._lost)
        # Whoever sends bodies only ever goes back to where it was.
        if whence != os.SEEK_SET or not 0 <= offset <= self._size:
            raise UnsupportedOperation("a recorded body can only be rewound")
        self._kept.seek(offset)
        self._at = offset
        return offset

    def close(self) -> None:
        self._give_up("the recording has been closed")
        self._failure = None  # whose traceback leads back here

    @property
    def len(self) -> Any:
        """The length as encoders tell it; an ``AttributeError`` where the source has none."""
        return self._source.len

    def _next(self, size: int) -> Any:
        known = self._known(size)
        if known is not None:
            return known
        try:
            return self._took(self._draw(size))
        except BaseException as failure:
            self._failure = failure
            raise

    def _known(self, size: int) -> Any:
        """What is known without drawing: recorded bytes, or the end; ``None`` if nothing is."""
        if self._kept is not None and self._at < self._size:
            again = self._kept.read(size)
            self._at += len(again)
            return again
        if self._failure is not None:
            raise self._failure
        return b"" if self._ended else None

    def _took(self, data: Any) -> Any:
        """Record what was drawn, and return it as bytes."""
        data = data or b""
        if isinstance(data, str):
            data = data.encode()  # as urllib3 does
        self._keep(data)
        self._ended = not data
        return data

    def _draw(self, _size: int) -> Any:
        return next(self._chunks, b"")

    def _keep(self, data: Any) -> None:
        if self._kept is None:
            return
        try:
            size = self._size + memoryview(data).nbytes
            if size > self._limit:
                self._give_up(f"the body is longer than the {self._limit} bytes that are recorded")
                return
            if size > MEMORY:
                self._move_to_disk()
            self._kept.write(data)
            self._at = self._size = size
        except (OSError, TypeError) as error:
            # No room on the disk, or a chunk that is no buffer: the sending goes on without us.
            self._give_up(f"the body could not be recorded: {error}")

    def _move_to_disk(self) -> None:
        memory = self._kept
        if isinstance(memory, BytesIO):
            self._kept = tempfile.TemporaryFile()
            self._kept.write(memory.getbuffer())

    def _give_up(self, reason: str) -> None:
        if self._kept is not None:
            with suppress(OSError):  # a full disk, told once more by the last flush
                self._kept.close()
            self._kept = None
            self._lost = reason


class AsyncRecorder(Recorder):
    """The same for an asynchronous iterable."""

    def __init__(self, source: AsyncIterable[Any], limit: int) -> None:
        super().__init__(source, limit)
        self._parts: AsyncIterator[Any] | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        while chunk := await self._anext():
            yield chunk

    async def _anext(self) -> Any:
        known = self._known(BLOCK)
        if known is not None:
            return known
        if self._parts is None:
            self._parts = aiter(self._source)
        try:
            while not (chunk := await anext(self._parts, None)) and chunk is not None:
                pass  # as _chunks() skips what is empty
            return self._took(chunk)
        except BaseException as failure:
            self._failure = failure
            raise


class _Reader(Recorder):
    """The same for a body with ``read``; text comes out as the UTF-8 that urllib3 would send."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(self)
        data: bytes = self._next(size) if size else b""
        return data

    def _draw(self, size: int) -> Any:
        return self._source.read(size)


class _Sized:
    """For sources with ``__len__``, so that those who ask a body for its length still get it."""

    _source: Any

    def __len__(self) -> int:
        return len(self._source)


class _SizedRecorder(_Sized, Recorder):
    pass


class _SizedReader(_Sized, _Reader):
    pass


def _chunks(source: Any) -> Iterator[Any]:
    # A generator, so that iterating begins with the sending; and not "yield from", which would
    # close the caller's generator with ours.  urllib3 skips empty chunks too.
    for chunk in source:
        if chunk:
            yield chunk
