"""The protocol: the possible next steps, and the rules of the processes.

There is no clock.  A process may be stopped between any two of its steps.  A lease, a grace period
and the deadline of a process may end as soon as the order of these times allows.
"""

from __future__ import annotations

from collections.abc import Iterator

from model.world import (
    FIRST,
    NOT_REVOKED,
    NOT_TWICE,
    NOTHING,
    ONE_AT_A_TIME,
    TRUTHFUL,
    Grant,
    Process,
    Record,
    State,
)

__all__ = ["Protocol", "Steps"]

Steps = Iterator[tuple[str, State]]


class Protocol:
    """The possible next steps.

    :ivar lease: whether the lock is a lease, which lapses when its holder dies or is stopped.
        Otherwise it is a lock of the kernel, which ends with its holder and not before.
    :ivar one_machine: whether processes notice the death of another one, even with a lease.
    :ivar grace: whether the server has a grace period.
    :ivar last: the generation that the API accepts for as long as its grant lives.
    """

    lease = False
    one_machine = False
    grace = False
    last = 2

    def steps(self, s: State) -> Steps:
        for p in s.processes:
            yield from getattr(self, p.phase)(s, p)
        yield from self.time(s)
        if s.faults:
            yield from self.misfortunes(s._replace(faults=s.faults - 1))

    # [renewal]
    def idle(self, s: State, p: Process) -> Steps:
        if not self.is_newer(p.memory, s.record) and p.memory != s.record.quiet():
            yield f"{p.name} looks at the record: {s.record}", s.leave(p, s.record)
        if s.lock is None and (self.is_newer(p.memory, s.record) or self.is_due(s, p.memory)):
            yield f"{p.name} takes the lock", s._replace(lock=p.name).put(p, phase="locked")

    def locked(self, s: State, p: Process) -> Steps:
        if self.is_newer(p.memory, s.record):  # the store went back
            yield f"{p.name} writes {p.memory} back", s.write(p.memory).leave(p, p.memory)
        elif s.record.token != p.memory.token or not self.is_due(s, s.record):
            yield f"{p.name} looks again: {s.record}, and leaves", s.leave(p, s.record)
        elif self.awaits(s, p):
            yield f"{p.name} looks again: an intent, and leaves", s.leave(p, s.record)
        else:
            decided = s.put(p, phase="decided", memory=s.record)
            yield f"{p.name} looks again: {s.record}", decided

    def decided(self, s: State, p: Process) -> Steps:
        if self.may_swap(s, p):
            record = p.memory._replace(intent=p.name)
            announced = s.put(p, phase="announced", memory=record).write(record)
            announced = announced._replace(given_up=s.given_up - {p.name})
            yield f"{p.name} writes its intent", announced
        else:
            yield f"{p.name} finds the record changed, and leaves", s.leave(p, p.memory)

    def announced(self, s: State, p: Process) -> Steps:
        if self.confirms(s, p):
            presenting = {q.name for q in s.processes if q.phase in ("sending", "sent")}
            wrong = ONE_AT_A_TIME if s.lock in presenting - {p.name} else ""
            confirmed = s.put(p, phase="sending")._replace(wrong=wrong)
            yield f"{p.name} confirms the lock, and begins to send", confirmed
        else:
            yield f"{p.name} has lost the lock, and takes its intent back", self.withdraw(s, p)

    def sending(self, s: State, p: Process) -> Steps:
        if self.is_late(s, p):
            yield f"{p.name} is too late, and takes its intent back", self.withdraw(s, p)
        else:  # the request arrives
            yield from self.presentation(s, p)

    def sent(self, s: State, p: Process) -> Steps:
        outcome = self.outcome(p)
        if outcome == "unknown":
            yield f"{p.name} gets no answer, and says so", self.withdraw(s, p)
        elif outcome == "not processed":
            yield f"{p.name} is told to wait, and takes its intent back", self.withdraw(s, p)
        elif not self.is_still_ours(s, p):
            yield f"{p.name} comes too late: {s.record}, and leaves", s.leave(p, s.record)
        elif outcome == "refused":
            stone, grant = self.tombstone(p.memory), s.grants[p.memory.login]
            is_good = grant.alive and grant.current == p.memory.generation
            refused = s._replace(wrong=TRUTHFUL if is_good else "").write(stone)
            yield f"{p.name} writes a tombstone", refused.leave(p, stone)
        else:
            new = Record(p.memory.login, p.memory.generation + 1)
            saved = s._replace(spent=s.spent | {p.memory.token}).write(new)
            yield f"{p.name} saves {new}, and leaves", saved.leave(p, new)
        if p.name in s.given_up:
            yield f"{p.name} gives up, and leaves", s.leave(p, p.memory)

    def withdraw(self, s: State, p: Process) -> State:
        """The process awaits no answer: other processes may continue."""
        if self.may_swap(s, p):
            s = s.write(p.memory.quiet())
        return s.leave(p, p.memory)

    # [rules]
    def may_swap(self, s: State, p: Process) -> bool:
        """A write replaces only what the process has seen."""
        return s.record == p.memory

    def awaits(self, s: State, p: Process) -> bool:
        """Whether another process may still get an answer.  With a lock of the kernel, none may.
        With a lease, an intent is believed until the deadline of its process, or until that
        process is known to be dead."""
        writer = s.record.intent
        is_known_dead = self.one_machine and all(q.name != writer for q in s.processes)
        return self.lease and writer not in {"", p.name, *s.given_up} and not is_known_dead

    def confirms(self, s: State, p: Process) -> bool:
        """The lock is still held, and the intent was written just now."""
        return s.lock == p.name

    def is_late(self, s: State, p: Process) -> bool:
        """A request is sent, and arrives, before the deadline of its process or never."""
        return p.name in s.given_up

    def is_still_ours(self, s: State, p: Process) -> bool:
        """Whether the presented token is still stored: then a late answer counts."""
        is_there = s.record.token == p.memory.token or self.is_newer(p.memory, s.record)
        return self.may_swap(s, p) or is_there

    def outcome(self, p: Process) -> str:
        return p.answer

    def tombstone(self, r: Record) -> Record:
        return r.quiet()._replace(status="dead")

    def is_newer(self, one: Record, other: Record) -> bool:
        """Compares the times of the login or logout, and then the generations."""
        return one.token > other.token

    def is_spent(self, s: State, r: Record) -> bool:
        """A refresh token is spent if it is remembered, or a later one of the same login."""
        return any(r.login == login and r.generation <= last for login, last in s.spent)

    def is_due(self, s: State, r: Record) -> bool:
        """The API refuses the token, and there is a refresh token that may be presented."""
        refused = r.generation < self.last or not s.grants[r.login].alive
        return refused and r.status == "alive" and not self.is_spent(s, r)

    # [server]
    def presentation(self, s: State, p: Process) -> Steps:
        r, does = p.memory, f"{p.name} presents {p.memory}"
        answer, says, grant = self.answer(s.grants[r.login], r.generation)
        wrong = ""
        if r.token in s.presented and s.grants[r.login].alive and not grant.alive:
            wrong = NOT_REVOKED
        elif r.token in s.presented:
            wrong = NOT_TWICE
        arrived = s.grant(r.login, grant)._replace(presented=s.presented | {r.token}, wrong=wrong)
        yield f"{does}: {says}", arrived.put(p, phase="sent", answer=answer)
        if s.faults:
            lost = {"faults": s.faults - 1, "presented": s.presented - {r.token}}
            for state, outcome, what in (
                (s, "unknown", "the request is lost"),
                (arrived, "unknown", f"{says}, but the answer is lost"),
                (s, "not processed", "the server is busy"),
            ):
                yield f"{does}: {what}", state._replace(**lost).put(p, phase="sent", answer=outcome)

    def answer(self, grant: Grant, generation: int) -> tuple[str, str, Grant]:
        if not grant.alive:
            return "refused", "refused", grant
        if generation == grant.current:
            return "rotated", "rotated", Grant(generation + 1, in_grace=self.grace)
        if generation == grant.current - 1 and grant.in_grace:
            return "rotated", "the same answer again", grant
        revoked = grant._replace(alive=False, in_grace=False)
        return "refused", "reuse, and the grant is revoked", revoked

    # [time]
    def time(self, s: State) -> Steps:
        if s.lock is not None and all(p.name != s.lock for p in s.processes):
            yield f"the lease of {s.lock} lapses", s._replace(lock=None)
        name = s.record.intent
        if self.lease and name not in {"", s.lock, *s.given_up}:
            over = s._replace(given_up=s.given_up | {name})
            for p in s.processes:
                over = over.lose(p) if p.name == name else over
            yield f"the deadline of {name} is over", over
        for login, grant in enumerate(s.grants):
            if grant.in_grace:
                yield "the grace is over", s.grant(login, grant._replace(in_grace=False))

    # [misfortunes]
    def misfortunes(self, s: State) -> Steps:
        """Faults, and actions of users, which may happen at any time."""
        for p in s.processes:
            if p.memory != NOTHING:
                yield f"{p.name} is killed", self.killed(s, p)
            if self.lease and s.lock == p.name:
                yield f"{p.name} stands still, and its lease lapses", s._replace(lock=None)
            if p.phase == "idle" and s.lock is None:
                for way, status in (("in", "alive"), ("out", "empty")):
                    record = Record(len(s.grants), s.record.generation + 1, status=status)
                    granted = s._replace(grants=(*s.grants, Grant(record.generation)))
                    yield f"{p.name} logs {way}", granted.write(record).leave(p, record)
        if self.may_go_back(s):
            if s.record != s.previous:
                yield "the store loses its last write", self.gone_back(s, s.previous)
            if FIRST not in (s.record, s.previous):
                yield "the store goes back to its first record", self.gone_back(s, FIRST)

    def killed(self, s: State, p: Process) -> State:
        """Replace the process by a new one without memory."""
        freed = None if s.lock == p.name and not self.lease else s.lock
        new = Process(f"{p.name}'", NOTHING)
        return s.lose(p).put(p, **new._asdict())._replace(lock=freed)

    def may_go_back(self, s: State) -> bool:
        """Whether the store may revert: not during a presentation if the store also has the
        lock."""
        presenting = any(p.phase in ("announced", "sending", "sent") for p in s.processes)
        return not (self.lease and presenting)

    def gone_back(self, s: State, record: Record) -> State:
        lock = None if self.lease else s.lock
        # After a lost tombstone, its dead refresh token may be presented once more.
        presented = frozenset(token for token in s.presented if s.grants[token[0]].alive)
        return s._replace(record=record, previous=record, lock=lock, presented=presented)

    # [settled]
    def is_settled(self, s: State) -> bool:
        """Whether every process has a valid token or a truthful refusal."""
        r, grant = s.record, s.grants[s.record.login]
        if s.lock or any(p.phase != "idle" or self.is_newer(p.memory, r) for p in s.processes):
            return False
        is_good = grant.alive and grant.current == r.generation and not r.intent
        return is_good or r.status != "alive" or self.is_spent(s, r)
