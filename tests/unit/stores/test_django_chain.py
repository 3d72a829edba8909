"""Chain: of all writers that replace one record one succeeds, at every interleaving."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from tokenadapter.stores import _django_chain
from tokenadapter.stores._django_chain import Chain, Unsure


class Cache:
    """A cache whose ``add`` is atomic, and that does nothing without saying so before."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.timeouts: dict[str, int | None] = {}
        self.steps = 0
        self.before: Callable[[str], object] = lambda step: None
        self.after: Callable[[str], object] = lambda step: None
        self.fails: Callable[[str], bool] = lambda step: False
        """Whether a step fails silently."""

    def get(self, key: str) -> Any:
        return self._do("get", lambda: self.entries.get(key))

    def add(self, key: str, value: Any, timeout: int | None) -> bool:
        return bool(
            self._do("add", lambda: key not in self.entries and self._put(key, value, timeout))
        )

    def set(self, key: str, value: Any, timeout: int | None) -> None:
        self._do("set", lambda: self._put(key, value, timeout))

    def touch(self, key: str, timeout: int | None) -> bool:
        return bool(self._do("touch", lambda: self._put(key, self.entries[key], timeout)))

    def delete(self, key: str) -> None:
        self._do("delete", lambda: self.entries.pop(key, None))

    def calm(self) -> None:
        """From now on, no other writer interferes."""
        self.before = self.after = lambda step: None

    def forget_what_may_be_forgotten(self) -> None:
        for key, timeout in list(self.timeouts.items()):
            if timeout is not None:
                self.entries.pop(key, None)

    def _put(self, key: str, value: Any, timeout: int | None) -> bool:
        self.entries[key], self.timeouts[key] = value, timeout
        return True

    def _do(self, step: str, act: Callable[[], Any]) -> Any:
        self.steps += 1
        self.before(step)
        result = False if step != "get" and self.fails(step) else act()
        self.after(step)
        return result


def chain_on(cache: Cache) -> Chain:
    return Chain(cache, "slot")


def swap(cache: Cache, tag: str, expected: str | None, ttl: float | None = None) -> bool:
    return chain_on(cache).swap({"by": tag}, tag, expected, ttl)


def tag_in(cache: Cache) -> str | None:
    link = chain_on(cache).last()
    return None if link is None else link.tag


@pytest.fixture(params=[None, "zero"], ids=["empty", "full"])
def start(request: pytest.FixtureRequest) -> str | None:
    """The tag of what is there when a test begins, if there is anything."""
    return request.param


@pytest.fixture
def cache(start: str | None) -> Cache:
    cache = Cache()
    if start is not None:
        assert swap(cache, start, None)
    cache.steps = 0
    return cache


STEPS = range(1, 14)


def at(cache: Cache, number: int, act: Callable[[], object]) -> Callable[[str], None]:
    """Do something at the step with that number from now on."""
    number += cache.steps

    def do(step: str) -> None:
        if cache.steps == number:
            cache.calm()
            act()

    return do


@pytest.mark.parametrize("number", STEPS)
def test_a_writer_that_is_overtaken_at_any_step_has_lost_or_had_won(
    cache: Cache, start: str | None, number: int
) -> None:
    overtaken: list[bool] = []
    cache.before = at(cache, number, lambda: overtaken.append(swap(cache, "fast", start)))
    has_won = swap(cache, "slow", start)
    cache.calm()
    if overtaken:
        assert overtaken == [not has_won]
    assert tag_in(cache) == ("slow" if has_won else "fast")


