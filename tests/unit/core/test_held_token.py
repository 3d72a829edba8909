"""The held token ages by the faster of two clocks."""

from __future__ import annotations

from math import inf

import pytest
from doubles import Clockwork
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.core.held_token import HeldToken, TokenHolder
from tokenadapter.core.policy import windows
from tokenadapter.core.record import Record
from tokenadapter.core.slot import View
from tokenadapter.token import Token

STORE, WALL, MONOTONIC = 1_700_000_000.0, 1_600_000_000.0, 500.0
TOKEN = Token("abc", issued_at=STORE - 600, expires_at=STORE + 3000)


def take(token: Token = TOKEN, *, early: bool = True) -> HeldToken:
    return HeldToken.take(token, u=0.5, early=early, now=STORE, monotonic=MONOTONIC, wall=WALL)


def test_the_remaining_time_counts_from_the_clock_of_the_store() -> None:
    assert take().left(MONOTONIC, WALL) == 3000


@pytest.mark.parametrize(
    ("monotonic", "wall", "left"),
    [
        (60, 60, 2940),
        (60, 3600, -600),  # a laptop was suspended: the monotonic clock stopped
        (60, -3600, 2940),  # the wall clock was set back
        (3600, 60, -600),
        (-60, -60, 3060),
    ],
)
def test_the_larger_of_the_two_ages_counts(monotonic: float, wall: float, left: float) -> None:
    assert take().left(MONOTONIC + monotonic, WALL + wall) == left


@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_the_remaining_time_is_the_smaller_one_of_both_clocks(monotonic: int, wall: int) -> None:
    left = take().left(MONOTONIC + monotonic, WALL + wall)
    assert left == 3000 - max(monotonic, wall)


def test_the_windows_depend_on_the_whole_lifetime_of_the_token() -> None:
    held = take()
    assert (held.soft, held.hard) == windows(3600, 0.5)


def test_without_early_renewal_a_token_is_never_stale() -> None:
    held = take(early=False)
    assert held.soft == held.hard == windows(3600, 0.5)[1]


def test_a_token_from_the_future_has_at_most_its_whole_lifetime_left() -> None:
    set_back = take(Token("abc", issued_at=STORE + 7200, expires_at=STORE + 7200 + 3600))
    assert set_back.left(MONOTONIC, WALL) == 3600


def test_another_process_draws_its_own_soft_window_and_keeps_the_other_values() -> None:
    assert take().redrawn(0.25) == take()._replace(u=0.25, soft=windows(3600, 0.25)[0])


@pytest.mark.parametrize(
    "held", [take(early=False), take(Token("abc", issued_at=STORE))], ids=["not early", "for ever"]
)
def test_without_a_soft_window_none_is_drawn(held: HeldToken) -> None:
    assert held.redrawn(0.25) == held


@pytest.mark.parametrize("early", [True, False])
def test_a_token_without_expiry_is_fresh_for_ever(early: bool) -> None:
    held = take(Token("abc", issued_at=STORE), early=early)
    assert held.left(1e12, 1e12) == inf > held.soft
    assert (held.soft, held.hard) == (0, 0)


def test_the_repr_has_no_secret() -> None:
    assert "s3cr3t" not in repr(take(Token("s3cr3t", refresh_token="s3cr3t")))


@pytest.mark.parametrize(
    ("fresh", "min_validity", "least"),
    [
        (False, 0.0, "hard"),
        (True, 0.0, "soft"),
        (False, 0.5, "hard"),
        (True, 0.5, "soft"),  # the soft window is longer than the required validity
        (False, 1.0, "hard"),
        (False, 2000.0, 2000.0),
        (True, 2000.0, 2000.0),
        # No token of this lifetime could be valid for that long: one that is not stale will do.
        (False, 3600.0, "soft"),
    ],
)
def test_a_token_must_be_valid_for_as_long_as_the_caller_requires(
    fresh: bool, min_validity: float, least: float | str
) -> None:
    held = take()
    expected = getattr(held, least) if isinstance(least, str) else least
    assert held.least(fresh=fresh, min_validity=min_validity) == expected


def test_an_empty_holder_has_no_time_left_and_draws_no_window() -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    holder.redraw()
    assert (holder.held, holder.left(), holder.fresh()) == (None, 0.0, None)


def test_a_forked_child_draws_another_window_for_its_inherited_token() -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    token = Token("abc", issued_at=clock.now, expires_at=clock.now + 3600)
    record = Record({}, {}, "salt", token)
    holder.take(View(record, "1-a", clock.now, clock.ticks, clock.now))
    before = holder.held
    clock.dice = 0.9
    holder.redraw()
    assert holder.held is not None
    assert before is not None
    assert (before.u, holder.held.u) == (0.5, 0.9)
    assert holder.held.soft == windows(3600, 0.9)[0] != before.soft
    # The token is fresh until the new window begins.
    clock.go_on(3600 - holder.held.soft - 1)
    assert holder.fresh() is token
    clock.go_on(2)
    assert holder.fresh() is None


