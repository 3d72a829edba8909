"""The keeper in random schedules, and in all schedules of small worlds (:mod:`simulation`).

The environment variable ``SIMULATION_SCHEDULES`` is the number of random schedules.  From 100,000
on, more small worlds are enumerated as well.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import pytest
from simulation.choices import Dice
from simulation.mutants import MUTANTS, Mutant, writes_no_intent
from simulation.plan import LATE, SERVER_FAULTS, STORES, Plan
from simulation.schedule import play, play_each, play_seed, trace
from simulation.stage import Summary
from simulation.world import Violation

SCHEDULES = int(os.environ.get("SIMULATION_SCHEDULES", "1000"))
# The schedules of one test.
SHARE = 1000
# The schedules within which the absence of a rule has to be detected.
SOON = 1000

at_length = [
    pytest.mark.skipif(SCHEDULES < 100_000, reason="takes long: tox -e simulate"),
    pytest.mark.timeout(600),
]


@pytest.mark.parametrize("first", range(0, SCHEDULES, SHARE))
def test_every_rule_holds_under_any_faults(first: int) -> None:
    ended = [play_seed(seed) for seed in range(first, min(first + SHARE, SCHEDULES))]
    # The schedules had renewals, requests, and errors with a cause.
    sums = Summary(*map(sum, zip(*ended, strict=True)))
    assert sums.minted > len(ended)
    assert sums.served > sums.presentations > len(ended)
    assert sums.complaints > len(ended)


def small(**world: Any) -> Plan:
    """Two processes that find an expired token, and send one request each while there are
    faults."""
    names: dict[str, Any] = {"grant": "adopted", "lifetime": None, "rate": 1.0, "most": 1}
    return Plan(processes=2, threads=1, span=1.0, pause=10.0, **(names | world))


KILL = ("kill",)
LEASE = {"lease": 0.1}
EVERYTHING = {
    "server_faults": dict.fromkeys((*SERVER_FAULTS, LATE), 0.5),
    "away": 0.5,
    "failing_saves": 0.5,
    "lost_writes": 0.5,
    "disturbances": ("kill", "stall", "interrupt", "empty", "store down", "cut off", "revoke"),
}


@pytest.mark.parametrize(
    ("plan", "detours", "disturbances"),
    [
        pytest.param(small(disturbances=KILL), 1, 1, id="kill"),
        pytest.param(small(disturbances=KILL, grant="client"), 1, 1, id="kill-client"),
        pytest.param(small(disturbances=KILL, swaps_locked=True), 1, 1, id="kill-locked-swap"),
        pytest.param(small(disturbances=KILL, **STORES["file"]), 1, 1, id="kill-file"),
        pytest.param(small(disturbances=KILL, grace=30.0, most=2), 0, 2, id="kill-grace"),
        pytest.param(small(**EVERYTHING), 0, 1, id="everything"),
        pytest.param(small(**EVERYTHING, **LEASE), 0, 1, id="everything-lease"),
        pytest.param(small(disturbances=KILL), 2, 1, id="kill-2", marks=at_length),
        pytest.param(small(disturbances=KILL, **LEASE), 2, 1, id="kill-lease-2", marks=at_length),
        pytest.param(
            small(disturbances=KILL, grace=30.0, most=2), 1, 2, id="kill-grace-2", marks=at_length
        ),
        pytest.param(
            small(disturbances=KILL, grant="client"), 3, 1, id="kill-client-3", marks=at_length
        ),
        pytest.param(small(**EVERYTHING), 1, 1, id="everything-1", marks=at_length),
        pytest.param(small(**EVERYTHING, **LEASE), 1, 1, id="everything-lease-1", marks=at_length),
        pytest.param(
            small(**EVERYTHING, **LEASE, most=2), 0, 2, id="everything-lease-2", marks=at_length
        ),
    ],
)
def test_every_rule_holds_in_every_schedule_of_a_small_world(
    plan: Plan, detours: int, disturbances: int
) -> None:
    assert play_each(plan, detours=detours, disturbances=disturbances) > 100


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("grant", ["first", "adopted"])
def test_a_store_that_is_set_back_costs_its_only_process_no_login(store: str, grant: str) -> None:
    plan = Plan(grant, 1, disturbances=("set back", "revoke"), rate=0.02, **STORES[store])
    assert plan.keeps_grants()
    for seed in range(40):
        play(plan, Dice(seed))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.patch.__name__)
def test_each_mutant_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    found = next((seed for seed in range(SOON) if _is_violated(mutant, seed, monkeypatch)), None)
    assert found is not None
    # With the rule, the same schedule has no violation.
    play(mutant.plan, Dice(found))


def _is_violated(mutant: Mutant, seed: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patch:
        mutant.patch(patch)
        try:
            play(mutant.plan, Dice(seed))
        except Violation:
            return True
    return False


def test_a_schedule_is_reproducible() -> None:
    plan = Plan.drawn(7)
    assert trace(plan, Dice(7)) == trace(plan, Dice(7))
    assert trace(plan, Dice(7)) != trace(plan, Dice(8))


def test_a_violation_report_has_seed_and_history(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in count() if Plan.drawn(seed).grant == "first")
    writes_no_intent(monkeypatch)
    with pytest.raises(Violation, match=rf"(?s) load\n.*python -m simulation {seed}$"):
        play_seed(seed)