@pytest.mark.parametrize("number", STEPS)
def test_a_writer_that_is_followed_has_won_and_one_that_comes_late_has_lost(
    cache: Cache, start: str | None, number: int
) -> None:
    followed: list[str | None] = []

    def go_on() -> None:
        tag = tag_in(cache)
        followed.append(tag)
        for following in ("a", "b", "c"):
            assert swap(cache, following, tag)
            tag = following

    cache.before = at(cache, number, go_on)
    has_won = swap(cache, "slow", start)
    cache.calm()
    last = "c" if followed else "slow"
    assert has_won == (followed != [start])
    assert tag_in(cache) == last
    cache.forget_what_may_be_forgotten()
    assert tag_in(cache) == last


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", STEPS)
def test_a_writer_that_dies_at_any_step_has_written_or_not_and_can_be_repeated(
    cache: Cache, start: str | None, number: int, when: str
) -> None:
    class Killed(Exception):
        pass

    def die() -> None:
        raise Killed

    setattr(cache, when, at(cache, number, die))
    try:
        assert swap(cache, "killed", start)
    except Killed:
        cache.calm()
        found = tag_in(cache)
        assert found in (start, "killed")
        # It stays until the next writer comes, however late.
        cache.forget_what_may_be_forgotten()
        assert tag_in(cache) == found
        assert swap(cache, "next", found)
        assert not swap(cache, "killed", start)
        assert tag_in(cache) == "next"
    else:
        cache.calm()
        assert tag_in(cache) == "killed"


@pytest.mark.parametrize("number", STEPS)
def test_a_write_that_was_cut_short_can_be_repeated(
    cache: Cache, start: str | None, number: int
) -> None:
    def cut() -> None:
        raise ConnectionError

    cache.after = at(cache, number, cut)
    try:
        swap(cache, "one", start)
    except ConnectionError:
        assert swap(cache, "one", start)
    cache.calm()
    assert tag_in(cache) == "one"
    cache.forget_what_may_be_forgotten()
    assert tag_in(cache) == "one"
    assert swap(cache, "two", "one")


@pytest.mark.parametrize("step", ["add", "set", "touch"])
def test_a_silent_failure_of_the_cache_is_found(cache: Cache, start: str | None, step: str) -> None:
    cache.fails = lambda done: done == step
    try:
        assert swap(cache, "one", start)
    except Unsure:
        cache.fails = lambda step: False
        assert tag_in(cache) == (start if step == "add" else "one")
        assert swap(cache, "one", start)
    assert tag_in(cache) == "one"


def test_a_silent_failure_of_a_second_try_is_found() -> None:
    cache = Cache()
    assert swap(cache, "one", None)
    cache.fails = lambda step: step == "set"
    with pytest.raises(Unsure):
        chain_on(cache).swap({"by": "one, later"}, "one", None, None)


def test_damage_that_was_repaired_meanwhile_is_not_put_aside() -> None:
    cache = Cache()
    cache.entries["slot:record"] = "something else"
    late = chain_on(cache)
    assert not late.swap({}, "late", None, None)
    chain = chain_on(cache)
    assert chain.last() is None
    assert chain.put_aside() is not None
    assert swap(cache, "fast", None)
    assert late.put_aside() is None
    assert tag_in(cache) == "fast"


def test_a_client_that_repeats_an_add_finds_its_own_record(cache: Cache, start: str | None) -> None:
    add = cache.add

    def ask_twice(key: str, value: Any, timeout: int | None) -> bool:
        add(key, value, timeout)
        return add(key, value, timeout)

    cache.add = ask_twice  # type: ignore[method-assign]
    assert swap(cache, "one", start)
    assert tag_in(cache) == "one"


def test_a_writer_that_comes_after_the_link_expired_has_lost() -> None:
    cache = Cache()
    assert swap(cache, "zero", None)

    def go_on() -> None:
        assert swap(cache, "a", "zero")
        assert swap(cache, "b", "a")
        cache.forget_what_may_be_forgotten()

    # Just before it adds its own.
    cache.before = at(cache, 3, go_on)
    assert not swap(cache, "late", "zero")
    assert tag_in(cache) == "b"
    assert "late" not in str(cache.entries)


