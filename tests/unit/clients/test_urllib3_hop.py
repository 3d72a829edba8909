"""The destination of a hop of urllib3, and its way through an adapter."""

from __future__ import annotations

from typing import Any

import pytest
from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPSConnectionPool, PoolManager
from urllib3.util import SKIP_HEADER

from tokenadapter.clients.urllib3_hop import Hop, Sent, as_request


@pytest.mark.parametrize(
    ("pool", "url", "expected"),
    [
        (HTTPSConnectionPool("api.example.com"), "/x?a=b", "https://api.example.com/x?a=b"),
        (HTTPSConnectionPool("API.example.com", 8443), "/x", "https://api.example.com:8443/x"),
        (HTTPConnectionPool("::1", 80), "/x", "http://[::1]:80/x"),
        (HTTPConnectionPool("[::1]"), "/x", "http://[::1]/x"),
        (
            PoolManager().connection_from_url("https://a.example.com"),
            "/",
            "https://a.example.com:443/",
        ),
        (
            HTTPSConnectionPool("a.example.com"),
            "https://a.example.com/x",
            "https://a.example.com/x",
        ),
        (
            HTTPSConnectionPool("a.example.com"),
            "//b.example.com/",
            "https://a.example.com//b.example.com/",
        ),
        (HTTPSConnectionPool("a.example.com"), "http://a.example.com/x", None),
        (HTTPSConnectionPool("a.example.com"), "https://b.example.com/x", None),
        (HTTPSConnectionPool("a.example.com"), "https://a.example.com:8443/x", None),
        (HTTPSConnectionPool("a.example.com"), "https://[", None),
        (HTTPSConnectionPool("a.example.com"), "x", None),
        (HTTPSConnectionPool("a.example.com"), "", None),
    ],
)
def test_a_hop_becomes_a_request_to_an_absolute_url(
    pool: HTTPConnectionPool, url: str, expected: str | None
) -> None:
    request = as_request(pool, "GET", url, b"body", {"X": "1"})
    assert (request and request.url) == expected
    if request is not None:
        assert (request.method, request.body, request.headers) == ("GET", b"body", {"x": "1"})


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("a.example.com", True),
        ("A.Example.com:8443", True),
        ("b.example.com", False),
        ("a.example.com, b.example.com", False),
        (SKIP_HEADER, False),
        (b"a.example.com", False),
        ("", False),
    ],
)
def test_a_hop_whose_host_header_names_another_host_is_unknown(host: Any, is_known: bool) -> None:
    request = as_request(HTTPSConnectionPool("a.example.com"), "GET", "/x", None, {"host": host})
    assert (request is not None) == is_known


def test_unchanged_headers_keep_their_form() -> None:
    headers = HTTPHeaderDict([("X-Twice", "a"), ("X-Twice", "b"), ("X-Old", "1"), ("X-Case", "c")])
    pool = HTTPSConnectionPool("a.example.com")
    request = as_request(pool, "GET", "/x", None, headers)
    assert request is not None
    sent: list[Any] = []

    class NotSent(Exception):
        pass

    def send(method: str, url: str, body: Any, headers: Any, **how: Any) -> Any:
        sent.extend([url, headers])
        raise NotSent

    changed = request.copy()
    changed.headers["x-case"] = changed.headers.pop("X-Case")
    changed.headers["X-New"] = "n"
    del changed.headers["x-old"]
    changed.url = "https://elsewhere.example.com/y?token=1"
    with pytest.raises(NotSent):
        Hop(pool, request, "/x", headers, send, {}).send(changed)
    assert sent[0] == "/y?token=1"  # the connection has a fixed destination
    assert list(sent[1].items()) == [
        ("X-Twice", "a"),
        ("X-Twice", "b"),
        ("X-Case", "c"),
        ("X-New", "n"),
    ]
    # A copy, as urllib3 makes, is recognised too.
    assert type(sent[1]) is type(sent[1].copy()) is Sent
