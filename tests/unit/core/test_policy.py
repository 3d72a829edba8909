"""Freshness windows and backoffs: properties and documented figures."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tokenadapter.core.policy import backoff_duration, windows

NOW = 1_700_000_000.0

lifetimes = st.floats(1e-3, 1e10)
dice = st.floats(0, 1)


@given(lifetimes, dice)
@example(600.0, 0.0)
@example(600.0000001, 0.0)
def test_a_token_is_first_fresh_then_stale_then_expired(lifetime: float, u: float) -> None:
    soft, hard = windows(lifetime, u)
    assert 0 < hard < soft < lifetime


@given(lifetimes, dice, dice)
def test_jitter_moves_only_the_soft_window_and_only_within_its_range(
    lifetime: float, u: float, v: float
) -> None:
    assume(u <= v)
    (early, hard), (late, also_hard) = windows(lifetime, v), windows(lifetime, u)
    assert hard == also_hard
    assert late <= early
    widest, _ = windows(lifetime, 1)
    assert widest * (0.5 if lifetime > 600 else 0.75) <= late


@given(lifetimes, lifetimes)
def test_a_longer_lifetime_never_has_a_narrower_hard_window(one: float, other: float) -> None:
    assert windows(min(one, other), 1)[1] <= windows(max(one, other), 1)[1] <= 60


@pytest.mark.parametrize(
    ("lifetime", "narrowest", "widest", "hard"),
    [
        (2, 0.3, 0.4, 0.2),
        (300, 45, 60, 30),
        (600, 90, 120, 60),
        (601, 60.1, 120.2, 60),
        (3600, 360, 720, 60),
        (4500, 450, 900, 60),
        (86_400, 450, 900, 60),
    ],
)
def test_the_windows_of_common_lifetimes(
    lifetime: float, narrowest: float, widest: float, hard: float
) -> None:
    assert windows(lifetime, 0) == pytest.approx((narrowest, hard))
    assert windows(lifetime, 1) == pytest.approx((widest, hard))


@pytest.mark.parametrize(
    ("step", "shortest", "middle", "longest"),
    [
        (1, 2.5, 5, 7.5),
        (2, 5, 10, 15),
        (3, 10, 20, 30),
        (4, 20, 40, 60),
        (5, 40, 60, 60),
        (9, 60, 60, 60),
        (10**6, 60, 60, 60),
    ],
)
def test_each_failure_doubles_the_backoff_up_to_a_minute_with_50_percent_jitter(
    step: int, shortest: float, middle: float, longest: float
) -> None:
    assert [backoff_duration(step, u) for u in (0, 0.5, 1)] == [shortest, middle, longest]


@given(st.integers(1, 10**9), dice)
def test_every_backoff_is_between_2_and_a_half_and_60_seconds(step: int, u: float) -> None:
    assert 2.5 <= backoff_duration(step, u) <= 60
