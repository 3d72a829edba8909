"""A client of the token server in its tests, and a clock for it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from tokenadapter.testing import TokenServer

CLIENT = ("client", "secret")
TIMEOUT = 10


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Auth = tuple[str, str] | HTTPBasicAuth | None


def ask(server: TokenServer, auth: Auth = CLIENT, **form: str) -> requests.Response:
    return requests.post(
        server.token_url, data=form, auth=auth, timeout=TIMEOUT, allow_redirects=False
    )


def refresh(server: TokenServer, token: dict[str, Any], **form: str) -> requests.Response:
    form |= {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    return ask(server, CLIENT, **form)


def call(
    server: TokenServer, token: dict[str, Any], method: str = "GET", path: str = "x", **kwargs: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {token['access_token']}", **kwargs.pop("headers", {})}
    url = server.api_url + path
    return requests.request(method, url, headers=headers, timeout=TIMEOUT, **kwargs)


def answer_to(server: TokenServer, *pieces: bytes) -> bytes:
    """All that the server answers to these bytes on a connection of their own."""
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(server: TokenServer) -> socket.socket:
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def in_background(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with contextlib.suppress(requests.RequestException):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(TIMEOUT)
    return not thread.is_alive()
