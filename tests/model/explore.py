"""A breadth-first search of all states, which finds the shortest violation."""

from __future__ import annotations

from typing import NamedTuple

from model.protocol import Protocol
from model.world import LIVELY, Process, State

__all__ = ["Found", "explore"]


class Found(NamedTuple):
    """The result of a search.

    :ivar states: the number of states that were found.
    :ivar wrong: the violated invariant; empty if there is no violation.
    :ivar steps: the shortest sequence of steps to the violation.
    """

    states: int
    wrong: str = ""
    steps: tuple[str, ...] = ()


def explore(protocol: Protocol, processes: int, faults: int) -> Found:
    """Explore a world with the given number of *processes* and up to *faults* faults."""
    start = State(tuple(Process(name) for name in "PQRS"[:processes]), faults)
    states, number = [start], {start: 0}
    came_from = [(0, "")]
    # For each state, the states before it, without a fault in between.
    leads_here: list[list[int]] = [[]]

    def steps_to(here: int) -> tuple[str, ...]:
        steps = []
        while here:
            here, what = came_from[here]
            steps.append(what)
        return tuple(reversed(steps))

    for here, state in enumerate(states):  # which grow in this loop
        for what, after in protocol.steps(state):
            if after.wrong:
                return Found(len(states), after.wrong, (*steps_to(here), what))
            there = number.setdefault(after, len(states))
            if there == len(states):
                states.append(after)
                came_from.append((here, what))
                leads_here.append([])
            if after.faults == state.faults:
                leads_here[there].append(here)

    ends = [here for here, state in enumerate(states) if protocol.is_settled(state)]
    lively = set(ends)
    while ends:
        for before in leads_here[ends.pop()]:
            if before not in lively:
                lively.add(before)
                ends.append(before)
    stuck = next((here for here in range(len(states)) if here not in lively), None)
    return Found(len(states)) if stuck is None else Found(len(states), LIVELY, steps_to(stuck))
