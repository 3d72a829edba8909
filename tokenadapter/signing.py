"""The copy of a request that carries the token.

The caller's own request is never touched: it turns up in ``response.request``, in redirects, in
exceptions and in logs, and none of them may show the token.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict

__all__ = ["add_cookies", "copy_of"]


def copy_of(request: PreparedRequest) -> PreparedRequest:
    """A copy with headers of its own; all else is shared.

    ``PreparedRequest.copy`` would copy the cookie jar too, which nobody changes from here on, and
    costs more than everything else that happens to a request on its way through the adapter.
    """
    copy = object.__new__(type(request))
    copy.__dict__.update(request.__dict__)
    copy.headers = _headers_of(request.headers)
    return copy


def add_cookies(request: PreparedRequest, refusal: Response) -> PreparedRequest:
    """*request* with the cookies that *refusal* set, for the replay.

    A ``Cookie`` header that the caller wrote by hand is left as it is.
    """
    copy = request.copy()
    jar = copy._cookies
    if not refusal.cookies or jar is None:
        return request
    if copy.headers.pop("Cookie", None) != get_cookie_header(jar, copy):
        return request
    extract_cookies_to_jar(jar, refusal.request, refusal.raw)
    copy.prepare_cookies(jar)
    return copy


def _headers_of(headers: Any) -> CaseInsensitiveDict[str | bytes]:
    # The one place that leans on a private of requests: copying the dict inside is five times as
    # fast as the public copy, which inserts the headers one by one.
    store = getattr(headers, "_store", None)
    if type(headers) is not CaseInsensitiveDict or not isinstance(store, OrderedDict):
        return CaseInsensitiveDict(headers)
    copy: CaseInsensitiveDict[str | bytes] = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    copy._store = store.copy()
    return copy
