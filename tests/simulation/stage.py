"""Builds a world from a plan, and runs its processes."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import pytest

from simulation.authority import Authority
from simulation.complaints import Complaints
from simulation.faults import Faults
from simulation.grants import GRANTS, OWNER, STALE
from simulation.ledger import Account, digest
from simulation.plan import Plan
from simulation.process import Computer, Process
from simulation.store import SimulatedStore
from simulation.users import User
from simulation.witness import Witness
from simulation.world import World
from tokenadapter.core import eligibility, record
from tokenadapter.core.journal import Journal
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.stores import toolkit
from tokenadapter.token import Token

# The maximal error in seconds of clocks that have to agree.
_AGREE = 0.4
# More hashes of spent tokens than there are in any schedule.
_ALL = 1_000_000
# The share of processes that may end right after a request, where there are any.
_ABRUPT = 0.7


class Summary(NamedTuple):
    """The result of a schedule: the numbers of token requests, of issued tokens, of requests that
    the API admitted, of errors that users got, and of steps."""

    presentations: int
    minted: int
    served: int
    complaints: int
    steps: int


class Stage:
    """One world with its processes and users."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.authority = Authority(
            world, lifetime=plan.lifetime, grace=plan.grace, rotation=plan.rotation
        )
        self.witness = Witness(world, self.authority, early=plan.early, deadline=plan.deadline)
        self.keepers: dict[Process, TokenKeeper] = {}
        self.users: list[User] = []
        self.complaints: list[Complaints] = []
        self.computer = Computer(world.choices.between(-100.0, 100.0))
        disk = self.witness.disk
        disk.lease = plan.lease
        disk.failing_saves, disk.lost_answers = plan.failing_saves, plan.lost_writes
        disk.swaps_locked, disk.drops = plan.swaps_locked, plan.drops
        disk.is_file = plan.is_file
        disk.spent_apart = plan.spent_apart
        disk.ahead = 0.0 if plan.has_clock else None
        disk.clocks_differ = 2 * _AGREE if plan.computers and not plan.has_clock else 0.0
        world.calm_from = world.now + plan.span
        world.disturb = Faults(world, plan, self.witness, self._fork).strike
        world.disturbance_rate = plan.rate if plan.disturbances else 0.0

    def play(self) -> Summary:
        """Run all processes until they end.

        :raises Violation: if a rule is violated.
        """
        if self.plan.grant == "adopted":
            self._put_a_token()
        with _isolation(self.plan):
            try:
                for number in range(self.plan.processes):
                    self._start(f"p{number}", number)
                self.world.run()
                self._check_end()
            finally:
                self.world.close()
        return Summary(
            self.witness.presentations,
            self.authority.count,
            sum(user.served for user in self.users),
            sum(complaints.count for complaints in self.complaints),
            self.world.steps,
        )

    def _start(self, name: str, number: int) -> None:
        """Start a process.

        :param number: the number of its configuration.
        """
        plan, world, witness = self.plan, self.world, self.witness
        computer = self.computer
        if plan.computers:
            off = 150.0 if plan.has_clock else _AGREE
            computer = Computer(self.computer.ahead + world.choices.between(-off, off))
        process = Process(world, name, computer)
        process.starts_threads_at_exit = plan.threads_at_exit
        process.ends_abruptly = plan.exits > 0 and world.choices.chance(_ABRUPT)
        process.on_end = partial(self._ended, number)
        process.on_order = witness.ends_in_order
        grant = GRANTS[plan.grant](
            self.authority,
            witness,
            process,
            plan.server_faults,
            requested={"scope": ("a", "b", "a b")[number % 3]} if plan.requested > 1 else {},
            client_credential=STALE if plan.stale_client and number == 0 else "c",
        )
        grant.away = plan.away
        witness.accounts[process] = Account(grant.requested, grant.client_credential)
        keeper = TokenKeeper(
            grant.as_grant(),
            SimulatedStore(witness.disk, process),
            runtime=process.runtime,
            renew_early=plan.early,
            on_refresh=partial(witness.renewed, process),
        )
        for user in self._users_of(process, keeper):
            process.start(user.live)
        process.main = process.tasks[0]

    def _users_of(self, process: Process, keeper: TokenKeeper) -> list[User]:
        """The users of *keeper* in *process*."""
        self.keepers[process] = keeper
        complaints = Complaints(self.plan, self.witness, process)
        self.complaints.append(complaints)
        users = [
            User(self.plan, keeper, self.authority, self.witness, complaints, process)
            for _ in range(self.plan.threads)
        ]
        self.users += users
        return users

    def _fork(self, parent: Process) -> None:
        """Fork a process: copy everything but its threads."""
        world, witness = self.world, self.witness
        child = Process(world, f"{parent.name}+{len(world.processes)}", parent.computer, parent)
        child.starts_threads_at_exit = parent.starts_threads_at_exit
        child.ends_abruptly = self.plan.exits > 0
        child.on_end = partial(self._ended, None)
        child.on_order = witness.ends_in_order
        witness.accounts[child] = witness.accounts[parent].forked()
        world.log(parent, "forks {}", child)
        keeper = _copied(
            self.keepers[parent],
            {
                id(parent): child,
                id(parent.runtime): child.runtime,
                **{id(it): it for it in (world, witness, witness.disk, self.authority)},
            },
        )
        first, *others = self._users_of(child, keeper)

        def begin() -> None:
            keeper._after_fork()
            for user in others:
                child.start(user.live)
            first.live()

        child.main = child.start(begin)

    def _ended(self, number: int | None, process: Process) -> None:
        self.witness.disk.release_lock_of(process)
        self.witness.deaths += 1
        if number is not None and self.world.now < self.world.calm_from:
            # Cron or a supervisor starts the process again.
            self._start(f"{process.name}'", number)

    def _put_a_token(self) -> None:
        """Put an expired token of an earlier process into the slot."""
        answer = self.authority.log_in()
        token = Token(
            answer["access_token"],
            refresh_token=answer["refresh_token"],
            issued_at=self.world.now - 3600.0,
            expires_at=self.world.now - 1800.0,
        )
        requested = {"scope": "a"} if self.plan.requested > 1 else {}
        left = record.Record(OWNER, requested, "n0", token)
        self.witness.disk.put((left.to_document(), "1-n0"))
        self.witness.saved_tokens.add(token.access_token)
        self.witness.requested[token.access_token] = requested

    def _check_end(self) -> None:
        self.witness.check_end()
        failures = sum(complaints.count for complaints in self.complaints)
        if self.plan.is_faultless() and failures:
            self.world.fail("there was an error although nothing broke")
        if self.plan.keeps_grants() and self.authority.logins > (self.plan.grant == "adopted"):
            self.world.fail("a grant is lost without a cause")


