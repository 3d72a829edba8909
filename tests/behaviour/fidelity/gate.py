"""APIs that refuse requests before the body has been sent, or with unusual challenges."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Self

REFUSAL = b"HTTP/1.1 401 No\r\nContent-Length: 7\r\n%b\r\nrefused"


class _Api:
    """Serves each connection in a thread, until it is closed with all of them.

    :ivar heads: how many requests came.
    :ivar connections: over how many connections.
    """

    def __init__(self) -> None:
        self.heads = self.connections = 0
        self.ended = threading.Event()
        self._listener = socket.socket()
        # Inherited by each connection: little fits into one that is not read from.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as file:
            while file.readline():
                self.heads += 1
                headers: dict[bytes, bytes] = {}
                while line := file.readline().strip():
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value.strip()
                if not self._answer(connection, headers, _body(file, headers)):
                    return

    def _answer(
        self, connection: socket.socket, headers: Mapping[bytes, bytes], body: Iterator[bytes]
    ) -> bool:
        """Answer a request; whether the connection can carry another."""
        raise NotImplementedError


class Challenging(_Api):
    """Refuses the first token with a status and any number of ``WWW-Authenticate`` fields, and
    echoes the body of a request with another.

    :ivar source: gives the tokens ``1``, ``2``, ...
    :ivar minted: how many it gave.
    """

    def __init__(self, status: int, fields: Sequence[str]) -> None:
        super().__init__()
        self.minted = 0
        self._refusal = f"{status} No", "".join(f"WWW-Authenticate: {f}\r\n" for f in fields)

    def source(self, previous: object) -> str:
        self.minted += 1
        return str(self.minted)

    def _answer(
        self, connection: socket.socket, headers: Mapping[bytes, bytes], body: Iterator[bytes]
    ) -> bool:
        received = b"".join(body).decode()
        is_first = headers.get(b"authorization") == b"Bearer 1"
        status, fields = self._refusal if is_first else ("200 Yes", "")
        content = json.dumps({"body": "refused" if is_first else received})
        length = f"Content-Length: {len(content)}\r\n"
        connection.sendall(f"HTTP/1.1 {status}\r\n{fields}{length}\r\n{content}".encode())
        return True


class Demanding(_Api):
    """Answers each request with the next status, and a 403 with a challenge that wants more."""

    def __init__(self, statuses: Sequence[int], wanted: str) -> None:
        super().__init__()
        self._statuses = iter(statuses)
        self._wanted = wanted

    def _answer(
        self, connection: socket.socket, headers: Mapping[bytes, bytes], body: Iterator[bytes]
    ) -> bool:
        status = next(self._statuses)
        challenge = f"Bearer {self._wanted}" if status == 403 else "Bearer"
        connection.sendall(
            f"HTTP/1.1 {status} No\r\nWWW-Authenticate: {challenge}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        return True


class Gate(_Api):
    """Takes uploads with the token ``second`` and refuses all others, in one of these ways:

    * ``close``: reads a little, answers, and closes.  The client's next bytes are answered with a
      reset: a broken pipe, and behind it the answer;
    * ``close at once``: the same without reading anything of the body;
    * ``say close``: the same with ``Connection: close``, and reads what still comes;
    * ``stay``: answers first, then reads the rest and is ready for the next request;
    * ``late``: answers when it has read everything;
    * ``stop reading``: reads no more, answers nothing, and does not close;
    * ``answer and stop reading``.

    :ivar taken: the digests of the bodies that it took.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.taken: list[str] = []

    def _answer(
        self, connection: socket.socket, headers: Mapping[bytes, bytes], body: Iterator[bytes]
    ) -> bool:
        if headers.get(b"authorization") == b"Bearer second":
            digest = hashlib.sha256()
            for piece in body:
                digest.update(piece)
            self.taken.append(digest.hexdigest())
            connection.sendall(b"HTTP/1.1 200 Yes\r\nContent-Length: 0\r\n\r\n")
            return True
        return self._refuse(connection, body)

    def _refuse(self, connection: socket.socket, body: Iterator[bytes]) -> bool:
        match self.how:
            case "close":
                next(body)
                connection.sendall(REFUSAL % b"")
                return False
            case "close at once":
                connection.sendall(REFUSAL % b"")
                return False
            case "say close":
                connection.sendall(REFUSAL % b"Connection: close\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
                return False
            case "stop reading":
                self.ended.wait()
                return False
            case "answer and stop reading":
                connection.sendall(REFUSAL % b"")
                self.ended.wait()
                return False
            case "stay":
                connection.sendall(REFUSAL % b"")
        for _ in body:
            pass
        if self.how == "late":
            connection.sendall(REFUSAL % b"")
        return True


def _body(file: IO[bytes], headers: Mapping[bytes, bytes]) -> Iterator[bytes]:
    if b"content-length" in headers:
        left = int(headers[b"content-length"])
        while left:
            piece = file.read(min(left, 10_000))
            if not piece:
                raise ConnectionAbortedError
            left -= len(piece)
            yield piece
        return
    if b"transfer-encoding" not in headers:
        return
    while line := file.readline():
        if not (size := int(line, 16)):
            break
        yield file.read(size)
        file.readline()
    else:
        raise ConnectionAbortedError
    file.readline()