@pytest.mark.parametrize("has_another", [False, True])
def test_a_token_that_another_thread_drops_is_not_returned(has_another: bool) -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    old, new = (
        Token(name, issued_at=clock.now, expires_at=clock.now + 3600) for name in ("old", "new")
    )
    held = holder.weigh(seen(clock, old))

    class Interrupted:
        """A held token that another thread drops while its ends are read."""

        token, soft, dies_wall = held.token, held.soft, held.dies_wall

        @property
        def dies_monotonic(self) -> float:
            holder.drop()
            if has_another:
                holder.take(seen(clock, new))
            return held.dies_monotonic

    holder._hold(Interrupted())  # type: ignore[arg-type]
    assert holder.fresh() is (new if has_another else None)


def test_a_short_lifetime_can_meet_a_short_required_validity() -> None:
    held = take(Token("abc", issued_at=STORE, expires_at=STORE + 5))
    assert held.hard == 0.5
    assert held.least(fresh=False, min_validity=0.8) == 0.8
    endless = take(Token("abc", issued_at=STORE))
    assert endless.least(fresh=True, min_validity=600.0) == 0


def seen(clock: Clockwork, token: Token) -> View:
    return View(Record({}, {}, "salt", token), "1-a", clock.now, clock.ticks, clock.now)


def test_a_window_is_drawn_once_for_each_token() -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    token = Token("abc", issued_at=clock.now, expires_at=clock.now + 3600)
    holder.take(seen(clock, token))
    clock.dice = 0.9
    holder.take(seen(clock, token))
    assert holder.held is not None
    assert holder.held.u == 0.5


def test_a_token_is_fresh_only_by_both_clocks() -> None:
    for by_wall, by_ticks in ((3600 - 100, 0), (0, 3600 - 100)):
        clock = Clockwork()
        holder = TokenHolder(clock, {}, early=True)
        holder.take(seen(clock, Token("abc", issued_at=clock.now, expires_at=clock.now + 3600)))
        assert holder.fresh()
        clock.now += by_wall
        clock.ticks += by_ticks
        assert holder.fresh() is None


@pytest.mark.parametrize(("salt", "is_taken"), [("salt", True), ("another", False)])
def test_an_earlier_read_may_have_found_the_later_token(salt: str, is_taken: bool) -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    old, new = (Token(name, issued_at=clock.now) for name in ("old", "new"))
    began_first = View(Record({}, {}, salt, new, generation=2), "2-b", 0.0, clock.ticks - 1, 0.0)
    began_last = View(Record({}, {}, "salt", old, generation=1), "1-a", 0.0, clock.ticks, 0.0)
    holder.take(began_last)
    holder.take(began_first)
    assert holder.held is not None
    assert holder.held.token is (new if is_taken else old)
    # An earlier read of an earlier token is ignored.
    holder.take(began_last._replace(monotonic=clock.ticks - 0.5))
    assert holder.held.token is (new if is_taken else old)


@pytest.mark.parametrize(
    ("salt", "generation", "left", "is_ahead"),
    [
        ("salt", 1, 5, True),
        ("salt", 1, 0, False),
        ("salt", 2, 5, False),
        ("salt", 3, 5, False),
        ("another", 1, 5, False),
    ],
)
def test_the_held_token_may_be_ahead_of_the_record(
    salt: str, generation: int, left: float, is_ahead: bool
) -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    stored = Record({}, {}, salt, Token("old"), generation=generation)
    assert not holder.is_ahead_of(stored)
    view = seen(clock, Token("new", issued_at=clock.now - 50, expires_at=clock.now + left))
    holder.take(view._replace(record=view.record._replace(generation=2)))
    assert holder.is_ahead_of(stored) == is_ahead


@pytest.mark.parametrize(
    ("theirs", "ours", "is_taken"),
    [(0.5, 100, True), (0, 100, False), (-5, 100, False), (0, 0, True), (-5, -5, True)],
)
def test_a_held_token_is_replaced_unless_only_it_is_valid(
    theirs: float, ours: float, is_taken: bool
) -> None:
    clock = Clockwork()
    holder = TokenHolder(clock, {}, early=True)
    mine = Token("mine", issued_at=clock.now - 3600, expires_at=clock.now + ours)
    holder.take(seen(clock, mine))
    other = Token("theirs", issued_at=clock.now - 1800, expires_at=clock.now + theirs)
    assert holder.take(seen(clock, other)) == (mine if is_taken else None)
    assert holder.held is not None
    assert holder.held.token is (other if is_taken else mine)
