"""Small proxies on loopback: one for HTTP, with requests and tunnels (CONNECT), one for SOCKS."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class _Listener:
    """Serves each connection in a thread, until it is closed with all of them."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._run, args=[connection])
            self._threads.append(thread)
            self._open.add(connection)
            thread.start()

    def _run(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            # Else small packets would wait for one another.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(client)
        self._open.discard(client)

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Proxy(_Listener):
    """Forwards every request, one per connection, and remembers its target.

    :ivar asked: of each request its method and target, in the form in which they came.
    :ivar heads: the heads of the requests, as they came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[tuple[str, str]] = []
        self.heads: list[bytes] = []
        self.url = f"http://{self._address}"

    def _serve(self, client: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = client.recv(65536)
            if not piece:
                return
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, _, fields = head.partition(b"\r\n")
        method, target, version = first.decode().split(" ")
        self.heads.append(head)
        self.requested.append((method, target))
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection((parts.hostname, parts.port)) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = f"{parts.path}?{parts.query}" if parts.query else parts.path
                start = f"{method} {path} {version}\r\nConnection: close\r\n".encode()
                # Connection-level fields are not for the next hop (RFC 9110 section 7.6.1).
                kept = [f for f in fields.split(b"\r\n") if not f.lower().startswith(b"connection")]
                server.sendall(start + b"\r\n".join(kept) + b"\r\n\r\n" + body)
            _splice(client, server)


class SocksProxy(_Listener):
    """SOCKS 5 without authentication (RFC 1928), for IPv4 addresses.

    :ivar opened: how many connections it has opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.url = f"socks5://{self._address}"

    def _serve(self, client: socket.socket) -> None:
        _version, methods = client.recv(2, socket.MSG_WAITALL)
        client.recv(methods, socket.MSG_WAITALL)
        client.sendall(b"\x05\x00")
        request = client.recv(10, socket.MSG_WAITALL)
        host, port = socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:10], "big")
        with socket.create_connection((host, port)) as server:
            self.opened += 1
            client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            _splice(client, server)


def _splice(client: socket.socket, server: socket.socket) -> None:
    """Pass on what comes from either, until one of them ends."""
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    others = {client: server, server: client}
    while True:
        for one in select.select([*others], [], [])[0]:
            piece = one.recv(65536)
            if not piece:
                return
            if hasattr(socket, "TCP_QUICKACK"):
                # urllib3 sends to proxies with Nagle's algorithm, which waits for this.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            others[one].sendall(piece)
