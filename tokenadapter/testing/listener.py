"""A listening socket on loopback, with a thread for each connection.

Closing leaves no thread and no socket, and waits only for the last steps of the threads: every
connection is shut down, which wakes a thread that reads or writes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable

HOST = "127.0.0.1"


class Listener:
    """Listens from its creation until :meth:`close`.

    :param port: the port to listen on; 0 takes a free one.
    :param serve: called with each connection and the client's address, in a separate thread;
        may raise :class:`OSError` when the connection has ended.
    :param tls: the TLS context of an HTTPS server.
    """

    def __init__(
        self,
        port: int,
        serve: Callable[[socket.socket, str], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._serve = serve
        self._tls = tls
        self._socket = socket.create_server((HOST, port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._closing = False
        # Written by the accepting thread alone, and read by close() when that thread has ended.
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, name="token-server", daemon=True)
        self._accepting.start()
        _listeners.add(self)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._closing = True
        # Closing a socket does not wake the thread that waits in its accept(): a client does.
        socket.create_connection((HOST, self.port)).close()
        self._accepting.join()
        self._socket.close()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                # The plain shutdown: that of SSLSocket forgets the TLS state under its reader.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._connections:
            thread.join()
        self._connections.clear()

    def _accept(self) -> None:
        while True:
            connection, (host, port) = self._socket.accept()
            if self._closing:
                connection.close()
                return
            self._connections = {t: c for t, c in self._connections.items() if t.is_alive()}
            try:
                # Else an answer sent byte by byte would travel in lumps.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(
                        connection, server_side=True, do_handshake_on_connect=False
                    )
            except OSError:  # the client is gone
                connection.close()
                continue
            thread = threading.Thread(
                target=self._run,
                args=(connection, f"{host}:{port}"),
                name=f"token-server {host}:{port}",
                daemon=True,
            )
            self._connections[thread] = connection
            thread.start()

    def _run(self, connection: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError), connection:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            self._serve(connection, peer)

    def forsake(self) -> None:
        """Close the descriptors in a forked child, where no thread serves them.

        Otherwise a connection that the server drops would stay open in the child, and its client
        would wait for ever.
        """
        for inherited in (self._socket, *self._connections.values()):
            with contextlib.suppress(OSError):
                os.close(inherited.detach())
        self._connections.clear()


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for listener in _listeners:
        listener.forsake()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
