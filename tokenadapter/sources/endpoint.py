"""A URL that secrets are sent to: one request, one answer, and no surprises on the way.

No redirect is followed, because a 307 or 308 would send the secrets on.  No netrc is read, because
it may have another account for that host.  Proxies and CA bundles come from the environment, as
everywhere in requests.  Each request has a connection of its own: after a fork, two processes that
share one get each other's answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenadapter.late_imports import late
from tokenadapter.token import fingerprint
from tokenadapter.values import is_loopback, never

if TYPE_CHECKING:
    import socket
    import ssl

    import requests
    import urllib3

    from tokenadapter import errors, spelling
    from tokenadapter.http import masking
    from tokenadapter.sources import deadline, reply
else:
    deadline = late("tokenadapter.sources.deadline")
    errors = late("tokenadapter.errors")
    masking = late("tokenadapter.http.masking")
    reply = late("tokenadapter.sources.reply")
    requests = late("requests")
    spelling = late("tokenadapter.spelling")
    socket = late("socket")
    ssl = late("ssl")
    urllib3 = late("urllib3")

__all__ = ["Endpoint"]

# In bytes.  No token response is longer.
_LONGEST_ANSWER = 1 << 20
# The reasons that versions of OpenSSL give where a server answers without TLS.
_NO_TLS = frozenset(
    {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER"}
)
# What to do about a failure that does not pass by itself.
_CHECK = "Check the URL, verify, cert and proxies, and those of the environment."


class Endpoint:
    """A URL and how to reach it.

    :param argument: the argument that the URL was passed as, for messages.
    :param url: ``https``, or ``http`` on this machine.
    :param timeout: seconds for the whole exchange.
    :param verify: whether to verify the server's certificate, or a path to CA certificates.
    :param cert: a client certificate: a path, or those of certificate and key.
    :param proxies: proxy URLs by scheme or by scheme and host.
    :param allow_http: accept plain ``http`` to other machines.
    :raises UnsafeTarget: the secrets would be sent in clear.
    :raises ValueError: an argument makes no sense.
    :ivar name: the URL without its query, which may contain a secret: for messages.
    :ivar identity: the URL with the fingerprint of its query: it tells two endpoints apart.
    """

    __slots__ = ("_stays_here", "cert", "identity", "name", "proxies", "timeout", "url", "verify")

    def __init__(
        self,
        argument: str,
        url: str,
        *,
        timeout: float = 10.0,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool = False,
    ) -> None:
        name, query = _checked(argument, url, allow_http)
        self.name: str = name
        self.identity: str = f"{self.name}?{fingerprint(query)}" if query else self.name
        if not _is_time(timeout):
            raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        for place, file in (("verify", verify), ("cert", cert)):
            for text in file if isinstance(file, tuple) else [file]:
                # The content in place of the path: an error of requests would show it.
                if isinstance(text, str) and not spelling.may_be_path(text):
                    raise ValueError(f"{place} is not the path of a file")
        self.url: str = url
        # Without TLS to this machine: a proxy elsewhere would read the secrets.
        self._stays_here = self.name.startswith("http:") and not allow_http
        self.timeout: float = timeout
        self.verify: bool | str | None = verify
        self.cert: str | tuple[str, str] | None = cert
        self.proxies: dict[str, str] = dict(proxies or {})

    @property
    def secrets(self) -> set[str]:
        """What may be secret in the URL."""
        return masking.query_secrets(urlsplit(self.url).query)

    def exchange(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None,
        keep_waiting: Callable[[], bool] = never,
        seconds: float | None = None,
    ) -> reply.Reply | reply.NoReply:
        """Send one request and read the answer, within the timeout.

        :param keep_waiting: called if the request was sent and the time is over, and then every
            second: whether to go on waiting for the answer.
        :param seconds: what is left of the timeout, if another request has used a part of it.
        """
        outside = sys.exception()
        seconds = self.timeout if seconds is None else max(min(seconds, self.timeout), 0.001)
        limit = deadline.Deadline(seconds, keep_waiting)
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
            with adapter.send(request, timeout=seconds, **settings) as response:
                answer = bytearray()
                for piece in response.iter_content(65536):
                    answer += piece
                    if len(answer) > _LONGEST_ANSWER:
                        return reply.NoReply("the answer is longer than 1 MiB", sent=True)
                return reply.Reply(
                    response.status_code, response.headers, response.cookies, bytes(answer)
                )
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            # Only the text is kept: the error has the request, and the request the secrets.
            return self._no_reply(error, outside, limit)
        finally:
            adapter.close()

    def _no_reply(
        self, error: BaseException, outside: BaseException | None, limit: deadline.Deadline
    ) -> reply.NoReply:
        root, sent = _root(error, outside), limit.sending
        why = str(root) or type(root).__name__
        if isinstance(root, TimeoutError):
            doing = "answering" if sent else "connecting"
            why = f"{doing} took too long for the total timeout of {self.timeout:g} s"
            if limit.seconds > self.timeout:
                why = f"no answer came within {limit.seconds:.0f} s"
            if limit.tried and not sent:
                why += f" (tried {', '.join(limit.tried)})"
        elif isinstance(error, requests.exceptions.ProxyError):
            why = f"its proxy failed: {why}"
        # A missing file of certificates, an invalid URL, a proxy of an unknown kind.
        impossible = isinstance(error, ValueError) or not isinstance(
            error, (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
        )
        untrusted = isinstance(root, ssl.SSLCertVerificationError)
        lasting = not sent and (impossible or untrusted)
        advice = _CHECK if lasting else _advice(error, root)
        if "SOCKS support" in why:
            advice = "Run `pip install 'tokenadapter[socks]'`."
        return reply.NoReply(
            why, sent, lasting=lasting, local=not sent and impossible, advice=advice
        )


def _advice(error: BaseException, root: BaseException) -> str:
    """What to do about a failure: some may pass by themselves, but mostly do not."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "Check proxies, and those in the environment. If they are right, try again later."
    if isinstance(root, socket.gaierror):
        return "Check the host in the URL, and whether this machine can resolve names (DNS)."
    if isinstance(root, ssl.SSLError) and root.reason in _NO_TLS:
        return "The port does not speak TLS: check the scheme and the port of the URL."
    return "Try again later."


def _checked(argument: str, url: str, allow_http: bool) -> tuple[str, str]:
    """The URL without its query, and the query."""
    if not isinstance(url, str):
        raise TypeError(f"{argument} must be a str, not {type(url).__name__}")
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0 or parts.scheme not in ("http", "https"):
        raise ValueError(f"{argument} must begin with https:// and a host")
    if "@" in parts.netloc:
        raise ValueError(f"{argument} must not contain a user or password: pass them as arguments")
    if parts.fragment:
        raise ValueError(f"{argument} must not have a fragment: remove it from the '#' on")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"{argument} has a space, backslash or control character: remove it")
    name = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise errors.UnsafeTarget(
            f"The secrets would be sent to {name} in clear text: use https, or pass "
            "allow_http=True if everyone on the way to that host may read them."
        )
    return name, parts.query


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value) and value > 0


def _root(error: BaseException, outside: BaseException | None) -> BaseException:
    """The first cause of *error*, but not *outside*, which the caller was handling before."""
    while (inner := error.__cause__ or error.__context__) not in (None, outside):
        error = inner
    return error
