"""The copy that carries the token, of requests from subclasses and other packages."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from tokenadapter import TokenAdapter
from tokenadapter.clients import requests as signing
from tokenadapter.clients.requests import signed
from tokenadapter.testing import TokenServer


class Request(PreparedRequest):
    """One that a program made a class of its own for, with a field of its own."""

    note = "none"


class Headers(CaseInsensitiveDict):
    pass


def prepared(made: PreparedRequest, headers: Any = None) -> PreparedRequest:
    made.prepare("PUT", "https://api.example.com/x", headers={"X-One": "1"}, data=b"body")
    if headers is not None:
        made.headers = headers(made.headers)
    return made


@pytest.mark.parametrize(
    ("kind", "headers"),
    [(PreparedRequest, None), (Request, None), (PreparedRequest, Headers), (PreparedRequest, dict)],
)
@pytest.mark.parametrize("is_known", [True, False], ids=["requests as known", "another release"])
def test_the_copy_alone_is_signed(
    kind: type[PreparedRequest], headers: Any, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_AS_KNOWN", is_known)
    request = prepared(kind(), headers)
    if kind is Request:
        request.note = "mine"
    copy = signed(request, "authorization", "Bearer made-up")
    assert type(copy) is kind
    assert {**copy.headers} == {**request.headers, "authorization": "Bearer made-up"}
    twin = copy.headers.copy()
    twin["x-two"] = "2"
    assert {**twin} == {**copy.headers, "x-two": "2"}
    assert [*copy.headers.items()] == [(name, copy.headers[name]) for name in copy.headers]
    assert "authorization" not in request.headers
    assert copy.headers["Authorization"] == "Bearer made-up"
    assert (copy.method, copy.url, copy.body) == ("PUT", request.url, b"body")
    assert copy.hooks is request.hooks
    assert getattr(copy, "note", "mine") == "mine"


def test_a_request_of_another_class_is_sent_and_stays_as_it_was(server: TokenServer) -> None:
    with requests.Session() as session:
        TokenAdapter(server.api_url, lambda previous: server.issue()["access_token"]).mount(session)
        request = Request()
        request.prepare("PUT", f"{server.api_url}x", headers={}, data=b"body")
        answer = session.send(request)
    assert answer.json()["length"] == 4
    assert answer.request is request
    assert "Authorization" not in request.headers
