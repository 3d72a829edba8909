"""The copy of a request that carries the token.

The caller's own request is never touched: it turns up in ``response.request``, in redirects, in
exceptions and in logs, and none of them may show the token.
"""

from __future__ import annotations

from typing import Any

from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict

__all__ = ["add_cookies", "named_host", "signed", "whole_copy"]

# The one place that leans on privates of requests: what a request consists of, and where its
# headers keep their items.  A release of requests that changes either is known by this.
_AS_KNOWN = vars(CaseInsensitiveDict()) == {"_store": {}} and vars(PreparedRequest()).keys() == {
    "method",
    "url",
    "headers",
    "_cookies",
    "body",
    "hooks",
    "_body_position",
}
_new = object.__new__


class _Headers(CaseInsensitiveDict[str | bytes]):
    """Headers on their way out: urllib3 copies them, and reads them all, once.

    What it then saves is as much as the signature costs.
    """

    def copy(self) -> _Headers:
        """A copy in one go, instead of item by item."""
        copy = _new(_Headers)
        copy._store = self._store.copy()
        return copy

    def items(self) -> Any:
        """The pairs as they are kept, instead of a look-up for each."""
        return self._store.values()


def named_host(request: PreparedRequest) -> object:
    """What the ``Host`` header of *request* says; ``None`` if there is none, as is usual."""
    headers = request.headers
    if type(headers) is not CaseInsensitiveDict or not _AS_KNOWN:
        return headers.get("Host")
    # A look-up that fails costs a tenth of that of a CaseInsensitiveDict.
    found = headers._store.get("host")
    return None if found is None else found[1]


def signed(request: PreparedRequest, header: str, value: str) -> PreparedRequest:
    """A copy of *request* with *header* set to *value*; all but the headers is shared.

    ``PreparedRequest.copy`` would copy the cookie jar too, which nobody changes from here on, and
    insert the headers one by one: it costs more than everything else that happens to a request on
    its way through the adapter.
    """
    if (
        type(request) is not PreparedRequest
        or type(request.headers) is not CaseInsensitiveDict
        or not _AS_KNOWN
    ):
        return _signed_in_general(request, header, value)
    # Field by field: to ask for the __dict__ of an object slows down whatever follows.
    copy = _new(PreparedRequest)
    copy.method = request.method
    copy.url = request.url
    copy.headers = _new(_Headers)
    copy.headers._store = store = request.headers._store.copy()
    store[header.lower()] = (header, value)
    copy._cookies = request._cookies
    copy.body = request.body
    copy.hooks = request.hooks
    copy._body_position = request._body_position
    return copy


def whole_copy(request: PreparedRequest) -> PreparedRequest:
    """A copy with which anything may be done: only the body is shared."""
    copy = request.copy()
    copy.hooks = {event: list(hooks) for event, hooks in request.hooks.items()}
    return copy


def add_cookies(request: PreparedRequest, refusal: Response) -> PreparedRequest:
    """*request* with the cookies that *refusal* set, for the replay.

    A ``Cookie`` header that the caller wrote by hand is left as it is.
    """
    copy = request.copy()
    jar = copy._cookies
    # Not its cookies: it may delete one.
    if "Set-Cookie" not in refusal.headers or jar is None:
        return request
    if copy.headers.pop("Cookie", None) != get_cookie_header(jar, copy):
        return request
    extract_cookies_to_jar(jar, refusal.request, refusal.raw)
    copy.prepare_cookies(jar)
    return copy


def _signed_in_general(request: PreparedRequest, header: str, value: str) -> PreparedRequest:
    copy = object.__new__(type(request))
    vars(copy).update(vars(request))
    copy.headers = CaseInsensitiveDict(request.headers)
    copy.headers[header] = value
    return copy
