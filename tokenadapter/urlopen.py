"""The way of one hop through a connection pool of urllib3.

A hop that gets a token becomes a request of requests, and goes through a
:class:`~tokenadapter.TokenAdapter` that sends with the pool.  So every rule stands in one place,
and settings that are functions (``verdict``, ``attach``) are given the same here as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry, Timeout
from urllib3.util.request import set_file_position

from tokenadapter.arguments import without_401
from tokenadapter.errors import TokenError, UnsafeTarget
from tokenadapter.hop import Hop, Sent, as_request, is_proxied
from tokenadapter.signers import Signer, choose, tell_near_miss
from tokenadapter.urllib3_errors import for_urllib3

__all__ = ["with_token"]

# The arguments of ``urlopen`` that follow those that are used here.
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
    """``HTTPConnectionPool.urlopen`` of *pool*, with a token where one is due.

    :param plain: the same without us.
    :param signers: the adapters over the pool.
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
            tell_near_miss(signers, request.url or "")
    if request is None or adapter is None:
        return plain(method, url, body, headers, retries, redirect, assert_same_host, **how)
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
        if adapter.stays_here and is_proxied(pool):
            raise UnsafeTarget(
                f"A proxy would read the token for {adapter.prefix}: send it past the proxy, or "
                "pass allow_http=True if everyone on the way may read it."
            )
        hop = Hop(pool, request, url, headers, plain, once)
        answer = adapter.around(hop).send(request, timeout=_timeout(pool, how))
        response: BaseHTTPResponse = hop.decoded(answer.raw)
    except TokenError as error:
        raise for_urllib3(error) from error.__cause__
    if response.retries is not None and once["retries"] is not retries:
        # What comes after this hop, elsewhere, has its 401s repeated as it wants.
        response.retries = response.retries.new(status_forcelist=retries.status_forcelist)
    location = redirect and response.get_redirect_location()
    if not location:
        return response
    follow = partial(pool.urlopen, assert_same_host=assert_same_host, **how)
    return _followed(response, location, pool, method, url, body, headers, follow)


def _timeout(pool: HTTPConnectionPool, how: Mapping[str, Any]) -> Any:
    timeout = how.get("timeout", pool.timeout)
    # urllib3 has an object of its own for "as the pool has it".
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
    """The answer from where *response* points to, asked as urllib3 does for a pool alone.

    It cannot do so itself: it would take the token along.
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
