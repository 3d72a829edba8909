"""Play schedules by their seeds: ``python -m simulation SEED [COUNT]``."""

from __future__ import annotations

import sys
import time

from simulation.choices import Dice
from simulation.plan import Plan
from simulation.schedule import play_seed, trace
from simulation.stage import Summary


def main() -> None:
    """Play one schedule and print its events; or many schedules, until a rule is violated."""
    first, *count = map(int, sys.argv[1:])
    if not count:
        plan = Plan.drawn(first)
        print(plan, trace(plan, Dice(first)), sep="\n")  # noqa: T201
        return
    began, sums = time.process_time(), [0] * len(Summary._fields)
    for seed in range(first, first + count[0]):
        sums = [total + number for total, number in zip(sums, play_seed(seed), strict=True)]
    summary = ", ".join(
        f"{total} {name}" for name, total in zip(Summary._fields, sums, strict=True)
    )
    print(f"{count[0]} schedules in {time.process_time() - began:.1f} s: {summary}")  # noqa: T201


main()
