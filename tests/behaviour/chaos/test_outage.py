"""Processes that share an expired token also share the failure of the token endpoint."""

from __future__ import annotations

import os
import sys
import time

import pytest

from .fleet import Fleet

PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "6"))
# Seconds of the outage after all processes have noticed it.
OUTAGE = 5.0 if "CHAOS_SECONDS" in os.environ else 0.0

pytestmark = pytest.mark.chaos


def test_an_outage_causes_a_few_token_requests_for_all_processes_together(server, tmp_path):
    with Fleet(server.url, tmp_path, PROCESSES, pause=0.2) as fleet:
        fleet.wait_until_all_get("no_credential")
        with server.outage():
            fleet.adopt(server.issue() | {"expires_at": time.time() - 60})
            fleet.wait_until_all_get("RefreshTemporarilyFailed")
            end = time.monotonic() + OUTAGE
            while time.monotonic() < end:
                fleet.hear(0.05)
        fleet.wait_until_all_get("200")
        fleet.end()
    sent = server.stats.token_requests
    sys.stdout.write(f"\n{PROCESSES} processes, an outage of {OUTAGE:g} s: {sent} token requests\n")
    assert set(fleet.answers) == {"no_credential", "RefreshTemporarilyFailed", "200"}
    assert sent <= 3
    assert server.stats.renewals == 1
