"""The URL that a token is asked of: one request, one answer, and no surprises on the way.

No redirect is followed, because a 307 or 308 would send the secret on.  Nothing is taken from a
netrc, which may have another account for that host.  Proxies and CA bundles come from the
environment as everywhere in requests.  Each request has a connection of its own: one that is
shared across a fork crosses answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenadapter.late_imports import late
from tokenadapter.token import fingerprint
from tokenadapter.values import always

if TYPE_CHECKING:
    import socket
    import ssl

    import requests
    import urllib3

    from tokenadapter import errors
    from tokenadapter.sources import deadline, reply
else:
    deadline = late("tokenadapter.sources.deadline")
    errors = late("tokenadapter.errors")
    reply = late("tokenadapter.sources.reply")
    requests = late("requests")
    socket = late("socket")
    ssl = late("ssl")
    urllib3 = late("urllib3")

__all__ = ["Endpoint"]

# Bytes: no token response is longer.
_LONGEST_ANSWER = 1 << 20
# How versions of OpenSSL name what they get from a server that answers in clear.
_NO_TLS = frozenset(
    {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER"}
)


class Endpoint:
    """A URL and how to reach it.

    :param argument: what the URL is called where it was given, for messages.
    :param url: ``https``, or ``http`` on this machine.
    :param timeout: seconds for the whole exchange.
    :param verify: whether to verify the server's certificate, or a path to CA certificates.
    :param cert: a client certificate: a path, or those of certificate and key.
    :param proxies: proxy URLs by scheme or by scheme and host.
    :param allow_http: accept plain ``http`` to other machines.
    :raises UnsafeTarget: the secrets would be sent in clear.
    :raises ValueError: an argument makes no sense.
    :ivar name: the URL without its query, which may hold a secret: for messages.
    :ivar identity: the URL with the fingerprint of its query: to tell two apart.
    """

    __slots__ = ("_stays_here", "cert", "identity", "name", "proxies", "timeout", "url", "verify")

    def __init__(
        self,
        argument: str,
        url: str,
        *,
        timeout: float,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
        proxies: Mapping[str, str] | None,
        allow_http: bool,
    ) -> None:
        name, query = _checked(argument, url, allow_http)
        self.name: str = name
        self.identity: str = f"{self.name}?{fingerprint(query)}" if query else self.name
        if not _is_time(timeout):
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        self.url: str = url
        # In clear to this machine: a proxy elsewhere would read the secrets.
        self._stays_here = self.name.startswith("http:") and not allow_http
        self.timeout: float = timeout
        self.verify: bool | str | None = verify
        self.cert: str | tuple[str, str] | None = cert
        self.proxies: dict[str, str] = dict(proxies or {})

    def exchange(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None,
        may_be_sent: Callable[[], bool] = always,
    ) -> reply.Reply | reply.NoReply:
        """Send one request and read the answer, within the time-out.

        :param may_be_sent: asked in the last moment before it is sent.
        """
        outside = sys.exception()
        limit = deadline.Deadline(self.timeout, may_be_sent)
        # A host may have an address that does not answer: half of the time is for the others.
        timeouts = self.timeout / 2, self.timeout
        adapter = deadline.DeadlineAdapter(limit)
        try:
            request = requests.Request(
                method, self.url, headers={**requests.utils.default_headers(), **headers}, data=body
            ).prepare()
            with requests.Session() as session:
                settings = session.merge_environment_settings(
                    self.url, dict(self.proxies), True, self.verify, self.cert
                )
            if self._stays_here:
                settings["proxies"] = {}
            with adapter.send(request, timeout=timeouts, **settings) as response:
                answer = bytearray()
                for piece in response.iter_content(65536):
                    answer += piece
                    if len(answer) > _LONGEST_ANSWER:
                        return reply.NoReply("the answer is longer than 1 MiB", sent=True)
                return reply.Reply(
                    response.status_code, response.headers, response.cookies, bytes(answer)
                )
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            # The text alone goes on: the error has the request, and that the secrets.
            return self._no_reply(error, outside, limit.sending)
        finally:
            adapter.close()

    def _no_reply(
        self, error: BaseException, outside: BaseException | None, sent: bool
    ) -> reply.NoReply:
        root = _root(error, outside)
        why = str(root) or type(root).__name__
        if isinstance(root, TimeoutError):
            doing = "answering" if sent else "connecting"
            why = f"{doing} took too long for a timeout of {self.timeout:g} s in all"
        elif isinstance(error, requests.exceptions.ProxyError):
            why = f"its proxy failed: {why}"
        # A file of certificates that is not there, a URL that is none, a proxy of unknown kind.
        impossible = isinstance(error, ValueError) or not isinstance(
            error, (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
        )
        untrusted = isinstance(root, ssl.SSLCertVerificationError)
        return reply.NoReply(
            why,
            sent,
            lasting=not sent and (impossible or untrusted),
            local=not sent and impossible,
            advice=_advice(error, root),
        )


def _advice(error: BaseException, root: BaseException) -> str:
    """What to do about a failure that may pass by itself, but mostly does not."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "Check proxies, and those of the environment; if they are right, try again later."
    if isinstance(root, socket.gaierror):
        return "Check the host in the URL, and whether this machine can resolve names (DNS)."
    if isinstance(root, ssl.SSLError) and root.reason in _NO_TLS:
        return "That port does not speak TLS: check the scheme and the port of the URL."
    return "Try again later."


def _checked(argument: str, url: str, allow_http: bool) -> tuple[str, str]:
    """The URL without its query, and the query."""
    if not isinstance(url, str):
        raise TypeError(f"{argument} must be a str, not {type(url).__name__}")
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0 or parts.scheme not in ("http", "https"):
        raise ValueError(f"{argument} must begin with https:// and a host: give it in full")
    if "@" in parts.netloc:
        raise ValueError(f"{argument} must not hold a user or password: give them as arguments")
    if parts.fragment:
        raise ValueError(f"{argument} must not have a fragment: end it before the '#'")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"{argument} has a space, backslash or control character: remove it")
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise errors.UnsafeTarget(
            f"{name} would get the secrets in clear text: use https, or pass allow_http=True if "
            "everyone on the way to that host may read them."
        )
    return name, parts.query


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value) and value > 0


def _is_loopback(host: str) -> bool:
    first, *others = host.split(".")
    return host in ("localhost", "::1") or (
        first == "127"
        and len(others) == 3
        and all(part.isascii() and part.isdigit() and len(part) <= 3 for part in others)
    )


def _root(error: BaseException, outside: BaseException | None) -> BaseException:
    """The first cause of *error*; not what the caller may have been handling before."""
    while (inner := error.__cause__ or error.__context__) not in (None, outside):
        error = inner
    return error
