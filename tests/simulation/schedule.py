"""Plays schedules, and traces them."""

from __future__ import annotations

from simulation.choices import Choices, Dice, Enumeration
from simulation.plan import Plan
from simulation.stage import Stage, Summary
from simulation.world import Violation, World


def play_seed(seed: int) -> Summary:
    """Play the schedule of *seed*.

    :raises Violation: if a rule is violated; the message has the trace.
    """
    plan = Plan.drawn(seed)
    try:
        return play(plan, Dice(seed))
    except Exception as error:
        raise Violation(
            f"{error}\n{plan}\n{trace(plan, Dice(seed))}\n"
            f"seed {seed}; to repeat the schedule, in tests: python -m simulation {seed}"
        ) from error


def play_each(plan: Plan, *, detours: int, disturbances: int) -> int:
    """Play all schedules of *plan* within these limits, and count them.

    :raises Violation: if a rule is violated; the message has the trace.
    """
    count = 0
    for path in Enumeration(detours, disturbances).each():
        count += 1
        try:
            play(plan, path)
        except Exception as error:
            path.rewind()
            raise Violation(f"{error}\n{plan}\n{trace(plan, path)}\npath {path.path}") from error
    return count


def trace(plan: Plan, choices: Choices) -> str:
    """The events of a schedule, one in each line."""
    stage = Stage(plan, World(choices, traced=True))
    ending = ""
    try:
        stage.play()
    except Exception as error:  # noqa: BLE001 - it is part of the trace
        ending = f"{type(error).__name__}: {error}"
    return "\n".join([*(stage.world.trace or ()), ending])


def play(plan: Plan, choices: Choices) -> Summary:
    """Play one schedule.

    :raises Violation: if a rule is violated.
    """
    return Stage(plan, World(choices)).play()
