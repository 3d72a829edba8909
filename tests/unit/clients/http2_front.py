"""What stands before many APIs: TLS and HTTP/2 on one side, HTTP/1.1 on the other."""

from __future__ import annotations

import asyncio
import ssl
import threading
from typing import Any, Self

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

from tokenadapter.testing import TokenServer
from tokenadapter.testing.certificate import Certificate

# Headers of one HTTP/1.1 connection, which HTTP/2 does not have (RFC 9113 section 8.2.2).
_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


class Stream:
    """A request, and the way back to its client.

    :ivar number: how many streams of its connection came before.
    """

    def __init__(self, connection: Connection, identifier: int, fields: dict[str, str]) -> None:
        self.number = identifier // 2
        self.method, self.path = fields.pop(":method"), fields.pop(":path")
        authority = fields.pop(":authority")
        self.headers = {k: v for k, v in fields.items() if k[0] != ":"} | {"host": authority}
        self.received = bytearray()
        self.has_ended = asyncio.Event()
        self._connection = connection
        self._id = identifier

    async def body(self) -> bytes:
        """The whole body of the request."""
        await self.has_ended.wait()
        return bytes(self.received)

    def begin(self, answer: httpx.Response) -> None:
        """Send the status and the headers of *answer*."""
        fields = [item for item in answer.headers.items() if item[0] not in _OF_A_CONNECTION]
        fields.insert(0, (":status", str(answer.status_code)))
        self._connection.h2.send_headers(self._id, fields)
        self._connection.flush()

    def send(self, content: bytes) -> None:
        """Send the body of the answer, which fits into a frame and the window."""
        self._connection.h2.send_data(self._id, content, end_stream=True)
        self._connection.flush()

    def reset(self) -> None:
        """Ask the client to send no more of its body (RFC 9113 section 8.1)."""
        self._connection.h2.reset_stream(self._id, ErrorCodes.NO_ERROR)
        self._connection.flush()


class Connection(asyncio.Protocol):
    """A connection of a client, each stream of which is answered in a task of its own."""

    def __init__(self, front: Front) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._front = front
        self._streams: dict[int, Stream] = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._front.connections.append(self)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case RequestReceived(stream_id=which, headers=fields):
                    stream = self._streams[which] = Stream(self, which, dict(fields))
                    self._front.answers.append(asyncio.create_task(self._front.answer(stream)))
                case DataReceived(stream_id=which, data=part, flow_controlled_length=length):
                    self._streams[which].received += part
                    self.h2.acknowledge_received_data(length, which)
                case StreamEnded(stream_id=which):
                    self._streams[which].has_ended.set()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


class Front:
    """Takes requests by HTTP/2, and sends them on to a server by HTTP/1.1.

    :ivar url: as that of the server.
    :ivar trust: the context of a client that trusts its certificate.
    :ivar connections: those that it got so far.
    :ivar answers: the same; one that fails fails the test.
    """

    def __init__(self, server: TokenServer) -> None:
        self._server = server
        self._certificate = Certificate()
        self._certificate.context.set_alpn_protocols(["h2"])
        self.trust = ssl.create_default_context(cafile=self._certificate.ca_file)
        self.connections: list[Connection] = []
        self.answers: list[asyncio.Task[None]] = []
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with httpx.AsyncClient(base_url=self._server.url, trust_env=False) as self._client:
            listener = await self._loop.create_server(
                lambda: Connection(self), "127.0.0.1", 0, ssl=self._certificate.context
            )
            self.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            self._is_ready.set()
            await self._end.wait()
            listener.close()
            for connection in self.connections:
                connection.transport.abort()
        for answer in self.answers:
            if answer.done():
                answer.result()

    async def answer(self, stream: Stream) -> None:
        """Answer a request; by default when it is there in full."""
        answer = await self.forward(stream, await stream.body())
        stream.begin(answer)
        stream.send(answer.content)

    async def forward(self, stream: Stream, body: bytes = b"") -> httpx.Response:
        """What the server answers to *stream* with *body*."""
        headers = stream.headers | {"content-length": str(len(body))}
        return await self._client.request(stream.method, stream.path, headers=headers, content=body)
