"""Clients of a real authorization server are killed, and nobody has to log in again for that.

No client can save a new refresh token whose answer died with it.  So there are three runs: with a
grace period, and kills at any instant; without one, and kills at any instant but those from the
token request to the save of its answer; and without one, exactly there.

``CHAOS_SECONDS`` is how long each takes, and ``CHAOS_PROCESSES`` how many clients there are.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from math import inf
from pathlib import Path

import pytest

from tokenadapter.policy import windows

from .client import POINTS
from .fleet import Client, Fleet, Provider

SECONDS = float(os.environ.get("CHAOS_SECONDS", "2"))
PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "6"))
LIFETIME = 2.0
# Requests of the whole fleet, kills at any time, and kills at a point, in a second.
PACE, KILLS, AIMED_KILLS = 100.0, 1.5, 1.0

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 200)]


def new_fleet(provider: Provider, folder: Path, grace: float) -> Fleet:
    fleet = Fleet(provider.url, folder, PROCESSES, pause=2 * PROCESSES / PACE, grace=grace)
    fleet.adopt(provider.log_in())
    return fleet


def harass(fleet: Fleet, points: Collection[str], kill: Callable[[Client], object]) -> None:
    """Kill clients for a while, any of them by *kill*, and who gets to *points*: at least one
    at each.
    """
    now = time.monotonic()
    end, next_kill, next_aim = now + SECONDS, now, now
    aims = itertools.cycle(points)
    killed_at = set[str]()
    while now < end or len(killed_at) < len(points):
        if now >= next_kill:
            kill(random.choice(list(fleet)))
            next_kill = now + random.expovariate(KILLS)
        if now >= next_aim:
            fleet.arm(next(aims))
            next_aim = inf
        for line in fleet.hear(0.01):
            if line.kind == "point":
                fleet.arm(None)
                fleet.replace(line.client)
                killed_at.add(line.word)
                next_aim = now + random.expovariate(AIMED_KILLS)
        now = time.monotonic()
    fleet.end()


def report(title: str, fleet: Fleet, provider: Provider) -> Counter[str]:
    """Print what happened, and check what holds in every run.

    :returns: what the server counted.
    """
    seconds = time.monotonic() - fleet.made_at
    figures = provider.figures()
    # Each process draws where in its range its window begins, and the first one renews.
    interval = LIFETIME - windows(LIFETIME, 1.0)[0]
    failures = {word: count for word, count in fleet.answers.items() if word != "200"}
    rows = {
        "seconds": f"{seconds:.1f}",
        "requests": fleet.answers.total(),
        "failures": ", ".join(f"{count} {word}" for word, count in failures.items()) or 0,
        "replays": fleet.events["Replayed"],
        "kills": f"{fleet.kills}, {fleet.hits} of them while an answer was at stake",
        "renewals": f"{figures['renewals']}, while {seconds / interval:.1f} are due to time",
        "presented again": figures["presented again"],
        "reuse detections": figures["reuse detections"],
        "grants revoked": f"{figures['grants revoked']} of {figures['logins']}",
        "longest wait": f"{fleet.longest:.2f} s",
    }
    lines = [f"{name:20}{value}" for name, value in rows.items()]
    sys.stdout.write("\n".join(["", f"{PROCESSES} processes, {title}", *lines, ""]))
    assert figures["renewals"] <= 1.05 * seconds / interval + fleet.hits
    if "CHAOS_SECONDS" in os.environ:
        assert fleet.longest < 5
    return figures


def test_with_a_grace_period_no_kill_at_all_loses_a_grant(tmp_path):
    grace = 10.0
    with (
        Provider(tmp_path, lifetime=LIFETIME, grace=grace) as provider,
        new_fleet(provider, tmp_path, grace) as fleet,
    ):
        fleet.wait_until_all_get("200")
        harass(fleet, POINTS, fleet.replace)
        figures = report("a grace period, killed anywhere", fleet, provider)
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["presented again"] <= fleet.hits
    assert figures["reuse detections"] == figures["grants revoked"] == 0


def test_without_grace_no_kill_but_of_who_awaits_an_answer_loses_a_grant(tmp_path):
    with (
        Provider(tmp_path, lifetime=LIFETIME, grace=0) as provider,
        new_fleet(provider, tmp_path, 0) as fleet,
    ):
        fleet.wait_until_all_get("200")
        harass(fleet, ["asking", "saved"], fleet.replace_unless_at_stake)
        figures = report("no grace period, no answer killed", fleet, provider)
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert fleet.hits == figures["presented again"] == 0
    assert figures["reuse detections"] == figures["grants revoked"] == 0


def test_without_grace_an_answer_killed_costs_everyone_one_login_and_no_restart(tmp_path):
    cycles = 0
    with (
        Provider(tmp_path, lifetime=LIFETIME, grace=0) as provider,
        new_fleet(provider, tmp_path, 0) as fleet,
    ):
        fleet.wait_until_all_get("200")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            fleet.replace(fleet.wait_at("answered"))
            fleet.wait_until_all_get("uncertain_rotation")
            cycles += 1
            assert provider.figures()["presented again"] == cycles
            fleet.adopt(provider.log_in())
            fleet.wait_until_all_get("200")
        fleet.end()
        figures = report("no grace period, answers killed", fleet, provider)
    assert set(fleet.answers) == {"200", "uncertain_rotation"}, fleet.log()
    assert figures["presented again"] == figures["reuse detections"] == cycles
    assert figures["grants revoked"] == fleet.hits == cycles
    assert figures["logins"] == cycles + 1
