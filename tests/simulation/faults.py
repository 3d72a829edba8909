"""The faults of processes, computers, store and API."""

from __future__ import annotations

from collections.abc import Callable

from simulation.authority import FIRST
from simulation.grants import OWNER
from simulation.plan import Plan
from simulation.process import Process, Task
from simulation.witness import Witness
from simulation.world import World
from tokenadapter.core.record import Record, spent_hash
from tokenadapter.token import Token

# The maximal age in seconds of a login on another machine whose file is copied here.
_ELSEWHERE = 10.0
# The writes of one renewal.
_WRITES = 2


def stop(witness: Witness, process: Process, seconds: float) -> None:
    """Stop *process* for some seconds."""
    witness.world.log(process, "is stopped for {:.3f} s", seconds)
    witness.delays += 1
    witness.disk.stop_heartbeats(process, seconds)
    process.stall(seconds)
    process.slept_from = witness.disk.writes


class Faults:
    """Causes faults at points, as a plan allows.

    :param fork: forks a process.
    """

    def __init__(
        self, world: World, plan: Plan, witness: Witness, fork: Callable[[Process], None]
    ) -> None:
        self.world = world
        self.witness = witness
        self.names = plan.disturbances
        self.left = plan.most
        self.spent_kept = plan.spent_kept
        self.fork = fork
        self._strikes: dict[str, Callable[[Task, str], bool]] = {
            "kill": self._kill,
            "terminate": self._terminate,
            "stall": self._stall,
            "interrupt": self._interrupt,
            "set clock": self._set_clock,
            "sleep": self._sleep,
            "fork": self._fork,
            "empty": self._empty,
            "flush": self._flush,
            "set back": self._set_back,
            "copy": self._copy,
            "store down": self._take_store_down,
            "vanish": self._vanish,
            "lose spent": self._lose_spent,
            "cut off": self._cut_off,
            "full": self._fill,
            "lose lock": self._lose_lock,
            "revoke": self._revoke,
            "deny": self._deny,
        }

    def strike(self, task: Task, label: str) -> None:
        """Cause a fault while *task* is about to take the step *label*."""
        if self.left > 0:
            name = self.world.choices.one_of(self.names)
            self.left -= self._strikes[name](task, label)

    def _kill(self, task: Task, label: str) -> bool:
        self.world.log(task.process, "is killed")
        task.process.kill()
        return True

    def _terminate(self, task: Task, label: str) -> bool:
        if task.process.is_ending:
            return False
        self.world.log(task.process, "gets SIGTERM")
        task.process.terminate()
        return True

    def _fork(self, task: Task, label: str) -> bool:
        """Fork the process at any point of its threads, by a thread that does nothing else."""
        if task.process.is_exiting or task.process.is_ending:
            return False
        self.fork(task.process)
        return True

    def _stall(self, task: Task, label: str) -> bool:
        stop(self.witness, task.process, self._seconds(20.0))
        return True

    def _interrupt(self, task: Task, label: str) -> bool:
        process = task.process
        if label != "sleep" or task is not process.main or process.is_exiting:
            return False
        if process.ends_abruptly:
            return False  # a renewal in the main thread defers Ctrl-C
        self.world.log(process, "gets Ctrl-C")
        self.world.interrupt(task)
        return True

    def _set_clock(self, task: Task, label: str) -> bool:
        seconds = self.world.choices.one_of((-3600.0, -30.0, 30.0, 3600.0))
        self.world.log(task.process, "'s clock is set by {:g} s", seconds)
        self.witness.moved_clocks += 1
        task.process.computer.ahead += seconds
        return True

    def _sleep(self, task: Task, label: str) -> bool:
        """Suspend the only computer: its monotonic clock stops."""
        world = self.world
        seconds = world.choices.one_of((10.0, 3600.0))
        world.log(None, "the computer sleeps for {:g} s", seconds)
        self.witness.moved_clocks += 1
        self.witness.delays += 1
        self.witness.disk.stop_heartbeats(None, seconds)
        task.process.computer.asleep += seconds
        world.now += seconds
        world.calm_from += seconds
        for other in world.tasks:
            other.wakes += seconds
        for process in {other.process for other in world.tasks}:
            process.stalled += seconds
            process.stalled_until += seconds
        return True

    def _empty(self, task: Task, label: str) -> bool:
        self.world.log(None, "the store is emptied")
        self.witness.loses_record()
        self.witness.disk.empty()
        return True

    def _flush(self, task: Task, label: str) -> bool:
        self.world.log(None, "the whole server is emptied")
        self.witness.loses_record()
        self.witness.disk.flush()
        return True

    def _copy(self, task: Task, label: str) -> bool:
        """Copy the file from another machine, after a login or a renewal there."""
        content = self.world.choices.one_of((self._login_elsewhere, self._renewal_elsewhere))(task)
        if content is None:
            return False
        document = content.to_document()
        access = document["token"]["access_token"]
        self.world.log(None, "a file with {} is copied here", access)
        self.witness.gets_record(document)
        self.witness.disk.change((document, f"1-{task.process.runtime.nonce()}"))
        return True

    def _login_elsewhere(self, task: Task) -> Record | None:
        """The record after a login on a machine with an earlier copy of the file, or without
        one."""
        world, disk, process = self.world, self.witness.disk, task.process
        ago = world.choices.between(0.0, _ELSEWHERE)
        then = world.now + process.computer.ahead - ago
        # Earlier contents count even if the slot was set back since: a process may remember them.
        begun = max((document.get("begun", 0.0) for (document, _), _ in disk.past), default=0.0)
        if self.witness.moved_clocks or then <= begun:
            return None  # the login here is the later one
        answer = self.witness.authority.log_in(ago)
        base = world.choices.one_of((0, 1, 3, 8))
        record = Record(OWNER, {}, process.runtime.nonce())
        if 0 < base <= len(disk.past):
            record = Record.from_document(disk.past[-base][0][0])
        token = Token.from_dict(answer, now=then)
        # The programs there have the same configuration.
        seeds = (spent_hash(FIRST),)
        return record.with_adopted_token(
            token, self.witness.accounts[process].requested, then, seeds
        )

    def _renewal_elsewhere(self, task: Task) -> Record | None:
        """The record after a renewal on a machine with the current copy of the file."""
        authority, document = self.witness.authority, self.witness.disk.document
        refresh = document.get("token", {}).get("refresh_token")
        if (
            refresh is None
            or "intent" in document
            or "tombstones" in document
            or authority.rotation != "new"
            or authority.is_dead(document)
            or authority.refresh[refresh].generation < authority.refresh[refresh].family.generation
        ):
            return None
        now = self.world.now + task.process.computer.ahead
        token = Token.from_dict(authority.rotate(refresh), now=now)
        return Record.from_document(document).with_new_token(token, document["requested"], now)

    def _set_back(self, task: Task, label: str) -> bool:
        """Restore a backup, or fail over to a server that lacks the last writes."""
        disk = self.witness.disk
        writes = self.world.choices.one_of((1, 2, 3, 5, 8))
        if writes >= len(disk.past):
            return False
        self.world.log(None, "the store is set back by {} writes", writes)
        self.witness.loses_record()
        disk.set_back(writes)
        return True

    def _take_store_down(self, task: Task, label: str) -> bool:
        self.witness.disk.take_down(self._seconds(15.0))
        return True

    def _cut_off(self, task: Task, label: str) -> bool:
        seconds = self._seconds(15.0)
        self.world.log(task.process, "cannot reach the store for {:.3f} s", seconds)
        self.witness.delays += 1
        self.witness.disk.cut_off_until[task.process] = self.world.now + seconds
        self.witness.disk.stop_heartbeats(task.process, seconds)
        return True

    def _fill(self, task: Task, label: str) -> bool:
        seconds = self._seconds(60.0)
        self.world.log(task.process, "cannot write for {:.3f} s", seconds)
        self.witness.delays += 1
        self.witness.disk.full_until[task.process] = self.world.now + seconds
        return True

    def _lose_lock(self, task: Task, label: str) -> bool:
        """Drop the lock from the store, as after an eviction or a failover."""
        holder = self.witness.disk.holder
        if holder is None or not holder.is_held():
            return False
        self.world.log(holder.process, "'s lock is lost")
        self.witness.disk.lose_lock()
        return True

    def _vanish(self, task: Task, label: str) -> bool:
        """Lose the record, or restore a backup, while a process sleeps that has slept over so many
        renewals that the store no longer has the hash of its refresh token."""
        disk, world = self.witness.disk, self.world
        writes = _WRITES * (1 + (self.spent_kept or 0))
        if not any(
            process.alive
            and world.now < process.stalled_until
            and disk.writes >= process.slept_from + writes
            for process in self.witness.accounts
        ):
            return False
        if world.choices.chance(0.5):
            return self._empty(task, label)
        writes = min(writes, len(disk.past) - 1)
        world.log(None, "the store is set back by {} writes", writes)
        self.witness.loses_record()
        disk.set_back(writes)
        return True

    def _lose_spent(self, task: Task, label: str) -> bool:
        """Delete what the store remembers beside the record."""
        self.world.log(None, "the hashes of spent tokens are deleted")
        self.witness.disk.lose_spent()
        return True

    def _revoke(self, task: Task, label: str) -> bool:
        access = self.witness.disk.document.get("token", {}).get("access_token")
        if access is None:
            return False
        self.world.log(None, "{} is revoked", access)
        self.witness.authority.revoked.add(access)
        return True

    def _deny(self, task: Task, label: str) -> bool:
        seconds = self._seconds(8.0)
        self.world.log(None, "the API refuses every token for {:.3f} s", seconds)
        self.witness.authority.denies_until = self.world.now + seconds
        return True

    def _seconds(self, most: float) -> float:
        """A random duration that ends before the calm period begins."""
        seconds = self.world.choices.between(0.0, most)
        return min(seconds, max(self.world.calm_from - self.world.now, 0.0))
