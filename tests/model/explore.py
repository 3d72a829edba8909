"""All states, breadth first: a violation is found by the shortest way."""

from __future__ import annotations

from typing import NamedTuple

from model.protocol import Protocol
from model.world import LIVELY, Process, State

__all__ = ["Found", "explore"]


class Found(NamedTuple):
    """What came of it.

    :ivar states: how many were seen.
    :ivar wrong: the invariant that is violated; empty if all hold in every state.
    :ivar steps: the shortest way to the violation.
    """

    states: int
    wrong: str = ""
    steps: tuple[str, ...] = ()


def explore(protocol: Protocol, processes: int, faults: int) -> Found:
    """Explore a world of some *processes* in which up to *faults* things go wrong."""
    start = State(tuple(Process(name) for name in "PQRS"[:processes]), faults)
    states, number = [start], {start: 0}
    came_from = [(0, "")]
    # From where a state is reached without a fault.
    leads_here: list[list[int]] = [[]]

    def way_to(here: int) -> tuple[str, ...]:
        way = []
        while here:
            here, what = came_from[here]
            way.append(what)
        return tuple(reversed(way))

    for here, state in enumerate(states):  # which grow meanwhile
        for what, after in protocol.steps(state):
            if after.wrong:
                return Found(len(states), after.wrong, (*way_to(here), what))
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
    return Found(len(states)) if stuck is None else Found(len(states), LIVELY, way_to(stuck))
