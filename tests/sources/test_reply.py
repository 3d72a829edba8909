"""Reading what a server answered."""

from __future__ import annotations

from http.cookiejar import CookieJar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from tokenadapter.sources.reply import Reply


def reply(body: bytes, content_type: str | None = None, status: int = 200) -> Reply:
    headers = CaseInsensitiveDict({"content-type": content_type} if content_type else {})
    return Reply(status, headers, CookieJar(), body)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"a": "1"}', "application/json"),
        (b'{"a": "1"}', "application/json; charset=utf-8"),
        (b'{"a": "1"}', "text/html"),
        (b'{"a": "1"}', None),
        (b'\xef\xbb\xbf {"a": "1"}', "text/plain"),
        (b"a=1", "application/x-www-form-urlencoded"),
        (b"a=1", "Application/X-WWW-Form-Urlencoded; charset=utf-8"),
    ],
)
def test_json_and_forms_are_read_whatever_the_server_calls_its_json(
    body: bytes, content_type: str | None
) -> None:
    assert reply(body, content_type).fields == {"a": "1"}


def test_an_error_is_understood_although_its_description_is_not_utf_8() -> None:
    told = reply('{"error": "invalid_grant", "error_description": "café"}'.encode("latin-1"))
    assert (told.error, told.explanation) == ("invalid_grant", "café")


@pytest.mark.parametrize(
    ("body", "content_type", "shape"),
    [
        (b"", "text/html", "an empty answer"),
        (b" \r\n", None, "an empty answer"),
        (b"<html>", None, "HTML"),
        (b"oops", "text/html; charset=utf-8", "HTML"),
        (b"  <?xml?>", "application/json", "HTML"),
        (b"oops", "text/plain", "text/plain, not JSON"),
        (b"oops", None, "an answer of no declared type, not JSON"),
        (b"{}", None, "JSON"),
    ],
)
def test_an_answer_is_named_as_what_it_is(
    body: bytes, content_type: str | None, shape: str
) -> None:
    assert reply(body, content_type).shape == shape


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"null", b"1", b"not json", b"", b"\xff\xfe"])
def test_what_is_no_object_has_no_fields(body: bytes) -> None:
    told = reply(body)
    assert told.fields == {}
    assert told.error is told.explanation is told.error_uri is None


@pytest.mark.parametrize("value", [b'""', b"null", b"1", b'{"code": 1}', b"[]", b"true"])
def test_an_error_code_is_a_text(value: bytes) -> None:
    assert reply(b'{"error": ' + value + b"}").error is None


@pytest.mark.parametrize("name", ["error_description", "message", "detail"])
def test_an_explanation_has_several_names(name: str) -> None:
    assert reply(f'{{"{name}": "so it is"}}'.encode()).explanation == "so it is"


@given(st.binary(max_size=40), st.sampled_from([None, "text/html", "application/json"]))
def test_no_bytes_are_too_odd(body: bytes, content_type: str | None) -> None:
    told = reply(body, content_type)
    assert isinstance(told.shape, str)
    assert isinstance(told.fields, dict)


@pytest.mark.parametrize("show", [repr, str])
def test_a_reply_shows_nothing_of_what_it_holds(show: Any) -> None:
    assert show(reply(b'{"access_token": "abc"}')) == "<Reply 200>"
