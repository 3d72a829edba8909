"""Servers with malformed answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats its one connection in its own way; gives host and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            # The client closes the connection when its time is up.
            with connection, contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        yield f"{host}:{port}"
        thread.join()


def wait_for_end(connection: socket.socket) -> None:
    """Read until the client goes."""
    while connection.recv(65536):
        pass


def drip(connection: socket.socket, start: bytes, byte: bytes, pause: Callable[[], None]) -> None:
    """Send *start*, and then a byte after each *pause* until the client goes."""
    connection.sendall(start)
    while True:
        pause()
        connection.sendall(byte)
