"""Runs of the chaos tests, and their reports and checks.

``CHAOS_SECONDS`` is the duration of each run, and ``CHAOS_PROCESSES`` the number of clients.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from math import inf
from pathlib import Path
from typing import NamedTuple

from tokenadapter.core.policy import windows

from .client import POINTS
from .fleet import Client, Fleet, Provider

SECONDS = float(os.environ.get("CHAOS_SECONDS", "2"))
PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "6"))
IS_LONG = "CHAOS_SECONDS" in os.environ
LIFETIME = 2.0
# Kills at a point, per second.
AIMED_KILLS = 1.0
# Seconds that a renewal may take on a busy machine, including the wait between two polls.
RENEWAL = 2.5


class Place(NamedTuple):
    """The store of a fleet."""

    name: str
    url: str | None = None
    lease: float = 0.0
    """The seconds for which the lock outlives a dead client."""
    apart: float = 0.0
    """The seconds by which the clocks of its two machines differ."""
    environment: Mapping[str, str] | None = None
    pace: float = 100.0
    """Requests of the whole fleet per second."""
    kills: float = 1.5
    """Kills at random times, per second; after each, another client has to start."""

    def fleet(self, base: str, folder: Path, size: int, *, pause: float, grace: float) -> Fleet:
        return Fleet(
            *(base, folder, size),
            pause=pause,
            grace=grace,
            store=self.url,
            lease=self.lease,
            apart=self.apart,
            environment=self.environment,
        )


FILE = Place("a file")


def new_fleet(
    provider: Provider, folder: Path, grace: float, place: Place = FILE, size: int = PROCESSES
) -> Fleet:
    """A fleet that is ready to start, with a stored login."""
    fleet = place.fleet(provider.url, folder, size, pause=2 * size / place.pace, grace=grace)
    fleet.adopt(provider.log_in())
    return fleet


def run_with_grace(folder: Path, place: Place = FILE, size: int = PROCESSES) -> None:
    """Clients are killed at any point; the server accepts a rotated refresh token once more."""
    grace = 10.0
    with (
        Provider(folder, lifetime=LIFETIME, grace=grace) as provider,
        new_fleet(provider, folder, grace, place, size) as fleet,
    ):
        fleet.wait_until_all_get("200")
        harass(fleet, POINTS, fleet.replace, place.kills)
        figures = report("a grace period, killed anywhere", fleet, provider, place)
    # For an old refresh token, this server repeats its first answer, with a lifetime that begins
    # now.  Here a token lives no longer than a lease or a pause of a busy machine: the repeated
    # token may have expired already, and is refused until the next renewal is due.
    most = fleet.size + place.pace * LIFETIME
    assert fleet.answers.pop("401", 0) <= most * figures["presented again"], fleet.log()
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["presented again"] <= fleet.hits
    assert figures["reuse detections"] == figures["grants revoked"] == 0


def run_without_grace(folder: Path, place: Place = FILE, size: int = PROCESSES) -> None:
    """Clients are killed at any point except from a token request to the save of its answer."""
    with (
        Provider(folder, lifetime=LIFETIME, grace=0) as provider,
        new_fleet(provider, folder, 0, place, size) as fleet,
    ):
        fleet.wait_until_all_get("200")
        harass(fleet, ["asking", "saved"], fleet.replace_unless_at_stake, place.kills)
        figures = report("no grace period, no answer killed", fleet, provider, place)
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert fleet.hits == figures["presented again"] == 0
    assert figures["reuse detections"] == figures["grants revoked"] == 0


def harass(
    fleet: Fleet, points: Collection[str], kill: Callable[[Client], object], kills: float
) -> None:
    """Kill clients for a while: random ones by *kill*, *kills* times per second, and at least one
    client at each of *points*.

    Between two kills at a point, a client must have renewed: two leases can be longer than a
    grace period.
    """
    now = time.monotonic()
    end, next_kill, next_aim = now + SECONDS, now, now
    aims = itertools.cycle(points)
    killed_at = set[str]()
    while now < end or len(killed_at) < len(points):
        if now >= next_kill:
            kill(random.choice(list(fleet)))
            next_kill = now + random.expovariate(kills)
        if now >= next_aim and not fleet.is_stalled:
            fleet.arm(next(aims))
            next_aim = inf
        for line in fleet.hear(0.01):
            if line.kind == "point":
                fleet.arm(None)
                fleet.replace_renewing(line.client)
                killed_at.add(line.word)
                next_aim = now + random.expovariate(AIMED_KILLS)
        now = time.monotonic()
    fleet.end()


def report(
    title: str,
    fleet: Fleet,
    provider: Provider,
    place: Place = FILE,
    lifetime: float = LIFETIME,
) -> Counter[str]:
    """Print the figures of a run, and check the rules for every run.

    :returns: the figures of the server.
    """
    seconds = time.monotonic() - fleet.made_at
    figures = provider.figures()
    # Each process draws the start of its soft window, and the earliest one renews.
    interval = lifetime - windows(lifetime, 1.0)[0]
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
        "longest stall": f"{max(fleet.stalls, default=0):.2f} s, of {len(fleet.stalls)}",
    }
    lines = [f"{name:20}{value}" for name, value in rows.items()]
    sys.stdout.write("\n".join(["", f"{fleet.size} processes, {place.name}, {title}", *lines, ""]))
    # The token of a lost answer is as old as the lease when it is issued again, and expires sooner.
    lost = 2 * fleet.hits if place.lease else fleet.hits
    assert figures["renewals"] <= 1.05 * seconds / interval + lost
    if IS_LONG:
        # A request may meet two holders that were killed, one after the other.
        assert fleet.longest < 2 * (place.lease + RENEWAL)
        assert max(fleet.stalls, default=0) < max(place.lease, lifetime + RENEWAL)
    return figures
