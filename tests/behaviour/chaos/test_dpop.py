"""Processes share a rotating token that is bound to one key, while the server changes its nonces.

The provider of the other tests knows no proofs, so the test kit's server takes its place.  That
server tells more: which key each proof was made with, and why a proof was refused.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tokenadapter import Key
from tokenadapter.testing import TokenServer

from . import fleet as fleets
from .client import POINTS
from .fleet import Fleet
from .run import FILE, IS_LONG, PROCESSES, SECONDS, harass, report

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 200)]

# In seconds.  A nonce is accepted for three times as long as it takes for the next one.
NONCES_EVERY = 1.0
# With many clients, a busy machine takes its time to prove a request twice.
LIFETIME = 4.0 if IS_LONG else 2.0
GRACE = 10.0


class Provider:
    """The server, as the driver of a fleet asks it."""

    def __init__(self, server: TokenServer) -> None:
        self.server = server
        self.key = Key.generate()

    def log_in(self) -> dict[str, Any]:
        """The token response to a new login, with the key that it is bound to."""
        token = self.server.issue(thumbprint=self.key.thumbprint)
        return {**token, "dpop_key": self.key.private_jwk()}

    def figures(self) -> Counter[str]:
        stats = self.server.stats
        presented = [
            request.form["refresh_token"]
            for request in self.server.requests
            if request.path == "/token" and request.thumbprint is not None
        ]
        return Counter(
            {
                "renewals": stats.renewals,
                "presented again": len(presented) - len({*presented}),
                "reuse detections": stats.reuse_detections,
                "grants revoked": stats.families_revoked,
                "logins": 1,
            }
        )

    def report(self, title: str, fleet: Fleet) -> Counter[str]:
        return report(title, fleet, cast("fleets.Provider", self), lifetime=LIFETIME)

    def proven_with(self) -> set[str | None]:
        return {request.thumbprint for request in self.server.requests} - {None}


@contextmanager
def bound_fleet(folder: Path, pause: float, grace: float) -> Iterator[tuple[Provider, Fleet]]:
    with TokenServer(
        dpop=True,
        dpop_nonces=NONCES_EVERY,
        lifetime=LIFETIME,
        grace=grace,
        clients={"client": None},
    ) as server:
        provider = Provider(server)
        place = FILE._replace(environment={"CHAOS_DPOP": "1"})
        fleet = place.fleet(server.url, folder, PROCESSES, pause=pause, grace=grace)
        fleet.adopt(provider.log_in())
        with fleet:
            fleet.wait_until_all_get("200")
            yield provider, fleet


def test_killed_anywhere_they_share_one_key_and_spend_no_refresh_token_twice(
    tmp_path: Path,
) -> None:
    with bound_fleet(tmp_path, PROCESSES / 20, GRACE) as (provider, fleet):
        harass(fleet, POINTS, fleet.replace, 1.0)
        figures = provider.report("bound tokens, a grace period, killed anywhere", fleet)
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["presented again"] <= fleet.hits
    assert figures["reuse detections"] == figures["grants revoked"] == 0
    assert provider.proven_with() == {provider.key.thumbprint}


@pytest.mark.skipif(not IS_LONG, reason='takes a minute: "tox -e chaos"')
def test_a_nonce_of_each_second_costs_no_renewal_and_one_request_for_each_process(
    tmp_path: Path,
) -> None:
    # In a long run, the server forgets most nonces before a process uses them.
    pause = 8 * NONCES_EVERY if IS_LONG else NONCES_EVERY
    with bound_fleet(tmp_path, pause, 0.0) as (provider, fleet):
        before, began = provider.server.stats.proofs_refused, time.monotonic()
        while time.monotonic() < began + SECONDS:
            fleet.hear(0.05)
        fleet.end()
        changes = (time.monotonic() - began) / NONCES_EVERY
        figures = provider.report("bound tokens, a nonce each second", fleet)
        refused = provider.server.stats.proofs_refused - before
    sys.stdout.write(f"{refused} proofs refused, {changes:.0f} nonces\n")
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["reuse detections"] == figures["presented again"] == 0
    # At the API, and at the token endpoint by the process that renews.
    assert refused <= (changes + 1) * (fleet.size + 1)
    assert fleet.events["Replayed"] <= (changes + 1) * fleet.size
