"""Scale

What load a fleet puts on its store and on the token endpoint when the token that it shares expires.

Up to 100,000 processes are simulated. Their keepers are real, the clock is not. The store answers
in 1 ms and counts calls, and the token endpoint takes 0.5 s. The token lives for an hour. *In
step*, all processes send a request at the same moment, and again every minute, unless a row says
otherwise. *Out of step*, each process has its own moment within each minute. A *store call* is a
look at the record, an attempt at the lock, a check whether a refresh token was spent before, or a
call that only the process that renews makes.

Then 200 real processes wake up in step, with an expired token, on one Redis and on one PostgreSQL.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple, TypeVar

from fleet import LATENCY, LIFETIME, ROUND_TRIP, Fleet
from measuring import Bar, Chart, Claim, Finding, Spread, Table, alone
from real_fleet import KINDS, Cost, Herd, costs, herd

from tokenadapter.stores.redis import RedisStore

T = TypeVar("T")
U = TypeVar("U")

SIZES = (100, 1_000, 10_000, 100_000)
# Processes on a machine.
CROWD = 100
MINUTE = 60.0
# What those who wait ask, and what only the process that renews does.
QUESTIONS = ("load", "lock attempt", "was_spent")
WRITES = ("confirm", "save", "remember_spent", "release")
# How many questions a store answers in the time that an answer to each process would take, and
# with how many processes that is simulated: only the ratio matters.
SLOW = (0.02, 0.2, 1.0, 2.0, 4.0)
SLOW_SIZE = 2_000
ABOUT_TIMES = (
    "The seconds in the last table are for information only: the processes and the server share "
    "the processors of one machine. The slower the answers, the fewer store calls they make."
)


class Passed(NamedTuple):
    """What became of a fleet at an expiry."""

    size: int
    token_requests: int
    failed: int
    counts: Counter[str]
    longest: float
    """Seconds that a call took at most."""
    after: float
    """Seconds from the save of the new token until the last call was done."""

    def each(self, *names: str) -> float:
        """How often each process asked for one of these; for anything, if none is named."""
        questions = [count for name, count in self.counts.items() if "bytes" not in name]
        counts = [self.counts[name] for name in names] if names else questions
        return sum(counts) / self.size


# --- the situations ---------------------------------------------------------------------------


def fresh(fleet: Fleet) -> None:
    fleet.share()
    for _ in range(10):
        fleet.call_all()
        fleet.clock.run(until=fleet.clock.now + MINUTE)


def stale(fleet: Fleet, within: float = 0.0, down: float = 0.0) -> None:
    """The background renewal, from before the first process finds the token stale.

    :param down: for how long the token endpoint is.
    """
    fleet.share()
    begin = fleet.dies_at - LIFETIME / 5 - 5
    fleet.server.down_until = begin + down
    every_minute(fleet, begin, 7 + round(down / MINUTE), within)


def expired(fleet: Fleet, within: float = 0.0, down: float = 0.0) -> None:
    fleet.share()
    begin = fleet.dies_at + 5
    fleet.server.down_until = begin + down
    every_minute(fleet, begin, 1 + round(down / MINUTE), within)


def cold(fleet: Fleet, within: float = 0.0) -> None:
    every_minute(fleet, fleet.dies_at + 5, 1, within)


def refused(fleet: Fleet) -> None:
    """The API refuses the token, and then the new one as well."""
    fleet.share()
    token = fleet.keepers[0].current()
    for keeper in fleet.keepers:
        fleet.clock.at(
            fleet.clock.now,
            lambda keeper=keeper: fleet.call(lambda: keeper.distrust(keeper.renew(token))),
        )
    fleet.clock.run()


def every_minute(fleet: Fleet, begin: float, times: int, within: float) -> None:
    for number in range(times):
        fleet.clock.run(until=begin + MINUTE * number)
        fleet.call_all(within)
    fleet.clock.run()


EXPIRED = "expired, in step"


class Situation(NamedTuple):
    play: Callable[[Fleet], None]
    is_outage: bool = False
    most: int = SIZES[-1]


SITUATIONS = {
    "fresh": Situation(fresh),
    "stale, in step": Situation(stale),
    "stale, out of step": Situation(partial(stale, within=MINUTE)),
    EXPIRED: Situation(expired),
    "expired, out of step": Situation(partial(expired, within=MINUTE)),
    "cold start, in step": Situation(cold),
    "cold start, out of step": Situation(partial(cold, within=MINUTE)),
    "refused, and the new token too, in step": Situation(refused, most=10_000),
    "stale, endpoint down for 5 min": Situation(partial(stale, down=300.0), True, 10_000),
    "expired, endpoint down for 2 min": Situation(partial(expired, down=120.0), True, 10_000),
}
SERVED_LATE = (EXPIRED, "cold start, in step", "refused, and the new token too, in step")


# --- playing them -----------------------------------------------------------------------------


class Task(NamedTuple):
    """A fleet in a situation.

    :ivar rate: how many questions the store answers in a second, if that is not without end.
    :ivar is_file: whether all are processes of one machine, which share a file.
    """

    name: str
    size: int
    rate: float | None = None
    is_file: bool = False


def play(task: Task) -> Passed:
    logging.getLogger("tokenadapter").addHandler(logging.NullHandler())
    gc.disable()  # it would look through all keepers again and again
    machines = 1 if task.is_file else max(task.size // CROWD, 1)
    fleet = Fleet(task.size, machines, rate=task.rate, file=task.is_file)
    SITUATIONS[task.name].play(fleet)
    return Passed(
        task.size,
        fleet.server.requests,
        fleet.failed,
        fleet.store.counts,
        max(fleet.waited),
        fleet.last_at - fleet.store.saved_at,
    )


def apart(work: Callable[[T], U], tasks: Sequence[T], *, at_once: int) -> dict[T, U]:
    """What *work* gives for each task, in a process of its own: the largest take 4 GiB."""
    with ProcessPoolExecutor(at_once, get_context("spawn"), max_tasks_per_child=1) as pool:
        return dict(zip(tasks, pool.map(work, tasks), strict=True))


# --- on paper ---------------------------------------------------------------------------------


def polls(seconds: float) -> float:
    """How often a process that waits for so long asks, on average: each pause is from a half of
    its length to all of it."""
    pause, longest = RedisStore.poll
    passed, number = 0.0, 1.0
    while (passed := passed + pause * 0.75) < seconds:
        number += 1
        pause = min(pause * 1.5, longest)
    return number


# --- the findings -----------------------------------------------------------------------------


def laws(fleets: dict[str, list[Passed]], sizes: Sequence[int]) -> Table:
    head = ["store calls per process, in a fleet of N", *(f"{size:,}" for size in sizes)]
    rows = []
    for name, those in fleets.items():
        cells = [f"{one.each():.2f}" for one in those]
        rows.append([name, *cells, *["–"] * (len(sizes) - len(cells))])
    return Table(head, rows)


def details(fleets: dict[str, list[Passed]]) -> Table:
    head = ["the largest fleet", "N", "token requests", "failed", "looks", "lock attempts"]
    head += ["spent?", "KiB read", "writes in total", "longest call, s"]
    rows = []
    for name, those in fleets.items():
        one = those[-1]
        rows.append(
            [
                name,
                f"{one.size:,}",
                str(one.token_requests),
                f"{one.failed:,}",
                *(f"{one.each(what):.2f}" for what in QUESTIONS),
                f"{one.counts['bytes read'] / one.size / 1024:.1f}",
                f"{sum(one.counts[what] for what in WRITES):,}",
                f"{one.longest:.2f}",
            ]
        )
    return Table(head, rows)


def files(machines: list[Passed]) -> Table:
    head = ["a file, expired, in step: processes", "token requests", "looks", "lock attempts"]
    head += ["spent?", "reservations", "glimpses", "longest call, s"]
    kinds = (*QUESTIONS, "reserve", "glimpse")
    return Table(
        head,
        [
            [
                f"{one.size:,}",
                str(one.token_requests),
                *(f"{one.each(kind):.2f}" for kind in kinds),
                f"{one.longest:.2f}",
            ]
            for one in machines
        ],
    )


def overloads(slow: dict[float, Passed]) -> Table:
    head = ["expired, in step: seconds in which the store answers one call of each process"]
    head += ["token requests", "failed", "store calls per process", "longest call, s"]
    return Table(
        head,
        [
            [
                f"{seconds:g}",
                str(one.token_requests),
                f"{one.failed / one.size:.0%}",
                f"{one.each():.2f}",
                f"{one.longest:.1f}",
            ]
            for seconds, one in slow.items()
        ],
    )


def reservations(
    fleets: dict[str, list[Passed]], machines: list[Passed], herds: list[Herd]
) -> list[Claim]:
    calm = [
        one
        for name, those in fleets.items()
        for one in those
        if name != "fresh" and not SITUATIONS[name].is_outage
    ]
    worst = max(
        those[-1].each() / those[0].each() for name, those in fleets.items() if name != "fresh"
    )
    after = max(one.after for name in SERVED_LATE if name in fleets for one in fleets[name])
    limit = RedisStore.poll[1] + 10 * ROUND_TRIP
    paper = polls(LATENCY + 10 * ROUND_TRIP) + 1
    looks = max(one.each("load") for one in fleets[EXPIRED])
    return [
        Claim(
            "One token request per expiry, whatever the number of processes",
            all(one.token_requests == 1 for one in [*calm, *machines, *herds]),
        ),
        Claim(
            "No call fails while the endpoint answers",
            not any(one.failed for one in [*calm, *machines, *herds]),
        ),
        Claim(
            "A fresh token costs no store call",
            not any(one.counts for one in fleets["fresh"]),
        ),
        Claim(
            "A process makes no more store calls in the largest fleet than in the smallest: at "
            f"most {worst:.2f} times as many",
            worst <= 1.1,
        ),
        Claim(
            f"No convoy: the last process gets the token {after:.2f} s after it is saved, within "
            f"{limit:.2f} s",
            after <= limit,
        ),
        Claim(
            f"A waiting process looks {looks:.2f} times, about as calculated: {paper:.0f}",
            looks <= paper + 1,
        ),
    ]


def prices(costs: dict[str, dict[str, Cost]]) -> Table:
    head = ["round trips, and bytes sent and received"]
    head += ["a look", "a lock attempt", "spent?"]
    rows = [
        [kind, *(f"{cost.round_trips}: {cost.sent:,} + {cost.received:,}" for cost in one.values())]
        for kind, one in costs.items()
    ]
    return Table(head, rows)


def real(herds: dict[str, Herd], costs: dict[str, dict[str, Cost]]) -> Table:
    size = next(iter(herds.values())).size
    head = [f"{size} processes, expired, in step", "token requests", "failed", "looks"]
    head += [
        "lock attempts",
        "spent?",
        "commands at the server",
        "calculated, at most",
        "KiB",
        "KiB by the costs",
    ]
    head += ["last one finished, s"]
    # Each pause may be half as long.
    most = 2 * polls(2 * LATENCY) + 3
    rows = []
    for kind, one in herds.items():
        requested = {name: one.requested[name] / one.size for name in QUESTIONS}
        trips = sum(requested[name] * cost.round_trips for name, cost in costs[kind].items())
        passed = sum(
            requested[name] * (cost.sent + cost.received) for name, cost in costs[kind].items()
        )
        rows.append(
            [
                kind,
                str(one.token_requests),
                str(one.failed),
                *(f"{number:.2f}" for number in requested.values()),
                f"{one.served / one.size:.1f}",
                f"{most * trips / sum(requested.values()):.1f}",
                "–" if one.passed is None else f"{one.passed / one.size / 1024:.1f}",
                f"{passed / 1024:.1f}",
                f"{one.seconds:.1f}",
            ]
        )
    return Table(head, rows)


def chart(fleets: dict[str, list[Passed]]) -> Chart:
    names = (EXPIRED, "cold start, in step", "stale, in step", "stale, out of step")
    return Chart(
        "bench-scale",
        "Store calls per process of a fleet, at an expiry",
        [
            Bar(f"{name}: {one.size:,}", Spread(*[one.each()] * 3))
            for name in names
            for one in fleets[name]
        ],
        2,
    )


def measure(quick: bool) -> Finding:
    sizes = (10, 100) if quick else SIZES
    tasks = [
        Task(name, size) for name, one in SITUATIONS.items() for size in sizes if size <= one.most
    ]
    crowds = [Task(EXPIRED, size, is_file=True) for size in sizes if size <= 1_000]
    slow = {} if quick else {s: Task(EXPIRED, SLOW_SIZE, SLOW_SIZE / s) for s in SLOW}
    tasks = sorted([*tasks, *crowds, *slow.values()], key=lambda task: task.size)
    # In this process, what is quick is quicker.
    done = {task: play(task) for task in tasks} if quick else apart(play, tasks, at_once=2)
    fleets = {
        name: [done[Task(name, size)] for size in sizes if size <= one.most]
        for name, one in SITUATIONS.items()
    }
    machines = [done[task] for task in crowds]
    tables = [laws(fleets, sizes), details(fleets), files(machines)]
    if slow:
        tables.append(overloads({seconds: done[task] for seconds, task in slow.items()}))
    kinds = KINDS[:1] if quick else KINDS
    prices_of = apart(costs, kinds, at_once=1)
    herds = apart(partial(herd, size=10 if quick else 200), kinds, at_once=1)
    tables += [prices(prices_of), real(herds, prices_of)]
    return Finding(
        tables, [chart(fleets)], reservations(fleets, machines, [*herds.values()]), [ABOUT_TIMES]
    )


if __name__ == "__main__":
    alone(measure)
