"""The place of the token in an answer: headers, cookies, JSON, or the whole body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from tokenadapter.sources.places import Places, pick
from tokenadapter.sources.reply import Reply

CONTENT = {"token": "plain", "data": {"session": {"token": "deep"}}, "none": None}


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
        ("header:X-Auth-Token", "in a header"),
        ("header:x-auth-token", "in a header"),
        ("cookie:session", "in a cookie"),
    ],
)
def test_a_path_leads_to_a_member_a_header_or_a_cookie(path: str, expected: Any) -> None:
    assert pick(reply(session="in a cookie"), path) == expected


@pytest.mark.parametrize(
    "path", ["nothing", "data.nothing", "none", "header:X-Nothing", "cookie:nothing", "."]
)
def test_a_path_that_leads_nowhere_gives_none(path: str) -> None:
    assert pick(reply(session="in a cookie"), path) is None


@pytest.mark.parametrize("body", ['"abc.def"', "abc.def", " abc.def\n", "\ufeffabc.def"])
def test_the_whole_answer_may_be_the_token(body: str) -> None:
    assert pick(reply(body), ".") == "abc.def"


def test_a_number_may_be_the_whole_answer() -> None:
    assert pick(reply("123456"), ".") == "123456"


@pytest.mark.parametrize("body", ["<p>Welcome", "Please log in", "", "{}", "[", b"\xff\xfe"])
def test_a_text_for_people_is_not_a_token(body: str | bytes) -> None:
    assert pick(reply(body), ".") is None


@pytest.mark.parametrize("argument", ["token", "expires_in", "expires_at"])
@pytest.mark.parametrize("path", ["", "header:", "cookie:"])
def test_a_path_that_names_nothing_is_refused(argument: str, path: str) -> None:
    places = Places("token", None, None)._replace(**{argument: path})
    with pytest.raises(ValueError, match=rf"{argument}=.* names nothing"):
        places.checked()


@pytest.mark.parametrize("argument", ["token", "expires_at"])
def test_a_path_is_a_text(argument: str) -> None:
    places = Places("token", None, None)._replace(**{argument: 1})
    with pytest.raises(TypeError, match=f"{argument} must be a path"):
        places.checked()


@pytest.mark.parametrize("token", ["eyJhbGciOiJub25lIn0.e30.", "t0ken" * 50])
def test_a_token_in_place_of_its_path_is_an_error_that_does_not_show_it(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token is not a path in the answer") as caught:
        Places(token, None, None).checked()
    assert token not in str(caught.value)
