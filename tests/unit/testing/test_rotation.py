"""A refresh token is spent once: rotation, the grace period, and the reaction to reuse."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.testing import TokenServer
from tokenadapter.testing.assertions import Assertions
from tokenadapter.testing.authority import Authority
from tokenadapter.testing.logins import Logins
from tokenadapter.testing.refusals import Refused
from unit.testing.helpers import TIMEOUT, Clock, call, refresh


def test_a_refresh_rotates_and_the_previous_access_token_stays_valid(server: TokenServer) -> None:
    token = server.issue()
    child = refresh(server, token).json()
    assert child["refresh_token"] != token["refresh_token"]
    assert call(server, token).ok
    assert call(server, child).ok
    assert server.stats.refreshes == server.stats.renewals == 1


def test_a_spent_refresh_token_presented_again_revokes_the_family(server: TokenServer) -> None:
    token = server.issue()
    child = refresh(server, token).json()
    assert refresh(server, token).json()["error"] == "invalid_grant"
    assert refresh(server, child).json()["error"] == "invalid_grant"
    assert call(server, token).status_code == call(server, child).status_code == 401
    assert server.stats.reuse_detections == server.stats.families_revoked == 1


def test_without_reuse_detection_a_spent_refresh_token_is_just_refused() -> None:
    with TokenServer(reuse_detection=False) as server:
        token = server.issue()
        child = refresh(server, token).json()
        assert refresh(server, token).json()["error"] == "invalid_grant"
        assert refresh(server, child).ok
        assert server.stats.reuse_detections == server.stats.families_revoked == 0


def test_without_rotation_the_refresh_token_stays_and_is_not_sent_again() -> None:
    with TokenServer(rotate=False) as server:
        token = server.issue()
        for _ in range(3):
            assert "refresh_token" not in refresh(server, token).json()
        assert server.stats.refreshes == 3


def test_within_the_grace_the_previous_refresh_token_gives_another_of_the_latest_generation() -> (
    None
):
    clock = Clock()
    with TokenServer(grace=5, clock=clock) as server:
        token = server.issue()
        first = refresh(server, token).json()
        clock.now += 4.9
        second = refresh(server, token).json()
        assert call(server, second).ok
        assert first["refresh_token"] != second["refresh_token"]
        assert refresh(server, first).ok  # good still, though the second was given out since
        assert refresh(server, second).ok  # of the previous generation now, and in its grace
        assert server.stats.reuse_detections == 0


def test_the_grace_counts_from_the_rotation() -> None:
    clock = Clock()
    with TokenServer(grace=5, clock=clock) as server:
        token = server.issue()
        refresh(server, token)
        clock.now += 3
        assert refresh(server, token).ok
        clock.now += 2
        assert refresh(server, token).status_code == 400
        assert server.stats.reuse_detections == 1


def test_the_grace_ends_when_the_new_refresh_token_is_spent() -> None:
    with TokenServer(grace=3600) as server:
        token = server.issue()
        refresh(server, refresh(server, token).json())
        assert refresh(server, token).status_code == 400
        assert server.stats.reuse_detections == 1


def test_a_refresh_token_that_is_not_used_expires_and_revokes_nothing() -> None:
    clock = Clock()
    with TokenServer(refresh_lifetime=60, clock=clock) as server:
        token = server.issue()
        for _ in range(3):
            clock.now += 59
            token = refresh(server, token).json()
        clock.now += 60
        expired = refresh(server, token)
        assert (expired.status_code, expired.json()) == (
            400,
            {"error": "invalid_grant", "error_description": "the refresh token has expired"},
        )
        assert call(server, token).ok
        assert server.stats.families_revoked == 0


def test_without_rotation_a_refresh_token_expires_however_often_it_is_used() -> None:
    clock = Clock()
    with TokenServer(refresh_lifetime=60, rotate=False, clock=clock) as server:
        token = server.issue()
        clock.now += 59
        assert refresh(server, token).ok
        clock.now += 1
        assert refresh(server, token).json()["error"] == "invalid_grant"


@given(picks=st.lists(st.integers(0, 20), max_size=20))
def test_without_a_grace_only_the_latest_refresh_token_is_valid(picks: list[int]) -> None:
    authority = Authority(
        clients={"client": "secret"},
        users={},
        lifetime=None,
        refresh_lifetime=None,
        rotate=True,
        grace=0,
        reuse_detection=True,
        clock=(clock := Clock()),
        logins=Logins({}, clock, 5.0, 600.0),
        issuer=str,
        assertions=Assertions({}, clock, tuple),
    )
    family = [authority.issue("client", "user", None)["refresh_token"]]
    broken = False
    for pick in picks:
        presented = family[pick % len(family)]
        good = presented == family[-1] and not broken
        try:
            form = {"grant_type": "refresh_token", "refresh_token": presented}
            family.append(authority.token("client", form)["refresh_token"])
            assert good
        except Refused:
            assert not good
            broken = True
    assert authority.reuse_detections == broken


def test_only_one_of_many_threads_is_served_with_one_refresh_token(server: TokenServer) -> None:
    token = server.issue()
    barrier = threading.Barrier(16)

    def race(_: int) -> int:
        barrier.wait(TIMEOUT)
        return refresh(server, token).status_code

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(race, range(16))) == [200] + [400] * 15
    assert server.stats.token_requests == 16
    assert (server.stats.refreshes, server.stats.reuse_detections) == (1, 1)
