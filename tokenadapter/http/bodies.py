"""Make the body of a request replayable, if possible.

A request whose token was refused is replayed in full, or not at all.

* ``None``, bytes and other buffers, ``str``, and lists or tuples of parts can be sent again as they
  are.
* A body whose ``seekable()`` is true is rewound to its start position.  A file must not have
  changed its size: the ``Content-Length`` is fixed, and other content would be a different request.
* Everything else (generators, pipes, sockets, encoders) is *recorded while it is sent*.  A new
  iterator from an iterable proves nothing: raw responses and generator classes return one, and it
  is empty the second time.

A recording contains only what was sent.  After an early response most of the source is still
unread, and a replay sends the recording, then the rest of the source.  A recording is kept in
memory, then in an anonymous temporary file, up to a limit.  Beyond the limit, or if recording
fails, the recording is dropped and the request continues without it.  A recorder has the type of
interface of its source: a reader stays a reader, and an iterable stays an iterable, with the same
chunks at the same times.
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

__all__ = [
    "AsyncRecorder",
    "Body",
    "NotReplayable",
    "Recorder",
    "prepare",
    "record",
    "recorded",
    "rewound",
]


class Body:
    """The body of one request, which can be rewound.

    :ivar payload: what to send: the body itself, or a recorder around it.  It can be sent any
        number of times, after a :meth:`rewind` each time but the first.
    :ivar one_shot: whether the body can be read only once, so that a replay depends on how much of
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
        """Set :attr:`payload` back to the start position of the body.

        :raises NotReplayable: if that is not possible.  Then the request must not be sent again.
        """
        try:
            if self._rewind is not None:
                self._rewind()
        except NotReplayable:
            raise
        except (OSError, ValueError) as error:  # ValueError: the file has been closed
            raise NotReplayable(f"the body cannot be rewound: {error}") from error

    def close(self) -> None:
        """Drop the recording, because no replay or retry will follow.

        The body itself belongs to the caller and is not closed.
        """
        if self._close is not None:
            self._close()


def prepare(body: Any, *, limit: int) -> Body:
    """Prepare the body of a request to be sent more than once.

    :param body: anything that urllib3 accepts: ``None``, a buffer, a ``str``, an object with
        ``read``, or an iterable of ``str`` and buffers.  It must be at the position where sending
        begins.
    :param limit: how many bytes of a one-shot body are recorded at most.  With 0 the body is passed
        on unchanged and cannot be replayed.
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


def rewound(body: Body | None) -> str | None:
    """Make *body* ready to be sent again.

    :returns: why that is impossible, if it is.
    """
    try:
        if body is not None:
            body.rewind()
    except NotReplayable as error:
        return f"{error}"
    return None


def _is_buffer(body: Any) -> bool:
    # urllib3 checks for "read" first: a mapped file, which is both, is read like a file.
    if hasattr(body, "read"):
        return False
    try:
        memoryview(body).release()
    except TypeError:
        return False
    return True


def _position(body: Any) -> int | None:
    """The position of a seekable body; ``None`` if it is not seekable or has no position."""
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
        raise NotReplayable("the size of the file changed while it was sent")


def _refuse() -> None:
    raise NotReplayable("the body can be read only once, and recording is turned off")


BLOCK = 65536
"""Bytes of a recording that are read at a time."""

MEMORY = 1024 * 1024
"""Bytes of a recording that are kept in memory before it moves to a file."""


class NotReplayable(OSError):
    """The body cannot be sent again in full.

    This is an :class:`OSError` because urllib3 expects that from a failed ``tell`` or ``seek``.
    Its own retries then raise :class:`~urllib3.exceptions.UnrewindableBodyError`, with this error
    as the cause, instead of sending an incomplete body.

    :ivar reason: the reason as a clause: "the size of the file changed while it was sent".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def record(source: Any, limit: int) -> Recorder:
    """Wrap a body that can be read only once.

    :param source: an object with ``read``, or an iterable of ``str`` and buffers.
    :param limit: how many bytes are recorded at most.
    """
    sized = hasattr(source, "__len__")
    if hasattr(source, "read"):
        return (_SizedReader if sized else _Reader)(source, limit)
    return (_SizedRecorder if sized else Recorder)(source, limit)


