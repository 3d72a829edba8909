"""Processes share a rotating token that is bound to one key, while the server changes its nonces.

The provider of the other tests knows no proofs, so the test kit's server takes its place.  That
server tells more: which key each proof was made with, and why a proof was refused.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import Key
from tokenadapter.testing import TokenServer

from .client import POINTS
from .fleet import Fleet
from .run import FILE, LIFETIME, PROCESSES, SECONDS, harass, report

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 200)]

NONCES_EVERY = 1.0
ENVIRONMENT = {"CHAOS_DPOP": "1"}


class Provider:
    """The server, as the driver of a fleet asks it."""

    def __init__(self, server: TokenServer) -> None:
        self._server = server
        self.key = Key.generate()
        self.url = server.url

    def log_in(self) -> dict[str, Any]:
        """The token response to a new login, with the key that it is bound to."""
        token = self._server.issue(thumbprint=self.key.thumbprint)
        return {**token, "dpop_key": self.key.private_jwk()}

    def figures(self) -> Counter[str]:
        stats = self._server.stats
        presented = [
            request.form["refresh_token"]
            for request in self._server.requests
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


@contextmanager
def fleet_at(grace: float, folder: Path) -> Iterator[tuple[TokenServer, Provider, Fleet]]:
    with TokenServer(
        dpop=True,
        dpop_nonces=NONCES_EVERY,
        lifetime=LIFETIME,
        grace=grace,
        clients={"client": None},
    ) as server:
        provider = Provider(server)
        place = FILE._replace(environment=ENVIRONMENT)
        fleet = place.fleet(server.url, folder, PROCESSES, pause=2 * PROCESSES / 40.0, grace=grace)
        fleet.adopt(provider.log_in())
        with fleet:
            fleet.wait_until_all_get("200")
            yield server, provider, fleet


def test_killed_anywhere_they_share_one_key_and_spend_no_refresh_token_twice(
    tmp_path: Path,
) -> None:
    grace = 10.0
    with fleet_at(grace, tmp_path) as (server, provider, fleet):
        harass(fleet, POINTS, fleet.replace, 1.0)
        figures = report("bound tokens, a grace period, killed anywhere", fleet, provider)  # type: ignore[arg-type]
        proven_with = {request.thumbprint for request in server.requests} - {None}
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["presented again"] <= fleet.hits
    assert figures["reuse detections"] == figures["grants revoked"] == 0
    assert proven_with == {provider.key.thumbprint}


def test_a_nonce_of_each_second_costs_no_renewal_and_one_request_for_each_process(
    tmp_path: Path,
) -> None:
    with fleet_at(0.0, tmp_path) as (server, provider, fleet):
        began, before = time.monotonic(), server.stats
        refused_at_start = before.proofs_refused
        end = began + SECONDS
        while time.monotonic() < end:
            fleet.hear(0.05)
        seconds = time.monotonic() - began
        fleet.end()
        figures = report("bound tokens, a nonce each second", fleet, provider)  # type: ignore[arg-type]
        refused = server.stats.proofs_refused - refused_at_start
    changes = seconds / NONCES_EVERY + 2
    sys.stdout.write(f"{refused} proofs refused in {changes:.0f} changes of the nonce\n")
    assert set(fleet.answers) == {"200"}, fleet.log()
    assert figures["reuse detections"] == figures["presented again"] == 0
    # At the API, and of the process that renews at the token endpoint.
    assert refused <= changes * (fleet.size + 1)
    assert json.loads((tmp_path / "state" / "token.json").read_text())