def _copied(keeper: TokenKeeper, memo: dict[int, Any]) -> TokenKeeper:
    """A copy of a keeper for a forked child.

    :param memo: replacements for the objects of the parent, and objects that both share.
    """
    copied = TokenKeeper.__new__(TokenKeeper)
    memo[id(keeper)] = copied
    journal = keeper._made.get("journal")
    if journal is not None:
        # Its lock cannot be copied.
        memo[id(journal)] = Journal(deepcopy(journal.store, memo), journal.listener)
    vars(copied).update(deepcopy(vars(keeper), memo))
    worker = copied._made.get("worker")
    if worker is not None:
        worker._renewal = lambda: copied._renewal  # deepcopy does not copy functions
    return copied


@contextmanager
def _isolation(plan: Plan) -> Iterator[None]:
    """Restore the global state that simulated processes share with this one."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("tokenadapter"), "disabled", True)
        patch.setattr(record, "digest", digest)
        # Each other process may have slept before it remembers a hash.  Stores keep more than that.
        kept = plan.spent_kept and plan.spent_kept + plan.processes - 1
        patch.setattr(toolkit, "REMEMBERED", kept or _ALL)
        patch.setattr(eligibility, "digest", digest)
        patch.setattr(record.Record, "from_document", _reader(record.Record.from_document))
        try:
            yield
        finally:
            # A process that was killed while it deferred Ctrl-C has not restored the handler.
            signal.signal(signal.SIGINT, handler)


def _reader(
    from_document: Callable[[Mapping[str, Any]], record.Record],
) -> Callable[[Mapping[str, Any]], record.Record]:
    """*from_document* with a cache of the last document, which no process changes."""
    last: tuple[Mapping[str, Any], record.Record] | None = None

    def read(document: Mapping[str, Any]) -> record.Record:
        nonlocal last
        if last is None or last[0] is not document:
            last = document, from_document(document)
        return last[1]

    return read
