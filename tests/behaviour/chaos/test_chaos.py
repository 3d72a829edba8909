"""Clients of a real authorization server are killed, and no kill makes a new login necessary.

A client that is killed with an unsaved answer loses the new refresh token.  So there are three
runs: with a grace period, and kills at any time; without one, and kills at any time except from
the token request to the save of its answer; and without one, with kills exactly then.
"""

from __future__ import annotations

import time

import pytest

from .fleet import Provider
from .run import LIFETIME, SECONDS, new_fleet, report, run_with_grace, run_without_grace

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 200)]


def test_with_a_grace_period_no_kill_loses_a_grant(tmp_path):
    run_with_grace(tmp_path)


def test_without_grace_only_a_kill_before_the_answer_is_saved_loses_a_grant(tmp_path):
    run_without_grace(tmp_path)


def test_without_grace_a_lost_answer_requires_one_login_and_no_restart(tmp_path):
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
