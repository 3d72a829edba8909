"""Process requests: read, log, execute, and answer them as the script says."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qsl

from tokenadapter.keys.jws import b64

from .endpoints import Endpoints, endpoint_of
from .report import Request
from .script import SERVED, Fate, Script
from .wire import Answer, BadRequest, Head, Wire, json_answer

_LOG_LIMIT = 20_000
# Where the bodies are small, and what a test wants to see.
_STORES_BODY = ("token", "login", "revoke", "register", "device_authorization")


class Service:
    """Serves connections, each in the thread that accepted it.

    :ivar state: guards the endpoints, the log and the count of failures, and notifies waiting
        threads of every change.
    :ivar latency: how long an endpoint waits before it answers, after processing the request.
    :ivar stopping: set when all requests must end.
    """

    def __init__(self, endpoints: Endpoints, script: Script, clock: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._script = script
        self._clock = clock
        self.state: threading.Condition = threading.Condition()
        self.log: deque[Request] = deque(maxlen=_LOG_LIMIT)
        self.failures: int = 0
        self.latency: dict[str, float] = {}
        self.stopping: threading.Event = threading.Event()

    def serve(self, connection: socket.socket, peer: str) -> None:
        """Serve a connection until it ends."""
        wire = Wire(connection)
        certificate = _thumbprint(connection)
        try:
            while self._exchange(wire, peer, certificate):
                pass
        except BadRequest as problem:
            wire.send(None, json_answer(400, {"error": str(problem)}))
        finally:
            wire.close()

    def _exchange(self, wire: Wire, peer: str, certificate: str | None) -> bool:
        """Serve one request, and return whether the connection can carry another."""
        head = wire.head()
        endpoint = endpoint_of(head.path)
        request = self._read(wire, head, endpoint, peer)
        request.certificate = certificate
        fate = self._arrive(endpoint, request)
        self._wait_at_holds(endpoint, processed=False)
        answer = fate.answer
        if answer is None or fate.processed:
            genuine = self._carry_out(endpoint, request)
            answer = answer or genuine
        self._wait_at_holds(endpoint, processed=True)
        self._wait_out_latency(endpoint)
        match fate.ending:
            case "hang":
                wire.wait_for_end()
            case "reset":
                wire.reset()
            case "answer":
                request.status = answer.status
                if fate.drip is None:
                    wire.send(head, answer)
                else:
                    wire.drip(head, answer, fate.drip, self.stopping)
                return head.keep_alive
        return False

    def _read(self, wire: Wire, head: Head, endpoint: str, peer: str) -> Request:
        digest, length, kept = hashlib.sha256(), 0, bytearray()
        for piece in wire.body(head):
            digest.update(piece)
            length += len(piece)
            if endpoint in _STORES_BODY:
                kept += piece
        is_json = "json" in head.headers.get("content-type", "")
        return Request(
            head.method,
            head.path,
            head.query,
            head.headers,
            length,
            digest.hexdigest(),
            bytes(kept),
            {} if is_json else dict(parse_qsl(kept.decode("utf-8", "replace"))),
            self._clock(),
            peer,
        )

    def _arrive(self, endpoint: str, request: Request) -> Fate:
        """Log a request, and return its fate from the script."""
        with self.state:
            self.log.append(request)
            self._endpoints.arrived(endpoint)
            fate = self._script.next_fate(endpoint)
            self.failures += fate is not SERVED
            self.state.notify_all()
        return fate

    def _carry_out(self, endpoint: str, request: Request) -> Answer:
        with self.state:
            answer = self._endpoints.answer(endpoint, request)
            self.state.notify_all()
        return answer

    def _wait_at_holds(self, endpoint: str, *, processed: bool) -> None:
        waited = self._script.wait_at_holds(endpoint, processed=processed)
        if waited and self.stopping.is_set():
            raise ConnectionAbortedError

    def _wait_out_latency(self, endpoint: str) -> None:
        seconds = self.latency.get(endpoint, 0.0)
        if seconds and self.stopping.wait(seconds):
            raise ConnectionAbortedError


def _thumbprint(connection: socket.socket) -> str | None:
    """That of the client certificate, as in ``x5t#S256`` (RFC 8705 section 3.1)."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return b64(hashlib.sha256(certificate).digest()) if certificate else None
