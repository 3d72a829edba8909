"""One world, and everyone in it: puts them there, and lets them live."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from simulation.authority import Authority
from simulation.complaints import Complaints
from simulation.faults import Faults
from simulation.grants import GRANTS
from simulation.ledger import Account, digest
from simulation.plan import Plan
from simulation.process import Computer, Process
from simulation.store import SimulatedStore
from simulation.users import User
from simulation.witness import Witness
from simulation.world import World
from tokenadapter import choice, record
from tokenadapter.keeper import TokenKeeper
from tokenadapter.token import Token

# By how many seconds clocks are off, at most, where they have to agree.
_AGREE = 0.4


class Ended(NamedTuple):
    """How a schedule went: how many requests to the server, tokens, requests that the API
    admitted, errors that users got, and steps there were."""

    presentations: int
    minted: int
    served: int
    complaints: int
    steps: int


class Stage:
    """One world, and everyone in it."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.authority = Authority(world, lifetime=plan.lifetime, grace=plan.grace)
        self.witness = Witness(world, self.authority, plan.early)
        self.users: list[User] = []
        self.complaints: list[Complaints] = []
        self.computer = Computer(world.choices.between(-100.0, 100.0))
        disk = self.witness.disk
        disk.lease = plan.lease
        disk.failing_saves, disk.lost_answers = plan.failing_saves, plan.lost_writes
        disk.swaps_locked, disk.drops = plan.swaps_locked, plan.drops
        disk.is_file = plan.is_file
        disk.notes_apart = plan.notes_apart
        disk.ahead = 0.0 if plan.has_clock else None
        disk.clocks_differ = 2 * _AGREE if plan.computers and not plan.has_clock else 0.0
        world.calm_from = world.now + plan.span
        world.disturb = Faults(world, plan, self.witness).strike
        world.disturbance_rate = plan.rate if plan.disturbances else 0.0

    def play(self) -> Ended:
        """Let everyone live to their end.

        :raises Violation: if something does not hold.
        """
        if self.plan.grant == "adopted":
            self._put_a_token()
        with _surroundings():
            try:
                for number in range(self.plan.processes):
                    self._start(f"p{number}")
                self.world.run()
                self._check_end()
            finally:
                self.world.close()
        return Ended(
            self.witness.presentations,
            self.authority.count,
            sum(user.served for user in self.users),
            sum(complaints.count for complaints in self.complaints),
            self.world.steps,
        )

    def _start(self, name: str) -> None:
        """Start a process."""
        plan, world, witness = self.plan, self.world, self.witness
        computer = self.computer
        if plan.computers:
            off = 150.0 if plan.has_clock else _AGREE
            computer = Computer(self.computer.ahead + world.choices.between(-off, off))
        process = Process(world, name, computer)
        process.starts_threads_at_exit = plan.threads_at_exit
        process.on_end = self._ended
        witness.accounts[process] = Account()
        store = SimulatedStore(witness.disk, process)
        keeper = TokenKeeper(
            GRANTS[plan.grant](self.authority, witness, process, plan.server_faults),
            store,
            machine=process.machine,
            renew_early=plan.early,
            on_refresh=lambda token: witness.renewed(process, token),
        )
        complaints = Complaints(witness, store, process)
        self.complaints.append(complaints)
        for _ in range(plan.threads):
            user = User(plan, keeper, self.authority, witness, complaints, process)
            self.users.append(user)
            process.start(user.live)
        process.main = process.tasks[0]

    def _ended(self, process: Process) -> None:
        self.witness.disk.dies(process)
        if self.world.now < self.world.calm_from:
            # What has ended is started again, by cron or by a supervisor.
            self._start(f"{process.name}'")

    def _put_a_token(self) -> None:
        """An earlier process has left a token, which has expired."""
        answer = self.authority.log_in()
        grant = GRANTS["adopted"]
        token = Token(
            answer["access_token"],
            refresh_token=answer["refresh_token"],
            issued_at=self.world.now - 3600.0,
            expires_at=self.world.now - 1800.0,
        )
        left = record.Record(grant.whose, grant.asked, "n0", token)
        self.witness.disk.put((left.to_document(), "1-n0"))
        self.witness.saved_tokens.add(token.access_token)

    def _check_end(self) -> None:
        self.witness.check_end()
        failures = sum(complaints.count for complaints in self.complaints)
        if self.plan.is_faultless() and failures:
            self.world.fail("there was an error although nothing broke")
        if self.plan.keeps_grants() and self.authority.logins > (self.plan.grant == "adopted"):
            self.world.fail("a grant is lost for nothing")


@contextmanager
def _surroundings() -> Iterator[None]:
    """What simulated processes share with this one is left as it was."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("tokenadapter"), "disabled", True)
        patch.setattr(record, "digest", digest)
        patch.setattr(choice, "digest", digest)
        patch.setattr(record.Record, "from_document", _reader(record.Record.from_document))
        try:
            yield
        finally:
            # A process that was killed while it put off Ctrl-C has not put it back.
            signal.signal(signal.SIGINT, handler)


def _reader(
    from_document: Callable[[Mapping[str, Any]], record.Record],
) -> Callable[[Mapping[str, Any]], record.Record]:
    """*from_document*, which reads once what many look at, and nobody changes."""
    last: tuple[Mapping[str, Any], record.Record] | None = None

    def read(document: Mapping[str, Any]) -> record.Record:
        nonlocal last
        if last is None or last[0] is not document:
            last = document, from_document(document)
        return last[1]

    return read
