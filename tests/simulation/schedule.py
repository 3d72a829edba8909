"""Plays schedules, and tells how they went."""

from __future__ import annotations

from simulation.choices import Choices, Dice, Enumeration
from simulation.plan import Plan
from simulation.stage import Ended, Stage
from simulation.world import Violation, World


def play_seed(seed: int) -> Ended:
    """Play the schedule of *seed*.

    :raises Violation: if something does not hold; it tells how that came about.
    """
    plan = Plan.drawn(seed)
    try:
        return play(plan, Dice(seed))
    except Exception as error:
        raise Violation(
            f"{error}\n{plan}\n{trace(plan, Dice(seed))}\n"
            f"seed {seed}; to see it again, in tests: python -m simulation {seed}"
        ) from error


def play_each(plan: Plan, *, detours: int, disturbances: int) -> int:
    """Play all schedules of *plan* with so few detours and disturbances, and count them.

    :raises Violation: if something does not hold; it tells how that came about.
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
    """What happens in a schedule, a line each."""
    stage = Stage(plan, World(choices, traced=True))
    ending = ""
    try:
        stage.play()
    except Exception as error:  # noqa: BLE001 - it is told
        ending = f"{type(error).__name__}: {error}"
    return "\n".join([*(stage.world.trace or ()), ending])


def play(plan: Plan, choices: Choices) -> Ended:
    """Play one schedule.

    :raises Violation: if something does not hold.
    """
    return Stage(plan, World(choices)).play()
