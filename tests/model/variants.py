"""Variants of the protocol without one rule, and the protocol in worlds beyond its assumptions.

Each variant must violate an invariant.  Otherwise its rule would be unnecessary, or the model could
not detect the absence of the rule.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from model.explore import Found, explore
from model.protocol import Protocol, Steps
from model.world import NOT_TWICE, Process, Record, State

__all__ = ["BROKEN", "LIMITS", "RIGHT", "Case", "explored"]


class KernelLock(Protocol):
    """The kernel's lock"""


class Lease(Protocol):
    """A lease"""

    lease = True


class LeaseOnOneMachine(Lease):
    """A lease, on one machine"""

    one_machine = True


class KernelLockWithGrace(KernelLock):
    """The kernel's lock; the server has a grace period"""

    grace = True


class LeaseWithGrace(Lease):
    """A lease; the server has a grace period"""

    grace = True


class LeaseOnOneMachineWithGrace(LeaseOnOneMachine):
    """A lease, on one machine; the server has a grace period"""

    grace = True


class WritesBlindly(Lease):
    """A write replaces whatever is there"""

    def may_swap(self, s: State, p: Process) -> bool:
        return True


class DecidesBeforeTheLock(KernelLock):
    """The record is not read again under the lock"""

    def idle(self, s: State, p: Process) -> Steps:
        for what, after in super().idle(s, p):
            if after.lock == p.name:
                yield f"{p.name} is going to present {p.memory}", s.put(p, phase="waiting")
            else:
                yield what, after

    def waiting(self, s: State, p: Process) -> Steps:
        if s.lock is None:
            yield f"{p.name} takes the lock", s._replace(lock=p.name).put(p, phase="decided")

    def decided(self, s: State, p: Process) -> Steps:
        record = s.record._replace(intent=p.name)
        yield f"{p.name} writes its intent", s.put(p, phase="announced").write(record)


class WritesNoIntent(Lease):
    """No intent is written"""

    def decided(self, s: State, p: Process) -> Steps:
        yield f"{p.name} writes no intent", s.put(p, phase="announced")


class BelievesNoIntent(Lease):
    """An intent under a lease is not believed"""

    def awaits(self, s: State, p: Process) -> bool:
        return False


class BelievesNoIntentWithinAGrace(BelievesNoIntent):
    """An intent is not believed, and the server's grace period never ends"""

    grace = True

    def presentation(self, s: State, p: Process) -> Steps:
        for what, after in super().presentation(s, p):
            # A second presentation is the purpose of this variant.
            yield what, after._replace(wrong=after.wrong.replace(NOT_TWICE, ""))

    def time(self, s: State) -> Steps:
        return (step for step in super().time(s) if step[1].grants == s.grants)


class BelievesForEver(Lease):
    """An intent is believed for ever, even that of a dead process"""

    def awaits(self, s: State, p: Process) -> bool:
        return s.record.intent not in {"", p.name}


class DoesNotConfirm(Lease):
    """The lease is not confirmed before a presentation begins"""

    def confirms(self, s: State, p: Process) -> bool:
        return True


class LooksAtNoClock(Lease):
    """The clock is not checked before the first byte"""

    def is_late(self, s: State, p: Process) -> bool:
        return False


class UsesBeforeSaving(KernelLock):
    """A token is used before it is saved"""

    def sent(self, s: State, p: Process) -> Steps:
        if p.answer == "rotated":
            minted = Record(p.memory.login, p.memory.generation + 1)
            yield f"{p.name} uses {minted}", s.leave(p, minted)
        yield from super().sent(s, p)


class WritesNoTombstone(KernelLock):
    """No tombstone is written"""

    def tombstone(self, r: Record) -> Record:
        return r.quiet()


class TakesSilenceForRefusal(KernelLock):
    """An unknown outcome is treated as a refusal"""

    def outcome(self, p: Process) -> str:
        return "refused" if p.answer == "unknown" else p.answer


class DropsLateAnswers(KernelLock):
    """A late answer is dropped"""

    def is_still_ours(self, s: State, p: Process) -> bool:
        return self.may_swap(s, p)


class SavesLateAnswers(Lease):
    """A late answer replaces whatever is there"""

    def is_still_ours(self, s: State, p: Process) -> bool:
        return True


class RemembersNoSpentTokens(KernelLock):
    """Spent refresh tokens are not remembered"""

    def is_spent(self, s: State, r: Record) -> bool:
        return False


