"""A login in the browser of this machine (RFC 8252): the answer comes to a port on loopback.

Anything on the machine, and any page in the browser, can send requests to the port.  Only a GET to
the right path and host with the state of this login counts, and only the first one.
"""

from __future__ import annotations

import os
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socket import AF_INET, AF_INET6
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tokenadapter import errors
from tokenadapter.logins.authorization import (
    DEFAULT_REDIRECT,
    Authorization,
    Pending,
    check_wanted,
    single_values,
)
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import is_loopback

__all__ = ["log_in"]

# Seconds: for a client of the port to send its request, and for the last page to be written.
_PATIENCE = 5.0
# How often a waiting login checks whether it was given up, in seconds.
_LOOK_EVERY = 0.1

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1.1em/1.5 sans-serif; max-width: 34em; margin: 4em auto }}</style>
<h1>{title}</h1>
<p>{text}</p>
<script>history.replaceState(null, "", location.pathname)</script>
</html>
"""
"""The script removes the code from the address, and so from the history of the browser."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'",
    "Content-Type": "text/html; charset=utf-8",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def log_in(
    source: OAuth2Source,
    settings: Mapping[str, str],
    show: Callable[[str], object],
    open_url: Callable[[str], object] | None,
    timeout: float,
    adopt: Callable[[Token, str | None], Token],
    given_up: threading.Event,
) -> Token:
    """Open the browser, wait for its answer, and adopt the token.

    :param given_up: ends the wait.
    :raises TokenError: if the login did not succeed.
    :raises ValueError: if a URL makes no sense.
    """
    with _Port(settings.get("redirect_uri", DEFAULT_REDIRECT)) as port:
        request = Authorization(source, settings, port.redirect_uri)
        port.expect(request.pending)
        show(f"Log in with the browser. If it does not open, open this address:\n\n{request.url}\n")
        # Some browsers, such as those in a terminal, return when the person closes them.
        opener = threading.Thread(
            target=_open, args=[open_url or webbrowser.open, request.url], daemon=True
        )
        opener.start()
        answer = port.wait(timeout, given_up)
        check_wanted(given_up)
        if answer is None:
            raise errors.ReauthRequired(
                f"No answer came from the browser within {timeout:.0f} s. The stored token is "
                "kept. Start the login again. If the browser runs on another machine, use "
                "`tokenadapter login NAME --paste` or login(flow='paste').",
                reason="login_failed",
            )
        token = adopt(request.pending.token(source, answer), request.pending.nonce)
        port.succeeded = True
        return token


def _open(open_url: Callable[[str], object], url: str) -> None:
    with suppress(Exception):  # the person has the address
        open_url(url)


class _Port:
    """Waits on loopback for the answer, and answers the browser when the login has ended.

    :param redirect_uri: where to listen; without a port, a free one is taken.
    :ivar redirect_uri: the address with the port.
    :ivar succeeded: what the page says at the end.
    """

    def __init__(self, redirect_uri: str) -> None:
        parts = urlsplit(redirect_uri)
        host = parts.hostname or ""
        if parts.scheme != "http" or not is_loopback(host) or parts.query or parts.fragment:
            raise ValueError(
                "redirect_uri must be http:// on loopback for a login by browser, such as "
                f"http://127.0.0.1/, not {redirect_uri!r}"
            )
        self._path = parts.path or "/"
        self._server = _listening(host, parts.port or 0, self._handle)
        netloc = f"[{host}]" if ":" in host else host
        self._netloc = f"{netloc}:{self._server.server_address[1]}"
        # The path as it was given: the server compares texts (RFC 9700 section 4.1.3).
        self.redirect_uri: str = f"http://{self._netloc}{parts.path}"
        self._pending: Pending | None = None
        self._answer: Mapping[str, str] | None = None
        self._first = threading.Lock()
        self._arrived, self._ended, self._written = (threading.Event() for _ in range(3))
        self.succeeded = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._answer is not None:
            self._written.wait(_PATIENCE)
        self._server.shutdown()
        self._server.server_close()

    def expect(self, pending: Pending) -> None:
        """Accept the answer to this request."""
        self._pending = pending

    def wait(self, timeout: float, given_up: threading.Event) -> Mapping[str, str] | None:
        """The answer; ``None`` after the timeout, or if the login is *given_up*."""
        end = time.monotonic() + timeout
        while not (self._arrived.wait(_LOOK_EVERY) or given_up.is_set() or time.monotonic() > end):
            pass
        return self._answer

    def _handle(self, handler: _Handler) -> None:
        parts = urlsplit(handler.path)
        answer = single_values(parts.query)
        if handler.headers.get("Host") != self._netloc or parts.path != self._path:
            # A page that reaches this port by a name of its own, or an icon.
            handler.put(404, "Not found", "There is nothing at this address.")
        elif self._pending is None or not self._pending.is_answered_by(answer):
            handler.put(
                400,
                "Another login",
                "This answer does not belong to the login that is in progress, and was ignored. "
                "Use the address that the program shows.",
            )
        elif not self._first.acquire(blocking=False):
            handler.put(409, "Already used", "This login has had its answer. Close this window.")
        else:
            self._answer = answer
            self._arrived.set()
            self._ended.wait()
            try:
                if self.succeeded:
                    text = "Close this window and go back to the program."
                    handler.put(200, "You are logged in", text)
                else:
                    text = "The program says why. Close this window and go back to the program."
                    handler.put(400, "The login failed", text)
            finally:
                self._written.set()


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server: _Server

    def do_GET(self) -> None:
        self.server.answer(self)

    def put(self, status: int, title: str, text: str) -> None:
        """Send a page.  It contains nothing of the request."""
        body = _PAGE.format(title=title, text=text).encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "tokenadapter"

    def log_message(self, *_: Any) -> None:
        """Write nothing: the first line of the request contains the code."""


class _Server(ThreadingTCPServer):
    # Not HTTPServer, which looks up the name of the host: that may take seconds.
    daemon_threads = True
    # The next login may use the port at once; but on Windows, another program could take it too.
    allow_reuse_address = os.name != "nt"

    def __init__(self, address: tuple[str, int], answer: Callable[[_Handler], None]) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        self.answer = answer
        super().__init__(address, _Handler)

    def handle_error(self, *_: Any) -> None:
        """Write nothing: a client of the port that went away is no error of the login."""


def _listening(host: str, port: int, answer: Callable[[_Handler], None]) -> _Server:
    address = "127.0.0.1" if host == "localhost" else host
    try:
        return _Server((address, port), answer)
    except OSError as error:
        raise errors.RefreshConfigError(
            f"The login cannot listen on {address}:{port} for the browser's answer "
            f"({error.strerror or error}). Nothing was sent. End the program that uses the port, "
            "or give redirect_uri another one.",
            is_local=True,
        ) from None
