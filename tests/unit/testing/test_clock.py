"""Time passes when a test moves a clock: for the client and the server, by one clock or two."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import time_machine
from doubles import Clockwork, Machinist

from tokenadapter import (
    ClientCredentials,
    FileStore,
    MemoryStore,
    RefreshTemporarilyFailed,
    TokenAdapter,
    TokenKeeper,
)
from tokenadapter.core.held_token import TokenHolder
from tokenadapter.core.runtime import RUNTIME, Runtime
from tokenadapter.testing import FrozenClock, TokenServer

LIFETIME = 3600
Move = Callable[[float], None]


@contextlib.contextmanager
def frozen() -> Iterator[Move]:
    with FrozenClock() as clock:
        yield clock.move


@contextlib.contextmanager
def travelling(*, tick: bool) -> Iterator[Move]:
    with time_machine.travel(time.time(), tick=tick) as traveller:
        yield traveller.shift


HELPERS = {
    "FrozenClock": frozen,
    "time-machine": lambda: travelling(tick=True),
    "time-machine, frozen": lambda: travelling(tick=False),
}


@pytest.fixture(params=HELPERS)
def helper(request: pytest.FixtureRequest) -> Callable[[], contextlib.AbstractContextManager[Move]]:
    return HELPERS[request.param]


@pytest.fixture(params=[MemoryStore, FileStore])
def session(
    request: pytest.FixtureRequest, token_server: TokenServer, tmp_path: Path
) -> Iterator[requests.Session]:
    store = request.param(*[tmp_path / "token.json"] * (request.param is FileStore))
    source = ClientCredentials(token_server.token_url, client_id="client", client_secret="secret")
    with requests.Session() as session:
        TokenAdapter(token_server.api_url, source, store=store).mount(session)
        yield session


@pytest.mark.parametrize("had_a_token", [True, False])
def test_a_token_ages_with_the_clock(
    session: requests.Session,
    token_server: TokenServer,
    helper: Callable[[], contextlib.AbstractContextManager[Move]],
    had_a_token: bool,
) -> None:
    url = token_server.api_url
    if had_a_token:
        assert session.get(url).ok
    with helper() as move:
        for renewals in (1, 2, 3):
            assert session.get(url).ok
            move(LIFETIME / 2)
            assert session.get(url).ok
            assert token_server.stats.renewals == renewals
            move(LIFETIME / 2)
    # The server's clock moved too, and no request had a token that was expired by that clock.
    assert token_server.stats.api_refused == 0


def test_the_server_uses_the_frozen_clock(
    token_server: TokenServer, helper: Callable[[], contextlib.AbstractContextManager[Move]]
) -> None:
    with helper() as move:
        headers = {"Authorization": f"Bearer {token_server.issue()['access_token']}"}
        move(LIFETIME - 10)
        assert requests.get(token_server.api_url, headers=headers, timeout=10).status_code == 200
        move(10)
        assert requests.get(token_server.api_url, headers=headers, timeout=10).status_code == 401
        first, second = token_server.requests
        assert 10 <= second.time - first.time < 20


def test_a_back_off_ends_with_the_clock(
    session: requests.Session,
    token_server: TokenServer,
    helper: Callable[[], contextlib.AbstractContextManager[Move]],
) -> None:
    token_server.fail_next(503, retry_after=30)
    with helper() as move:
        for seconds in (0, 20, 20):
            with pytest.raises(RefreshTemporarilyFailed):
                session.get(token_server.api_url)
            move(seconds)
        assert token_server.stats.token_requests == 1
        assert session.get(token_server.api_url).ok


def test_a_session_made_within_the_block_goes_by_real_time_after_it() -> None:
    with FrozenClock(1_000_000.0) as clock:
        inside = TokenHolder(RUNTIME, {}, early=True)
        assert inside._wall() == 1_000_000.0
        clock.move(7)
        assert inside._wall() == 1_000_007.0
    assert (inside._wall, inside._monotonic) == (time.time, time.monotonic)


def test_patches_are_undone() -> None:
    before = time.time, dict(vars(Runtime)), dict(vars(TokenHolder))
    with contextlib.suppress(KeyError), FrozenClock():
        assert time.time is not before[0]
        raise KeyError
    assert (time.time, dict(vars(Runtime)), dict(vars(TokenHolder))) == before


def test_the_wall_clock_stops_and_the_monotonic_clock_continues() -> None:
    with FrozenClock() as clock:
        wall, monotonic = RUNTIME.wall(), RUNTIME.monotonic()
        while RUNTIME.monotonic() == monotonic:
            pass
        assert RUNTIME.wall() == time.time() == clock() == wall
        clock.move(1000)
        assert RUNTIME.wall() == wall + 1000
        assert RUNTIME.monotonic() > monotonic + 1000


def test_a_keeper_on_another_machine_keeps_its_clock() -> None:
    runtime = Clockwork()
    authority = Machinist()
    keeper = TokenKeeper(authority, runtime=runtime)
    with FrozenClock() as clock:
        keeper.current()
        clock.move(2 * LIFETIME)
        keeper.current()
        assert authority.count == 1
        runtime.go_on(2 * LIFETIME)
        keeper.current()
        assert authority.count == 2


def test_a_server_uses_its_own_clock_if_it_has_one() -> None:
    with TokenServer(clock=FrozenClock(7.0)) as server, FrozenClock():
        requests.get(server.public_url, timeout=10)
    assert server.requests[0].time == 7.0


def test_a_clock_begins_now_by_default_and_moves_only_forward() -> None:
    before = time.time()
    assert before <= FrozenClock()() <= time.time()
    clock = FrozenClock(10.0)
    clock.move(2.5)
    assert clock() == 12.5
    assert repr(clock) == "<FrozenClock 12.500>"
    with pytest.raises(ValueError, match="only forward"):
        clock.move(-1)
    assert clock() == 12.5


def test_only_one_clock_can_be_installed() -> None:
    with FrozenClock(), pytest.raises(RuntimeError, match="another FrozenClock is in place"):
        FrozenClock().__enter__()
    with FrozenClock():
        pass
