"""The tests of httpx itself, with a ``TokenAuth`` under every client.

    tox -e httpx-suite

The exit code is 0 if what passes with plain httpx passes with this file as a plugin, but for what
stands in ``KNOWN``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from their_suite import compare

from tokenadapter import TokenAuth, UnsafeTarget

_SIGNED = "it compares all headers that were sent; ours have a token"
_AGAIN = "it counts the answers; a hop under the prefix is sent again with the token"
_RECORDED = "it wants a body that was consumed to be refused; ours was recorded, and is sent again"
_HEADERS = "tests.client.test_headers::test_"
_REDIRECTS = "tests.client.test_redirects::test_"

KNOWN: Mapping[str, str] = {
    "tests.client.test_auth::test_auth_disable_per_request[asyncio]": _SIGNED,
    "tests.client.test_auth::test_auth_disable_per_request[trio]": _SIGNED,
    "tests.client.test_client::test_raw_client_header": _SIGNED,
    "tests.test_asgi::test_asgi_headers[asyncio]": _SIGNED,
    "tests.test_asgi::test_asgi_headers[trio]": _SIGNED,
    "tests.test_main::test_verbose": _SIGNED,
    f"{_HEADERS}client_header": _SIGNED,
    f"{_HEADERS}header_merge": _SIGNED,
    f"{_HEADERS}header_merge_conflicting_headers": _SIGNED,
    f"{_HEADERS}header_update": _SIGNED,
    f"{_HEADERS}remove_default_header": _SIGNED,
    "tests.test_main::test_follow_redirects": _AGAIN,
    f"{_REDIRECTS}fragment_redirect": _AGAIN,
    f"{_REDIRECTS}head_redirect": _AGAIN,
    f"{_REDIRECTS}multiple_redirects": _AGAIN,
    f"{_REDIRECTS}no_scheme_redirect": _AGAIN,
    f"{_REDIRECTS}redirect_301": _AGAIN,
    f"{_REDIRECTS}redirect_302": _AGAIN,
    f"{_REDIRECTS}redirect_303": _AGAIN,
    f"{_REDIRECTS}relative_redirect": _AGAIN,
    f"{_REDIRECTS}cannot_redirect_streaming_body": _RECORDED,
}
"""Tests that pass with plain httpx only, and why."""


def pytest_configure() -> None:
    """Give each request an ``Auth`` of ours that would have none.

    The tests bring their own credentials, which win here: what is compared is all the rest.
    """
    kind: Any = httpx.Client.__mro__[1]
    plain_auth = kind._build_request_auth
    ours: dict[str, httpx.Auth] = {}

    def build_request_auth(self: Any, request: httpx.Request, *args: Any, **how: Any) -> httpx.Auth:
        auth: httpx.Auth = plain_auth(self, request, *args, **how)
        if type(auth) is not httpx.Auth:
            return auth
        origin = str(request.url.copy_with(raw_path=b"/", fragment=None))
        try:
            if origin not in ours:
                ours[origin] = TokenAuth(
                    origin, lambda previous: "made-up", override_auth=False, allow_http=True
                )
        except UnsafeTarget:
            return auth
        return ours[origin]

    kind._build_request_auth = build_request_auth


if __name__ == "__main__":
    sys.exit(compare("httpx", Path(__file__).stem, KNOWN))
