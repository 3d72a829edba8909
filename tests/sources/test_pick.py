"""Paths into an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from tokenadapter.sources.pick import checked_path, cookie, pick
from tokenadapter.sources.reply import Reply

CONTENT = {
    "token": "plain",
    "data": {"session": {"token": "deep"}},
    "items": [{"token": "first"}, {"token": "second"}],
    "matrix": [["a", "b"]],
    "https://claims.example/token": "dotted",
    "outer": {"a.b": {"c": "dotted within"}},
    "a": {"b": "by steps"},
    "a.b": "by name",
    "none": None,
}


def reply(body: str | bytes = json.dumps(CONTENT), **cookies: str) -> Reply:
    jar = RequestsCookieJar()
    for name, value in cookies.items():
        jar.set(name, value)
    headers = CaseInsensitiveDict({"X-Auth-Token": "in a header"})
    return Reply(200, headers, jar, body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("token", "plain"),
        ("data.session.token", "deep"),
        ("data.session", {"token": "deep"}),
        ("items.0.token", "first"),
        ("items.1.token", "second"),
        ("matrix.0.1", "b"),
        ("https://claims.example/token", "dotted"),
        ("a.b", "by name"),
        ("header:X-Auth-Token", "in a header"),
        ("header:x-auth-token", "in a header"),
        ("cookie:session", "in a cookie"),
    ],
)
def test_a_path_finds(path: str, expected: Any) -> None:
    assert pick(reply(session="in a cookie"), path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "token.deeper",
        "data.session.nothing",
        "items.2.token",
        "items.-1.token",
        "items.first",
        "items.²",
        "none",
        "none.deeper",
        "data.",
        "header:X-Nothing",
        "cookie:nothing",
        ".",
    ],
)
def test_a_path_that_leads_nowhere_finds_nothing(path: str) -> None:
    assert pick(reply(), path) is None


@pytest.mark.parametrize("body", ['"abc.def"', "abc.def", " abc.def\n", "\ufeffabc.def"])
def test_the_whole_answer_may_be_the_token(body: str) -> None:
    assert pick(reply(body), ".") == "abc.def"


def test_a_number_may_be_the_whole_answer() -> None:
    assert pick(reply("123456"), ".") == "123456"


@pytest.mark.parametrize("body", ["<p>Welcome", "Please log in", "", "{}", "[", b"\xff\xfe"])
def test_what_is_written_for_people_is_not_a_token(body: str | bytes) -> None:
    assert pick(reply(body), ".") is None


def test_only_a_path_to_a_cookie_names_one() -> None:
    assert cookie(reply(session="x"), "session") is None
    assert cookie(reply(session="x"), "header:session") is None
    found = cookie(reply(session="x"), "cookie:session")
    assert found is not None
    assert found.value == "x"


@pytest.mark.parametrize("path", ["", "header:", "cookie:"])
def test_a_path_that_names_nothing_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"token=.* names nothing"):
        checked_path("token", path)


def test_a_path_is_a_text() -> None:
    with pytest.raises(TypeError, match="token must be a path"):
        checked_path("token", 1)  # type: ignore[arg-type]
