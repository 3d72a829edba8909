"""Bodies of aiohttp that can be sent again.

aiohttp sends a body in a task of its own, and ends that task when an answer comes early.  A body
that can be drawn but once is therefore drawn in yet another task, which goes on where it was when
the body is sent again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from aiohttp import BytesPayload, IOBasePayload, MultipartWriter, Payload
from aiohttp.abc import AbstractStreamWriter

from tokenadapter.http import bodies
from tokenadapter.http.bodies import Body

__all__ = ["prepared"]


def prepared(request: Any, limit: int) -> Body | None:
    """The body of *request*, made ready to be sent again; ``None`` if there is none.

    :param limit: how many bytes of a body that cannot be rewound are recorded.
    """
    payload = request._body
    if payload is None:
        return None
    if isinstance(payload, _Recorded):
        return payload.body  # the hop before this one sent it
    body = _rewindable(payload)
    if body is None:
        body = bodies.recorded(payload, _Recorder, limit)
        if body.payload is not payload:
            # Not by update_body(), which closes the payload and drops a Content-Length.
            request._body = _Recorded(payload, body)
    return body


def _rewindable(payload: Payload) -> Body | None:
    """The body of *payload*, if that is nothing but bytes and files, which aiohttp rewinds."""
    if isinstance(payload, MultipartWriter):
        parts = [_rewindable(part) for part, _, _ in payload]
        found = [part for part in parts if part is not None]

        def rewind() -> None:
            for part in found:
                part.rewind()

        return Body(payload, rewind=rewind) if len(found) == len(parts) else None
    if isinstance(payload, IOBasePayload):
        body = bodies.prepare(payload._value, limit=0)
        return None if body.one_shot else body
    return Body(payload) if isinstance(payload, BytesPayload) else None


class _Recorded(Payload):
    """What is sent in the place of a payload: its recording, then the rest of it."""

    def __init__(self, payload: Payload, body: Body) -> None:
        super().__init__(
            payload,
            headers=payload.headers,
            filename=payload.filename,
            encoding=payload.encoding,
        )
        self.body = body

    @property
    def size(self) -> int | None:
        return self._value.size  # type: ignore[no-any-return]

    @property
    def consumed(self) -> bool:
        # Where aiohttp itself sends bodies again, it does so with and without us alike.
        return getattr(self._value, "consumed", True)

    @property
    def autoclose(self) -> bool:
        return getattr(self._value, "autoclose", True)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        left = content_length
        recorder: _Recorder = self.body.payload
        with recorder.sending():
            async for chunk in recorder:
                if left is None:
                    await writer.write(chunk)
                elif left > 0:
                    await writer.write(chunk[:left])
                    left -= len(chunk)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)  # type: ignore[no-any-return]

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return await self._value.as_bytes(encoding, errors)  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._value.close()


class _Recorder(bodies.AsyncRecorder):
    """A recorder of what a payload writes."""

    def __init__(self, payload: Payload, limit: int) -> None:
        super().__init__(_Drawn(payload), limit)
        self._is_sent = False
        self._is_last = False

    @contextmanager
    def sending(self) -> Iterator[None]:
        """While the body is sent, from its start."""
        super().seek(0)
        self._is_sent = True
        try:
            yield
        finally:
            self._is_sent = False
            if self._is_last:
                self.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # An early refusal that was not read to its end leaves the sending as it is.
        return self.tell() if self._is_sent else super().seek(offset, whence)

    def close(self) -> None:
        self._is_last = True
        # An answer may come before the whole body has been sent, and be no refusal.
        if not self._is_sent:
            super().close()
            self._source.close()

    async def _anext(self) -> Any:
        try:
            return await super()._anext()
        except asyncio.CancelledError:
            self._failure = None  # it ends the sending, and not what is drawn
            raise


class _Drawn:
    """The chunks of a payload, drawn one by one in a task of its own."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._chunks: asyncio.Queue[Any] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._is_out = False

    def __aiter__(self) -> _Drawn:
        return self

    async def __anext__(self) -> Any:
        if self._task is None:
            self._task = asyncio.create_task(self._draw())
        if self._is_out:
            # Only now: the payload may use the memory of the last chunk for the next one.
            self._is_out = False
            self._chunks.task_done()
        chunk = await self._chunks.get()
        self._is_out = True
        if isinstance(chunk, BaseException):
            self._chunks.put_nowait(chunk)  # the end stays the end
            raise chunk
        return chunk

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _draw(self) -> None:
        last: BaseException = StopAsyncIteration()
        try:
            await self._payload.write_with_length(_Sink(self._chunks), None)
        # It is raised where the body is sent.  What the payload waits for may have been cancelled.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            last = error
        self._chunks.put_nowait(last)


class _Sink(AbstractStreamWriter):
    """What a payload writes to: each chunk is taken before the next one is drawn."""

    def __init__(self, chunks: asyncio.Queue[Any]) -> None:
        self._chunks = chunks

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        if chunk:
            self._chunks.put_nowait(chunk)
            await self._chunks.join()

    async def drain(self) -> None:
        """Do nothing: :meth:`write` waits."""

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self.write(chunk)

    def enable_compression(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError  # a payload writes a body, and nothing else

    enable_chunking = enable_compression

    async def write_headers(self, *_: object) -> NoReturn:
        raise NotImplementedError
