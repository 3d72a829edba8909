"""Reading the answers of servers, and the times in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from http.cookiejar import CookieJar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from tokenadapter.sources.reply import Reply, moment, retry_after

NOW = 1_700_000_000.0
NEW_YEAR = 1_767_225_600.0


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
def test_json_and_forms_are_read_whatever_content_type_the_json_has(
    body: bytes, content_type: str | None
) -> None:
    assert reply(body, content_type).fields == {"a": "1"}


def test_an_error_is_read_although_its_description_is_not_utf_8() -> None:
    answer = reply('{"error": "invalid_grant", "error_description": "café"}'.encode("latin-1"))
    assert (answer.error, answer.explanation) == ("invalid_grant", "café")


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
def test_a_body_that_is_not_a_token_response_is_described(
    body: bytes, content_type: str | None, shape: str
) -> None:
    assert reply(body, content_type).shape == shape


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"null", b"1", b"not json", b"", b"\xff\xfe"])
def test_a_body_that_is_not_an_object_has_no_fields(body: bytes) -> None:
    answer = reply(body)
    assert answer.fields == {}
    assert answer.error is answer.explanation is answer.error_uri is None


@pytest.mark.parametrize("value", [b'""', b"null", b"1", b'{"code": 1}', b"[]", b"true"])
def test_an_error_code_is_a_text(value: bytes) -> None:
    assert reply(b'{"error": ' + value + b"}").error is None


@pytest.mark.parametrize("name", ["error_description", "message", "detail"])
def test_an_explanation_has_several_names(name: str) -> None:
    assert reply(f'{{"{name}": "because"}}'.encode()).explanation == "because"


@given(st.binary(max_size=40), st.sampled_from([None, "text/html", "application/json"]))
def test_no_body_is_too_odd(body: bytes, content_type: str | None) -> None:
    answer = reply(body, content_type)
    assert isinstance(answer.shape, str)
    assert isinstance(answer.fields, dict)


@pytest.mark.parametrize("show", [repr, str])
def test_the_repr_of_a_reply_shows_nothing_of_its_body(show: Any) -> None:
    assert show(reply(b'{"access_token": "abc"}')) == "<Reply 200>"


# Times


@pytest.mark.parametrize(
    "value",
    [
        1767225600,
        1767225600.0,
        "1767225600",
        1767225600000,
        "1767225600000",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01 00:00:00",
        "2026-01-01",
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 01:00:00 +0100",
    ],
)
def test_a_time_has_many_spellings(value: object) -> None:
    assert moment(value) == NEW_YEAR


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, "", "soon", [], {}, 10**400, "inf", "-inf", "nan", "1e999"),
        *("2026-13-01", "Thu, 99 Jan 2026 00:00:00 GMT"),
        # Beyond what a date can be.
        "Thu, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 +99999999999999999999",
    ],
)
def test_a_text_that_is_not_a_time_is_none(value: object) -> None:
    assert moment(value) is None


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_no_value_is_too_odd_for_a_time(value: object) -> None:
    assert isinstance(moment(value), float | None)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        pytest.param("9" * 10_000, 999_999_999_999, id="10000 digits"),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799 - NOW),
        (None, None),
        ("", None),
        (" ", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("soon", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 32 Dec 2026 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    header: str | None, seconds: float | None
) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.text() | st.text("0123456789-+:, GMTJanfeb"))
def test_a_wait_is_finite_whatever_retry_after_says(header: str) -> None:
    seconds = retry_after(header, NOW)
    assert seconds is None or 0 <= seconds < 1e12


@pytest.fixture(params=["UTC0", "JST-9", "PST8"])
def _time_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
@pytest.mark.parametrize(
    "header",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 17:49:37 +0900",
    ],
)
def test_an_http_date_is_the_same_time_in_every_time_zone_and_format(header: str) -> None:
    assert retry_after(header, 784_111_777.0 - 90) == 90
