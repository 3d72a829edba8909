"""One hop of a request through a connection pool of urllib3.

A hop that gets a token is converted to a request of :mod:`requests`, and is sent by a
:class:`~tokenadapter.TokenAdapter` through the pool.  So every rule is implemented once, and
    callback settings (``verdict``, ``attach``) get the same arguments as with requests.  Errors are
    errors of urllib3 as well, because that is what callers of urllib3 catch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError
from urllib3.util import Retry, Timeout, parse_url
from urllib3.util.proxy import connection_requires_http_tunnel
from urllib3.util.request import set_file_position

from tokenadapter.clients.prefix import names_its_host
from tokenadapter.clients.requests import without_401
from tokenadapter.clients.signers import Signer, choose, log_near_miss, log_unsigned
from tokenadapter.errors import TokenError, UnsafeTarget, also
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from tokenadapter.http import responses
else:
    responses = late("tokenadapter.http.responses")

__all__ = [
    "Hop",
    "Sent",
    "as_request",
    "cert_of",
    "for_urllib3",
    "is_proxied",
    "origin_of",
    "with_token",
]

_CERT_REMEDY = "pass cert_file and key_file to the pool or its manager"


class Sent(HTTPHeaderDict):
    """The headers of a hop that was processed here, with the token if it got one.

    When urllib3 repeats a hop, it passes on these headers, or a copy of the same class.  So the
    class distinguishes a repetition from a new hop.
    """


def as_request(
    pool: HTTPConnectionPool, method: str, url: str, body: Any, headers: Mapping[str, Any]
) -> PreparedRequest | None:
    """The hop as a request to an absolute URL; ``None`` if its destination is unknown.

    A connection leads to the host of its pool, whatever the request says.  A request that names
    another host, in its URL or its ``Host`` header, may be routed elsewhere from there.
    """
    request = PreparedRequest()
    request.method, request.body = method, body
    request.headers = CaseInsensitiveDict(headers)
    try:
        if url.startswith("/"):
            request.url = f"{origin_of(pool)}{url}"
        elif pool.is_same_host(url) or _is_forwarded(pool, url):
            request.url = url
        else:
            return None
        named = request.headers.get("Host")
        if named is not None and not names_its_host(request.url, named):
            return None
    except LocationParseError:
        return None
    return request


def origin_of(pool: HTTPConnectionPool) -> str:
    """The beginning of the URLs to which *pool* leads."""
    host = f"[{pool.host}]" if ":" in pool.host else pool.host
    port = "" if pool.port is None else f":{pool.port}"
    return f"{pool.scheme}://{host}{port}"


def is_proxied(pool: HTTPConnectionPool) -> bool:
    """Whether a pool sends through a proxy, which can read requests over plain ``http``."""
    return pool.proxy is not None or "_socks_options" in pool.conn_kw


def cert_of(pool: HTTPConnectionPool) -> Any:
    """The client certificate that *pool* presents, or the TLS context that may have one; ``""`` if
    there is neither."""
    return getattr(pool, "cert_file", None) or pool.conn_kw.get("ssl_context") or ""


def _is_forwarded(pool: HTTPConnectionPool, url: str) -> bool:
    """Whether the pool sends to a proxy that gets the absolute URL."""
    scheme = parse_url(url).scheme
    return pool.proxy is not None and not connection_requires_http_tunnel(
        pool.proxy, pool.proxy_config, scheme
    )


class Hop(BaseAdapter):
    """Sends a request as the hop from which it was made.

    urllib3 would decode the whole body of a preloaded response, to any size, even if the response
    is a refusal that no caller reads.  So the body is preloaded undecoded, and :meth:`decoded`
    decodes the response that goes to the caller.

    :param send: the original ``urlopen`` of the pool.
    :param how: its other arguments.
    """

    def __init__(
        self,
        pool: HTTPConnectionPool,
        request: PreparedRequest,
        url: str,
        headers: Mapping[str, Any],
        send: Callable[..., BaseHTTPResponse],
        how: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._made_of = request
        self._url = url
        self._headers = headers
        self._send = send
        self._preloads = how.get("preload_content", True)
        self._decodes = self._preloads and how.get("decode_content", True)
        self._how = {**how, "decode_content": False} if self._decodes else how
        self._pool_block = pool.block  # adapters of requests have this attribute

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        raw = self._send(
            request.method,
            self._url_of(request),
            request.body,
            self._headers_of(request),
            **self._how,
        )
        # The method uses the adapter only as the connection of the response.
        response = HTTPAdapter.build_response(cast("HTTPAdapter", self), request, cast("Any", raw))
        if self._preloads:
            response._content = raw.data
            response._content_consumed = True
            if self._decodes and "Content-Encoding" in raw.headers:
                response._content = responses.bounded_content(raw.data, raw.headers) or b""
        return response

    def decoded(self, raw: BaseHTTPResponse) -> BaseHTTPResponse:
        """*raw*, the response for the caller, decoded as urllib3 would have done.

        :raises urllib3.exceptions.DecodeError: if its body cannot be decoded.
        """
        if self._decodes and isinstance(raw, HTTPResponse):
            raw.decode_content = True
            encoding = raw.headers.get("Content-Encoding")
            if encoding is not None:
                headers = {"Content-Encoding": encoding}
                raw._body = HTTPResponse(io.BytesIO(raw.data), headers=headers).data
        return raw

    def close(self) -> None:
        """Do nothing: the pool belongs to the caller."""

    def _url_of(self, request: PreparedRequest) -> str:
        if request.url == self._made_of.url:
            return self._url
        # attach() has changed the URL.
        url = parse_url(request.url or "")
        return url.request_uri if self._url.startswith("/") else url.url

    def _headers_of(self, request: PreparedRequest) -> Sent:
        """The headers to send.  Unchanged fields keep their form: a repeated field stays
        repeated."""
        before, after = self._made_of.headers, request.headers
        headers = Sent(self._headers)
        for name in before:
            if name not in after:
                headers.discard(name)
        for name, value in after.items():
            if before.get(name) is not value:
                headers[name] = cast("str", value)
        return headers


# The further positional arguments of ``urlopen``.
_REST = (
    "timeout",
    "pool_timeout",
    "release_conn",
    "chunked",
    "body_pos",
    "preload_content",
    "decode_content",
)


def with_token(
    plain: Callable[..., BaseHTTPResponse],
    pool: HTTPConnectionPool,
    signers: Iterable[Signer],
    method: str,
    url: str,
    body: Any = None,
    headers: Any = None,
    retries: Any = None,
    redirect: bool = True,
    assert_same_host: bool = True,
    *rest: Any,
    **how: Any,
) -> BaseHTTPResponse:
    """``HTTPConnectionPool.urlopen`` of *pool*, with a token for requests under a prefix.

    :param plain: the original method.
    :param signers: the adapters of the pool.
    :raises UnsafeTarget: if a proxy would read a token that must stay on this machine.
    :raises TokenError: if there is no usable token and none can be obtained.
    """
    how.update(zip(_REST, rest, strict=False))
    headers = pool.headers if headers is None else headers
    request = adapter = None
    if not isinstance(headers, Sent):
        request = as_request(pool, method, url, body, headers)
    if request is not None:
        adapter = choose(signers, request.url or "")
        if adapter is None:
            log_near_miss(signers, request.url or "")
    if request is None or adapter is None:
        unsigned = plain(method, url, body, headers, retries, redirect, assert_same_host, **how)
        if request is not None and unsigned.status == 401:
            log_unsigned(signers, request, unsigned)
        return unsigned
    if not isinstance(retries, Retry):
        retries = Retry.from_int(retries, redirect=redirect, default=pool.retries)
    how["body_pos"] = set_file_position(body, how.get("body_pos"))
    once = {
        **how,
        "body_pos": None,
        "retries": without_401(retries),
        "redirect": False,
        "assert_same_host": assert_same_host,
    }
    try:
        if adapter.rules.prefix.stays_here and is_proxied(pool):
            raise UnsafeTarget(
                f"A proxy could read the token for {adapter.prefix}. The request was not sent. "
                "Bypass the proxy, or pass allow_http=True if everyone on the way may read the "
                "token."
            )
        hop = Hop(pool, request, url, headers, plain, once)
        sender = adapter.around(hop, cert_remedy=_CERT_REMEDY)
        answer = sender.send(request, timeout=_timeout(pool, how), cert=cert_of(pool))
        response: BaseHTTPResponse = hop.decoded(answer.raw)
    except TokenError as error:
        raise for_urllib3(error) from error.__cause__
    if response.retries is not None and once["retries"] is not retries:
        # Hops to other places follow the caller's own rule for 401.
        response.retries = response.retries.new(status_forcelist=retries.status_forcelist)
    location = redirect and response.get_redirect_location()
    if not location:
        return response
    follow = partial(pool.urlopen, assert_same_host=assert_same_host, **how)
    return _followed(response, location, pool, method, url, body, headers, follow)


def _timeout(pool: HTTPConnectionPool, how: Mapping[str, Any]) -> Any:
    timeout = how.get("timeout", pool.timeout)
    # urllib3 has a special object for "the default of the pool".
    return timeout if isinstance(timeout, (Timeout, int, float, type(None))) else pool.timeout


def _followed(
    response: BaseHTTPResponse,
    location: str,
    pool: HTTPConnectionPool,
    method: str,
    url: str,
    body: Any,
    headers: Any,
    follow: Callable[..., BaseHTTPResponse],
) -> BaseHTTPResponse:
    """Follow the redirect of *response*, as urllib3 does for a pool.

    urllib3 cannot follow it, since it would send the token along.
    """
    headers = HTTPHeaderDict(headers)
    if response.status == 303:  # RFC 9110 section 15.4.4
        method, body, follow = "GET", None, partial(follow, chunked=False, body_pos=None)
        headers._prepare_for_method_change()
    retries = response.retries or Retry.DEFAULT
    if not pool.is_same_host(location):
        for name in retries.remove_headers_on_redirect:
            headers.discard(name)
    try:
        retries = retries.increment(method, url, response=response, _pool=pool)
    except MaxRetryError:
        if retries.raise_on_redirect:
            response.drain_conn()
            raise
        return response
    response.drain_conn()
    retries.sleep_for_retry(response)
    return follow(method, location, body, headers, retries, True)


def for_urllib3(error: TokenError) -> TokenError:
    """A copy of *error* that is also a :class:`urllib3.exceptions.HTTPError`."""
    return also(error, HTTPError)
