"""One hop of a request through a connection pool of urllib3, in the shape that requests has."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url
from urllib3.util.proxy import connection_requires_http_tunnel

from tokenadapter.late import late
from tokenadapter.prefix import names_its_host

if TYPE_CHECKING:
    from tokenadapter import peek
else:
    peek = late("tokenadapter.peek")

__all__ = ["Hop", "Sent", "as_request", "is_proxied"]


class Sent(HTTPHeaderDict):
    """The headers of a hop, with the token if it gets one.

    When urllib3 repeats what it sent, it hands on these, or a copy of the same class.  That is how
    a repetition is told from a hop that has yet to be looked at.
    """


def as_request(
    pool: HTTPConnectionPool, method: str, url: str, body: Any, headers: Mapping[str, Any]
) -> PreparedRequest | None:
    """The hop as a request to an absolute URL; ``None`` if nobody can tell where it ends.

    A connection leads to the host of its pool, whatever the request says: what names another host,
    in its URL or its ``Host``, may be routed elsewhere from there.
    """
    request = PreparedRequest()
    request.method, request.body = method, body
    request.headers = CaseInsensitiveDict(headers)
    try:
        if url.startswith("/"):
            host = f"[{pool.host}]" if ":" in pool.host else pool.host
            port = "" if pool.port is None else f":{pool.port}"
            request.url = f"{pool.scheme}://{host}{port}{url}"
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


def is_proxied(pool: HTTPConnectionPool) -> bool:
    """Whether the requests of a pool pass another machine, which reads those of plain ``http``."""
    return pool.proxy is not None or "_socks_options" in pool.conn_kw


def _is_forwarded(pool: HTTPConnectionPool, url: str) -> bool:
    """Whether the pool is one to a proxy that is told the whole URL."""
    scheme = parse_url(url).scheme
    return pool.proxy is not None and not connection_requires_http_tunnel(
        pool.proxy, pool.proxy_config, scheme
    )


class Hop(BaseAdapter):
    """Sends a request as the hop that it was made of.

    urllib3 would decode the whole body of what it preloads, however much that becomes: of a
    refusal, nobody asked for that.  So it preloads the body as it came, and what is handed to the
    caller is decoded by :meth:`decoded`.

    :param send: the ``urlopen`` of the pool, as it is without us.
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
        self._pool_block = pool.block  # as adapters of requests have it

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:
        raw = self._send(
            request.method,
            self._url_of(request),
            request.body,
            self._headers_of(request),
            **self._how,
        )
        # Of the adapter that it is a method of, it makes use as the connection only.
        response = HTTPAdapter.build_response(cast("HTTPAdapter", self), request, cast("Any", raw))
        if self._preloads:
            response._content = raw.data
            response._content_consumed = True
            if self._decodes and "Content-Encoding" in raw.headers:
                response._content = peek.bounded_content(raw.data, raw.headers) or b""
        return response

    def decoded(self, raw: BaseHTTPResponse) -> BaseHTTPResponse:
        """*raw*, an answer to this hop that goes to the caller, as urllib3 would hand it over.

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
        """Nothing: the pool belongs to others."""

    def _url_of(self, request: PreparedRequest) -> str:
        if request.url == self._made_of.url:
            return self._url
        # Something has been attached to it.
        url = parse_url(request.url or "")
        return url.request_uri if self._url.startswith("/") else url.url

    def _headers_of(self, request: PreparedRequest) -> Sent:
        """What has become of the headers; those that are the same, as they were: a field that is
        there twice stays so."""
        before, after = self._made_of.headers, request.headers
        headers = Sent(self._headers)
        for name in before:
            if name not in after:
                headers.discard(name)
        for name, value in after.items():
            if before.get(name) is not value:
                headers[name] = cast("str", value)
        return headers
