"""Programs that share a slot may request different scopes, such as two versions of one program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import Authority, Clockwork, Machinist, Shelf

from tokenadapter import ClientCredentials, FileStore, RefreshConfigError, RefreshToken, TokenKeeper
from tokenadapter.testing import TokenServer

HOUR = 3600.0

Start = Callable[[str], TokenKeeper]


@pytest.fixture(params=[Authority, Machinist])
def source(request: pytest.FixtureRequest) -> Authority:
    """One server, for refresh tokens or client credentials."""
    made: Authority = request.param()
    return made


@pytest.fixture
def start(source: Authority, clock: Clockwork, shelf: Shelf) -> Start:
    """Start a program that requests a scope, a second after the last event."""

    class OfScope:
        def __init__(self, scope: str) -> None:
            self.requested = {"scope": scope}

        def __getattr__(self, name: str) -> object:
            return getattr(source, name)

    def start(scope: str) -> TokenKeeper:
        clock.go_on(1)
        return TokenKeeper(OfScope(scope), shelf, runtime=clock)  # type: ignore[arg-type]

    return start


def test_a_token_with_a_wider_scope_is_used(source: Authority, start: Start) -> None:
    before = start("read")
    old = before.current()
    token = start("read write").current()
    assert start("read").current() == token
    before.look()
    assert before.fresh() == token
    assert before.renew(old) == token
    assert len(source.presented) == 2


@pytest.mark.parametrize("grant", ["client credentials", "refresh token"])
def test_a_deployment_that_is_rolled_back_goes_on(
    server: TokenServer, tmp_path: Path, grant: str
) -> None:
    first = server.issue("read write")["refresh_token"] if grant == "refresh token" else None

    def deploy(scope: str) -> TokenKeeper:
        made = (
            ClientCredentials(
                server.token_url, client_id="client", client_secret="secret", scope=scope
            )
            if first is None
            else RefreshToken(
                server.token_url, first, client_id="client", client_secret="secret", scope=scope
            )
        )
        return TokenKeeper(made, FileStore(tmp_path / "token.json"))

    deploy("read").current()
    token = deploy("read write").current()
    back = deploy("read")
    assert back.current() == token
    assert back.refresh() != token
    assert server.stats.token_requests == 3
    # The next one is wider than what the refresh left.
    assert deploy("read write").current() != token
    assert server.stats.token_requests == 4


def test_three_programs_share_the_token_with_the_widest_scope(
    source: Authority, start: Start, clock: Clockwork
) -> None:
    programs = [start("read"), start("write"), start("read write")]
    programs[2].current()
    # The others wait for the program with the widest scope until the token has expired.
    for _ in range(100):
        clock.go_on(HOUR / 10)
        tokens = {program.current().access_token for program in programs}
        for program in programs:
            assert program.wait(10)
        assert len(tokens) <= 2
    lifetimes = clock.ticks / (HOUR * 0.75)
    assert 9 < len(source.presented) < lifetimes + 1


def test_a_program_that_is_alone_requests_what_it_needs(
    source: Authority, start: Start, clock: Clockwork, shelf: Shelf
) -> None:
    start("read write").current()
    narrow = start("read")
    held = narrow.current()
    clock.go_on(HOUR * 0.9)
    assert narrow.current() == held
    assert narrow.wait(10)
    assert len(source.presented) == 1
    clock.go_on(HOUR * 0.1)
    assert narrow.current() != held
    assert shelf.slot is not None
    assert shelf.slot[0]["requested"] == {"scope": "read"}


def test_a_program_with_a_wider_scope_widens_the_token_each_time(
    source: Authority, start: Start, clock: Clockwork
) -> None:
    narrow, wide = start("read"), start("read write")
    for number in range(5):
        # The narrow program comes first, after the token of the wide one has expired.
        narrow.current()
        token = wide.current()
        assert narrow.renew(narrow.current()) == token
        assert len(source.presented) == 2 * number + 2
        clock.go_on(HOUR)


def test_of_programs_with_other_scopes_the_one_that_started_last_wins_once(
    source: Authority, start: Start
) -> None:
    first = start("read")
    old = first.current()
    second = start("write")
    theirs = second.current()
    with pytest.raises(RefreshConfigError, match="request different tokens"):
        first.renew(old)
    rolled_back = start("read")
    assert rolled_back.current() != theirs
    with pytest.raises(RefreshConfigError, match="request different tokens"):
        second.renew(theirs)
    assert len(source.presented) == 3


def test_programs_that_start_and_replace_each_other_are_told_so(
    source: Authority, start: Start
) -> None:
    errors = 0
    for number in range(20):
        try:
            start(("read", "write")[number % 2]).current()
        except RefreshConfigError:
            errors += 1
    # Each may replace the other's token once when it starts.
    assert len(source.presented) == 4
    assert errors >= 8


def test_refresh_makes_a_token_whatever_others_requested(
    source: Authority, start: Start, clock: Clockwork
) -> None:
    first, second = start("read"), start("write")
    first.current()
    clock.go_on(1)
    second.current()
    for number in range(3, 8):
        clock.go_on(1)
        keeper = (second, first)[number % 2]
        assert keeper.refresh() == keeper.current()
        assert len(source.presented) == number
    with contextlib.suppress(RefreshConfigError):
        second.renew(second.current())
    assert len(source.presented) == 7
