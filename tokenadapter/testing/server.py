"""TokenServer: the authority and the API it protects, put on the network and under a script."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, get_args
from urllib.parse import parse_qsl

from .authority import Authority
from .endpoints import Endpoints, endpoint_of
from .listener import HOST, Listener
from .report import Request, Stats
from .script import SERVED, Body, Ending, Endpoint, Fate, Hold, scripted_answer
from .wire import Answer, BadRequest, Head, Wire, json_answer

_LOG_LIMIT = 20_000


class TokenServer:
    """An OAuth token endpoint and a protected API on loopback, for tests.

    A context manager that starts and stops it; :meth:`start` and :meth:`stop` do the same.  It
    may be used from any thread.  Processes that talk to it are given its URLs; a process forked
    while it runs must not use the object.

    The token endpoint knows the grants ``client_credentials``, ``password`` and
    ``refresh_token``, and the client authentications ``client_secret_basic``,
    ``client_secret_post`` and ``none``.  The API answers every method and every path under
    :attr:`api_url` with a JSON echo of the request: ``method``, ``path``, ``query`` (its text),
    ``headers`` (names in lower case; in place of credentials the first 8 hex digits of their
    SHA-256), ``length`` and ``sha256`` of the body, and ``count``, the API requests so far.
    ``redirect?to=URL&status=302`` under it answers with a redirect.  Without a good token it
    answers 401, with ``error="invalid_token"`` if there was one (RFC 6750 section 3.1).

    :param lifetime: how long an access token lives, in seconds; ``None``: until it is revoked,
        and responses have no ``expires_in``.
    :param rotate: each refresh gives a new refresh token; else the first one stays good, and
        responses to a refresh have none.
    :param grace: how long after a rotation the previous refresh token is still accepted, in
        seconds.  It gives one more new refresh token, and those given before stay good, as with
        Auth0's rotation overlap period; spending any of them ends the grace of the old one.
    :param reuse_detection: a spent refresh token that is shown again revokes its whole family,
        access tokens included; else it is just refused.
    :param clients: the clients' secrets by identifier, ``None`` for a client that has none.
    :param users: the users' passwords by name.
    :param header: the header in which the API expects the access token.
    :param scheme: the word before it; may be empty.
    :param tls: a server-side TLS context; makes the URLs https.
    :param clock: gives the time in seconds, for expiry and the log.
    """

    def __init__(
        self,
        *,
        lifetime: float | None = 3600,
        rotate: bool = True,
        grace: float = 0.0,
        reuse_detection: bool = True,
        clients: Mapping[str, str | None] | None = None,
        users: Mapping[str, str] | None = None,
        header: str = "Authorization",
        scheme: str = "Bearer",
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        #: How long the token endpoint, having done its work, waits before it answers, in seconds.
        self.latency = 0.0
        #: The same for the API.
        self.api_latency = 0.0
        self._clients = clients or {"client": "secret"}
        self._users = users or {"user": "password"}
        self._tls = tls
        self._clock = clock
        self._port = 0  # chosen at the first start, and kept
        self._listener: Listener | None = None
        self._stopping = threading.Event()
        # Guards everything below, and wakes wait_for() at every change.
        self._state = threading.Condition()
        self._authority = Authority(
            clients=self._clients,
            users=self._users,
            lifetime=lifetime,
            rotate=rotate,
            grace=grace,
            reuse_detection=reuse_detection,
            clock=clock,
        )
        self._endpoints = Endpoints(self._authority, header, scheme)
        self._log: deque[Request] = deque(maxlen=_LOG_LIMIT)
        self._scripts: dict[str, deque[Iterator[Fate]]] = {
            endpoint: deque() for endpoint in get_args(Endpoint)
        }
        self._failures = 0
        self._holds: tuple[Hold, ...] = ()

    # Start, stop, and where it is

    def start(self) -> Self:
        """Listen.  After a :meth:`stop`: on the same port, with all that was known before."""
        if self._listener is not None:
            raise RuntimeError("the server is running")
        self._stopping.clear()
        self._listener = Listener(self._port, self._serve, self._tls)
        self._port = self._listener.port
        return self

    def stop(self) -> None:
        """End every connection and stop listening; no thread and no socket is left."""
        if self._listener is not None:
            self._stopping.set()
            for hold in self._holds:
                hold.release()
            self._listener.close()
            self._listener = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the server itself, without a closing slash; no endpoint is there."""
        if not self._port:
            raise RuntimeError("the server has not been started")
        return f"{'https' if self._tls else 'http'}://{HOST}:{self._port}"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/token"

    @property
    def revoke_url(self) -> str:
        """The revocation endpoint (RFC 7009)."""
        return f"{self.url}/revoke"

    @property
    def api_url(self) -> str:
        """The prefix of the protected API, with a closing slash."""
        return f"{self.url}/api/"

    @property
    def public_url(self) -> str:
        """The prefix of an API that answers the same and asks for no token."""
        return f"{self.url}/public/"

    # What a test does to it

    def issue(
        self, scope: str | None = None, user: str | None = None, client: str | None = None
    ) -> dict[str, Any]:
        """A token response as from a first login, to begin a test with.

        :param user: who logs in; by default the first of the users.
        :param client: for whom the token is; by default the first of the clients.
        """
        with self._state:
            return self._authority.issue(
                client or next(iter(self._clients)), user or next(iter(self._users)), scope
            )

    def expire_now(self) -> None:
        """End every access token there is; refresh tokens stay good."""
        with self._state:
            self._authority.expire_all()

    def revoke(self, token: str) -> None:
        """Revoke an access token, or a refresh token with its whole family.

        :raises LookupError: if the server never issued it, or it is no more.
        """
        with self._state:
            if not self._authority.revoke(token):
                raise LookupError("not a token of this server")
            self._state.notify_all()

    def revoke_all(self) -> None:
        """Revoke every token there is."""
        with self._state:
            self._authority.revoke_all()
            self._state.notify_all()

    def fail_next(
        self,
        status: int | None = None,
        *,
        count: int | None = 1,
        endpoint: Endpoint = "token",
        error: str | None = None,
        body: Body | None = None,
        content_type: str | None = None,
        retry_after: float | str | None = None,
        redirect: str | None = None,
        headers: Mapping[str, str] | None = None,
        processed: bool = False,
        hang: bool = False,
        drop: bool = False,
        reset: bool = False,
        drip: float | None = None,
    ) -> None:
        """Let the next requests to an endpoint fail.  Failures are played in the order given.

        :param status: the HTTP status of the answer.  By default 307 with ``redirect``, 400 with
            ``error``, else 503.
        :param count: how many requests; ``None``: all, until :meth:`recover`.
        :param endpoint: ``"token"``, ``"revoke"``, ``"api"`` or ``"public"``.
        :param error: the OAuth error code of a JSON answer; by default what suits the status.
            At the API it stands in ``WWW-Authenticate`` too.
        :param body: another body: text or bytes as they are (called HTML unless ``content_type``
            says otherwise), a dict or list as JSON.
        :param retry_after: the ``Retry-After`` header: seconds, or an HTTP date.
        :param redirect: the ``Location`` header.
        :param headers: more headers, or others in place of the above.
        :param processed: carry the request out (rotate!) before the failure.
        :param hang: never answer; ends when the client closes the connection or the server stops.
        :param drop: carry the request out, then close the connection: the answer is lost.
        :param reset: reset the connection instead, without carrying the request out.
        :param drip: send the answer one byte at a time, with so many seconds after each: the
            genuine one if nothing else is said.
        """
        if hang + drop + reset > 1:
            raise ValueError("hang, drop and reset exclude each other")
        described = bool(status or error or redirect) or body is not None
        genuine = drop or (drip is not None and not described)
        answer = (
            None
            if genuine
            else scripted_answer(
                endpoint,
                status=status,
                error=error,
                body=body,
                content_type=content_type,
                retry_after=retry_after,
                redirect=redirect,
                headers=headers,
            )
        )
        ending: Ending = "hang" if hang else "drop" if drop else "reset" if reset else "answer"
        fate = Fate(ending, answer, processed, drip)
        fates = itertools.repeat(fate) if count is None else itertools.repeat(fate, count)
        with self._state:
            self._scripts[endpoint].append(fates)

    def recover(self, endpoint: Endpoint = "token") -> None:
        """Forget the failures that an endpoint has not played yet."""
        with self._state:
            self._scripts[endpoint].clear()

    @contextlib.contextmanager
    def outage(
        self,
        status: int = 503,
        *,
        retry_after: float | str | None = None,
        endpoint: Endpoint = "token",
    ) -> Iterator[None]:
        """Let every request to an endpoint fail until the block is left."""
        self.fail_next(status, count=None, retry_after=retry_after, endpoint=endpoint)
        try:
            yield
        finally:
            self.recover(endpoint)

    @contextlib.contextmanager
    def hold(self, *, processed: bool = False, endpoint: Endpoint = "token") -> Iterator[Hold]:
        """Stop requests midway, so that a test can act while one is under way.

        ::

            with server.hold() as hold:
                thread.start()
                assert hold.arrived.wait(10)
                ...                           # a renewal is under way
            thread.join()

        They go on when the block is left or at :meth:`Hold.release`.

        :param processed: hold them between being carried out and being answered; else before.
        """
        hold = Hold(endpoint, processed=processed)
        with self._state:
            self._holds += (hold,)
        try:
            yield hold
        finally:
            with self._state:
                self._holds = tuple(other for other in self._holds if other is not hold)
            hold.release()

    # What a test learns from it

    @property
    def stats(self) -> Stats:
        """The counters as they are now."""
        with self._state:
            return Stats(
                token_requests=self._endpoints.token_requests,
                renewals=self._authority.renewals,
                refreshes=self._authority.refreshes,
                refusals=self._endpoints.refusals,
                failures=self._failures,
                reuse_detections=self._authority.reuse_detections,
                families_revoked=self._authority.families_revoked,
                api_requests=self._endpoints.api_requests,
                api_refused=self._endpoints.api_refused,
            )

    @property
    def requests(self) -> tuple[Request, ...]:
        """The log of the requests to whatever endpoint, oldest first (the last 20 000)."""
        with self._state:
            return tuple(self._log)

    def wait_for(self, reached: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """Wait until the counters are as wished, and return them.

        ::

            server.wait_for(lambda stats: stats.token_requests >= 3)

        :param timeout: how long to wait at most, in seconds.
        :raises TimeoutError: if they do not get there.
        """
        with self._state:
            if not self._state.wait_for(lambda: reached(self.stats), timeout):
                raise TimeoutError(f"not reached within {timeout} s: {self.stats}")
            return self.stats

    # The way of a request

    def _serve(self, connection: socket.socket, peer: str) -> None:
        wire = Wire(connection)
        try:
            while self._exchange(wire, peer):
                pass
        except BadRequest as problem:
            wire.send(None, json_answer(400, {"error": str(problem)}))
        finally:
            wire.close()

    def _exchange(self, wire: Wire, peer: str) -> bool:
        """Serve one request, and tell whether the connection can carry another."""
        head = wire.head()
        endpoint = endpoint_of(head.path)
        request = self._read(wire, head, endpoint, peer)
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
                    wire.drip(head, answer, fate.drip, self._stopping)
                return head.keep_alive
        return False

    def _read(self, wire: Wire, head: Head, endpoint: str, peer: str) -> Request:
        """Read the body; it is kept in memory only where it is a form."""
        keep = endpoint in ("token", "revoke")
        digest, length, kept = hashlib.sha256(), 0, bytearray()
        for piece in wire.body(head):
            digest.update(piece)
            length += len(piece)
            if keep:
                kept += piece
        return Request(
            head.method,
            head.path,
            head.query,
            head.headers,
            length,
            digest.hexdigest(),
            bytes(kept),
            dict(parse_qsl(kept.decode("utf-8", "replace"))),
            self._clock(),
            peer,
        )

    def _arrive(self, endpoint: str, request: Request) -> Fate:
        """Log a request, and look up in the script what becomes of it."""
        with self._state:
            self._log.append(request)
            self._endpoints.arrived(endpoint)
            fate = self._next_fate(self._scripts.get(endpoint))
            self._failures += fate is not SERVED
            self._state.notify_all()
        return fate

    def _next_fate(self, script: deque[Iterator[Fate]] | None) -> Fate:
        while script:
            for fate in script[0]:
                return fate
            script.popleft()
        return SERVED

    def _carry_out(self, endpoint: str, request: Request) -> Answer:
        with self._state:
            answer = self._endpoints.answer(endpoint, request)
            self._state.notify_all()
        return answer

    def _wait_at_holds(self, endpoint: str, *, processed: bool) -> None:
        for hold in self._holds:
            if hold.point == (endpoint, processed):
                hold.wait()
                if self._stopping.is_set():
                    raise ConnectionAbortedError

    def _wait_out_latency(self, endpoint: str) -> None:
        seconds = {"token": self.latency, "api": self.api_latency}.get(endpoint, 0)
        if seconds and self._stopping.wait(seconds):
            raise ConnectionAbortedError