def test_a_writer_that_takes_too_long_does_not_set_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Cache()
    assert swap(cache, "zero", None)
    times = iter([0.0, 16.0])
    monkeypatch.setattr(_django_chain.time, "monotonic", lambda: next(times, 16.0))
    with pytest.raises(Unsure, match="too long"):
        swap(cache, "one", "zero")
    assert tag_in(cache) == "one"
    assert swap(cache, "one", "zero")
    assert "one" in cache.entries["slot:record"]


def test_the_head_expires_with_the_record() -> None:
    cache = Cache()
    for tag, expected, ttl, timeout in [
        ("one", None, 4.5, 6),
        ("two", "one", None, None),
        ("three", "two", 0.01, 2),
    ]:
        assert swap(cache, tag, expected, ttl)
        assert cache.timeouts["slot:record"] == timeout


def test_links_that_are_left_over_expire() -> None:
    cache = Cache()
    tag = None
    for number in range(20):
        assert swap(cache, f"{number}", tag)
        tag = f"{number}"
    cache.forget_what_may_be_forgotten()
    assert [*cache.entries] == ["slot:record"]


def test_a_link_is_kept_for_as_long_as_a_network_may_delay_a_write() -> None:
    """Else a head that arrives late would be the last word, and its refresh token spent."""
    cache = Cache()
    for tag, expected in [("one", None), ("two", "one"), ("three", "two")]:
        assert swap(cache, tag, expected)
    ways = [timeout for key, timeout in cache.timeouts.items() if ":after:" in key]
    assert len(ways) == 2
    assert all(timeout is not None and timeout >= 20 * 60 for timeout in ways)


def test_a_writer_that_sets_the_head_back_does_no_harm() -> None:
    cache = Cache()
    assert swap(cache, "zero", None)
    old = cache.entries["slot:record"]
    assert swap(cache, "one", "zero")
    assert swap(cache, "two", "one")
    cache.entries["slot:record"] = old
    assert tag_in(cache) == "two"
    assert not swap(cache, "other", "zero")
    assert swap(cache, "three", "two")


def test_something_else_at_the_key_of_the_next_record_is_an_error() -> None:
    cache = Cache()
    assert swap(cache, "zero", None)
    key = chain_on(cache)._key_after("zero")
    cache.entries[key] = "something else"
    assert tag_in(cache) == "zero"
    with pytest.raises(Unsure, match=key):
        swap(cache, "one", "zero")
    assert cache.entries[key] == "something else"


def test_writers_in_any_order_make_one_chain() -> None:
    for seed in range(300):
        _play(random.Random(seed))


def _play(dice: random.Random) -> None:
    """Three writers and a reader, each of which may be stopped before any step."""
    cache = Cache()
    won: list[tuple[str | None, str]] = []
    seen: list[str | None] = []
    main = getcurrent()

    def write(name: str) -> None:
        for number in range(3):
            expected, tag = tag_in(cache), f"{name}{number}"
            if swap(cache, tag, expected):
                won.append((expected, tag))

    def read() -> None:
        seen.extend(tag_in(cache) for _ in range(6))

    alive = [greenlet(lambda name=name: write(name), main) for name in "abc"]
    alive.append(greenlet(read, main))
    cache.before = lambda step: main.switch()
    while alive:
        who = dice.choice(alive)
        who.switch()
        alive = [one for one in alive if not one.dead]
    cache.before = lambda step: None

    following = dict(won)
    assert len(following) == len(won)
    order: list[str | None] = [None]
    while order[-1] in following:
        order.append(following[order[-1]])
    assert len(order) == len(won) + 1
    assert tag_in(cache) == order[-1]
    places = [order.index(tag) for tag in seen]
    assert places == sorted(places)
    cache.forget_what_may_be_forgotten()
    assert tag_in(cache) == order[-1]


def test_damage_that_cannot_be_put_aside_stays() -> None:
    cache = Cache()
    cache.entries["slot:record"] = "something else"
    chain = chain_on(cache)
    assert chain.last() is None
    cache.fails = lambda step: step == "add"
    with pytest.raises(Unsure):
        chain.put_aside()
    assert cache.entries["slot:record"] == "something else"
