"""Points in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.sources.moment import moment, retry_after

NOW = 1_700_000_000.0
NEW_YEAR = 1_767_225_600.0


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
def test_one_moment_has_many_spellings(value: object) -> None:
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
def test_what_is_no_moment_is_none(value: object) -> None:
    assert moment(value) is None


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_nothing_is_too_odd(value: object) -> None:
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
def test_whatever_retry_after_says_the_wait_is_finite(header: str) -> None:
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
def test_a_date_means_the_same_moment_in_every_time_zone_and_format(header: str) -> None:
    assert retry_after(header, 784_111_777.0 - 90) == 90
