"""A proxy that loses answers: the server executes a request, and the client never knows."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

# Of Redis.
_GREETINGS = {b"HELLO", b"CLIENT", b"SELECT", b"AUTH"}
# What a request begins with, of which more may follow: in Redis, an array of bulk strings.
_REQUESTS = (b"*", b"get ", b"add ", b"set ", b"touch ", b"delete ")


class Proxy:
    """Passes connections on to the Unix socket *path*, and loses answers on request.

    :param tls: what it shows to clients; without it, the line is plain.
    """

    def __init__(self, path: Path, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.requested = 0
        """How many requests there were, beside those that begin a connection."""
        self.losing: set[int] = set()
        """The numbers of those whose answers get lost, with the connection."""
        self._path = path
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def lose(self, *which: int) -> None:
        """Lose the answer to the first request from now on (1), to the second one (2), ..."""
        self.losing = {self.requested + number for number in which}

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=[near])
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
            with near, socket.socket(socket.AF_UNIX) as far:
                far.connect(str(self._path))
                self._open |= {near, far}
                self._pass(near, far)

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        number = 0
        while True:
            pending = isinstance(near, ssl.SSLSocket) and near.pending()
            ready = [near] if pending else select.select([near, far], [], [])[0]
            if near in ready:
                data = near.recv(1 << 20)
                is_request = data.startswith(_REQUESTS)
                if data.startswith(b"*"):
                    # The first string is the command.
                    is_request = data.split(b"\r\n")[2] not in _GREETINGS
                if is_request:
                    self.requested += 1
                    number = self.requested
                far.sendall(data)
            else:
                data = far.recv(1 << 20)
                if number in self.losing:
                    return
                near.sendall(data)
            if not data:
                return