class RemembersNoPlace(KernelLock):
    """Only the last spent refresh token of a login is remembered, without its place in the login"""

    def is_spent(self, s: State, r: Record) -> bool:
        return r.token == max((token for token in s.spent if token[0] == r.login), default=None)


class WritesNothingBack(KernelLock):
    """A process does not write back the newer record that it remembers"""

    def locked(self, s: State, p: Process) -> Steps:
        if self.is_newer(p.memory, s.record):
            yield f"{p.name} leaves with {p.memory}", s.leave(p, p.memory)
        else:
            yield from super().locked(s, p)


class ComparesGenerations(KernelLock):
    """The generation alone tells which record is newer"""

    def is_newer(self, one: Record, other: Record) -> bool:
        return one.generation > other.generation


class ForgetsLogouts(KernelLock):
    """A logout does not count as a new beginning"""

    def is_newer(self, one: Record, other: Record) -> bool:
        def age(record: Record) -> tuple[int, int]:
            return record.login - (record.status == "empty"), record.generation

        return age(one) > age(other)


class StoreForgetsIntents(Lease):
    """The store loses a write, and the lease, during a presentation"""

    def may_go_back(self, s: State) -> bool:
        return True


class StoreForgetsSpentTokens(KernelLock):
    """The store reverts, and so does its list of spent refresh tokens"""

    def gone_back(self, s: State, record: Record) -> State:
        return super().gone_back(s, record)._replace(spent=frozenset())


class KilledBeforeRemembering(KernelLock):
    """A process is killed before it remembers the spent token, and then the store reverts"""

    def sent(self, s: State, p: Process) -> Steps:
        for what, after in super().sent(s, p):
            yield what, after
            if s.faults and after.spent != s.spent:
                forgotten = after._replace(spent=s.spent, faults=s.faults - 1)
                saved = next(q for q in after.processes if q.name == p.name)
                yield f"{p.name} saves {after.record}, and is killed", self.killed(forgotten, saved)


class ArrivesLate(LooksAtNoClock):
    """A request is sent, or arrives, after the deadline of its process"""


class Case(NamedTuple):
    """A protocol and a world for it."""

    protocol: type[Protocol]
    faults: int
    processes: int = 2

    @property
    def name(self) -> str:
        return self.protocol.__name__

    def row(self) -> str:
        """The result, as a row for a table of the documentation."""
        states, wrong, steps = explored(self)
        cells = [self.protocol.__doc__]
        if self in RIGHT:
            cells += [self.processes, self.faults, f"{states:,}"]
        else:
            lock = "lease" if self.protocol.lease else "kernel"
            cells += [f"{lock}, grace" if self.protocol.grace else lock, self.faults]
            cells += [f"{states:,}", len(steps), wrong]
        return f"| {' | '.join(map(str, cells))} |"

    def story(self) -> str:
        """The shortest sequence of steps to the violation."""
        _, wrong, steps = explored(self)
        lines = [f"{number:2}. {step}" for number, step in enumerate(steps, 1)]
        return "\n".join([*lines, f"Violated: {wrong}"]) if wrong else "Nothing is violated."


@cache
def explored(case: Case) -> Found:
    return explore(case.protocol(), case.processes, case.faults)


PROTOCOLS = (
    KernelLock,
    KernelLockWithGrace,
    Lease,
    LeaseWithGrace,
    LeaseOnOneMachine,
    LeaseOnOneMachineWithGrace,
)
RIGHT = tuple(
    Case(protocol, faults, processes)
    for processes, faults in ((2, 2), (3, 1))
    for protocol in PROTOCOLS
)
BROKEN = (
    Case(WritesBlindly, 1),
    Case(DecidesBeforeTheLock, 0),
    Case(WritesNoIntent, 1),
    Case(BelievesNoIntent, 1),
    Case(BelievesNoIntentWithinAGrace, 1),
    Case(BelievesForEver, 1),
    Case(DoesNotConfirm, 1),
    Case(LooksAtNoClock, 1),
    Case(UsesBeforeSaving, 0),
    Case(WritesNoTombstone, 1),
    Case(TakesSilenceForRefusal, 1),
    Case(DropsLateAnswers, 1),
    Case(SavesLateAnswers, 1),
    Case(RemembersNoSpentTokens, 1),
    Case(RemembersNoPlace, 1),
    Case(WritesNothingBack, 1),
    Case(ComparesGenerations, 2),
    Case(ForgetsLogouts, 2),
)
LIMITS = (
    Case(StoreForgetsIntents, 1),
    Case(StoreForgetsSpentTokens, 1),
    Case(KilledBeforeRemembering, 2),
    Case(ArrivesLate, 1),
)
