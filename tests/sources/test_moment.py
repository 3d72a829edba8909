"""Points in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.sources.moment import moment

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