class Recorder:
    """An iterable body that records what it yields, so that it can yield the same again.

    Its position is that of its recording.  At the end of the recording it reads from the source, no
    more than requested.  The end of the source is recorded as well: an end stays the end, and an
    error is raised again at the same position, where the source itself would now look exhausted.
    """

    def __init__(self, source: Any, limit: int) -> None:
        self._source = source
        self._chunks = _chunks(source)
        self._limit = limit
        self._recording: IO[bytes] | None = BytesIO()
        self._size = 0
        self._position = 0
        self._drop_reason = ""
        self._ended = False
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        while chunk := self._next(BLOCK):
            yield chunk

    def tell(self) -> int:
        if self._recording is None:
            raise NotReplayable(self._drop_reason)
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._recording is None:
            raise NotReplayable(self._drop_reason)
        # The code that sends bodies only ever returns to an earlier position.
        if whence != os.SEEK_SET or not 0 <= offset <= self._size:
            raise UnsupportedOperation("a recorded body can only be rewound")
        self._recording.seek(offset)
        self._position = offset
        return offset

    def close(self) -> None:
        self._drop("the recording has been closed")
        self._failure = None  # its traceback refers to this recorder

    @property
    def len(self) -> Any:
        """The length as encoders report it; an ``AttributeError`` if the source has none."""
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
        if self._recording is not None and self._position < self._size:
            again = self._recording.read(size)
            self._position += len(again)
            return again
        if self._failure is not None:
            raise self._failure
        return b"" if self._ended else None

    def _took(self, data: Any) -> Any:
        """Record what was drawn, and return it as bytes."""
        data = data or b""
        if isinstance(data, str):
            data = data.encode()  # as urllib3 does
        self._record(data)
        self._ended = not data
        return data

    def _draw(self, _size: int) -> Any:
        return next(self._chunks, b"")

    def _record(self, data: Any) -> None:
        if self._recording is None:
            return
        try:
            size = self._size + memoryview(data).nbytes
            if size > self._limit:
                self._drop(f"the body is longer than the replay limit of {self._limit} bytes")
                return
            if size > MEMORY:
                self._move_to_disk()
            self._recording.write(data)
            self._position = self._size = size
        except (OSError, TypeError) as error:
            # The disk is full, or a chunk is not a buffer: send without recording.
            self._drop(f"the body could not be recorded: {error}")

    def _move_to_disk(self) -> None:
        memory = self._recording
        if isinstance(memory, BytesIO):
            self._recording = tempfile.TemporaryFile()
            self._recording.write(memory.getbuffer())

    def _drop(self, reason: str) -> None:
        if self._recording is not None:
            with suppress(OSError):  # a full disk, reported again by the last flush
                self._recording.close()
            self._recording = None
            self._drop_reason = reason


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
    """A recorder with ``read``.  Text becomes UTF-8, as urllib3 would send it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(self)
        data: bytes = self._next(size) if size else b""
        return data

    def _draw(self, size: int) -> Any:
        return self._source.read(size)


class _Sized:
    """For sources with ``__len__``, so that the length of the body stays available."""

    _source: Any

    def __len__(self) -> int:
        return len(self._source)


class _SizedRecorder(_Sized, Recorder):
    pass


class _SizedReader(_Sized, _Reader):
    pass


def _chunks(source: Any) -> Iterator[Any]:
    # A generator, so that iteration begins when sending begins.  Not "yield from", which would
    # close the caller's generator with ours.  urllib3 skips empty chunks too.
    for chunk in source:
        if chunk:
            yield chunk
