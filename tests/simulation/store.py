"""The slot that all processes share, its lock, and each process' access to it.

Stores differ in what :data:`simulation.plan.STORES` says of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import TYPE_CHECKING

from simulation.process import Process, Task
from simulation.world import World
from tokenadapter.errors import StoreError
from tokenadapter.protocols import Document, Snapshot

if TYPE_CHECKING:
    from simulation.ledger import Presentation
    from simulation.witness import Witness

# Seconds for which a write outside of the lock waits for the holder.
_LOCK_TIMEOUT = 10.0


class Disk:
    """The disk or server that stores the slot.

    :ivar writes: the number of writes of the slot, by processes or otherwise.
    :ivar set_back_at: the number of the last write that set the slot back.
    :ivar changed_at: the number of the last write that no process made.
    :ivar locks: the last lock that each thread took.
    :ivar claimant: the process with a reservation.
    :ivar lease: for how many seconds the lock outlives a holder that is dead or stopped; ``None``
        for a lock that ends with its process.
    :ivar swaps_locked: whether a compare-and-swap is two steps, under the lock.
    :ivar is_file: whether there are glimpses and reservations.
    :ivar drops: whether documents are dropped after their ttl.
    :ivar notes_apart: whether hashes of spent tokens are stored apart from the slot.
    :ivar notes_of: the hashes that each process remembers itself.
    :ivar past: the earlier contents of the slot, with the hashes at that time.
    :ivar ahead: by how many seconds its clock is ahead of the truth; ``None`` if it has none of
        its own, like a file: then the clock is that of whoever reads.
    :ivar clocks_differ: by how many seconds those clocks may differ.
    """

    def __init__(self, world: World, witness: Witness) -> None:
        self.world = world
        self.witness = witness
        self._slot: tuple[Document, str] | None = None
        self._drops_at = inf
        self.past: list[tuple[tuple[Document, str], frozenset[str]]] = []
        self.swaps_locked = self.is_file = self.drops = False
        self.notes_apart = True
        self.writes = self.set_back_at = self.changed_at = 0
        self.notes: set[str] = set()
        self.noted_at: dict[str, float] = {}
        self.notes_of: dict[Process, set[str]] = {}
        self.holder: SimulatedLock | None = None
        self.locks: dict[Task, SimulatedLock] = {}
        self.claimant: Process | None = None
        self.lease: float | None = None
        self.ahead: float | None = None
        self.clocks_differ = 0.0
        self.down_until = 0.0
        self.cut_off_until: dict[Process, float] = {}
        self.full_until: dict[Process, float] = {}
        self.was_flushed = False
        self.lost_locks = 0
        self._busy = 0.0
        self._busy_since: float | None = None
        self.failing_saves = 0.0
        self.lost_answers = 0.0

    @property
    def slot(self) -> tuple[Document, str] | None:
        if self._drops_at <= self.world.now:
            self.put(None)
        return self._slot

    @property
    def document(self) -> Document:
        return self.slot[0] if self.slot is not None else {}

    def put(self, content: tuple[Document, str] | None, ttl: float | None = None) -> None:
        """Replace the content of the slot."""
        self._slot = content
        if content is not None:
            self.past.append((content, frozenset(self.notes)))
        self._drops_at = self.world.now + ttl if ttl is not None and self.drops else inf

    def change(self, content: tuple[Document, str] | None) -> None:
        """Replace the content of the slot from outside of all processes."""
        self.put(content)
        self.writes += 1
        self.changed_at = self.writes

    def empty(self) -> None:
        """Empty the slot, and hashes that are stored in the same place."""
        self.change(None)
        if not self.notes_apart:
            self.notes.clear()

    def flush(self) -> None:
        """Make the server lose everything: the content, the hashes, and the lock."""
        self.change(None)
        self.notes.clear()
        self.was_flushed = True
        self.lose_lock()

    def set_back(self, writes: int) -> None:
        """Restore the content from so many writes ago; of a file, only the content."""
        content, notes = self.past[-1 - writes]
        self.witness.is_set_back(self.document, content[0])
        self.change(content)
        self.set_back_at = self.writes
        if self._is_one_with_its_notes():
            self.notes &= notes

    def remembers(self, note: str, process: Process) -> bool:
        """Whether *process* can know *note*."""
        is_its_own = not self.notes_apart and note in self.notes_of.get(process, ())
        return note in self.notes or is_its_own

    def may_forget(self) -> bool:
        """Whether remembered hashes may be lost."""
        is_set_back = self.set_back_at > 0 and self._is_one_with_its_notes()
        return not self.notes_apart or is_set_back or self.was_flushed

    def _is_one_with_its_notes(self) -> bool:
        """Whether restoring an earlier state also restores its hashes."""
        return self.lease is not None or not self.notes_apart

    def is_down_for(self, process: Process) -> bool:
        return self.world.now < max(self.down_until, self.cut_off_until.get(process, 0.0))

    def is_full_for(self, process: Process) -> bool:
        """Whether *process* can read and lock, but not write."""
        return self.world.now < self.full_until.get(process, 0.0)

    def lose_lock(self) -> None:
        """Make the store lose the lock."""
        if self.holder is not None and self.holder.is_held():
            self.holder.ends = self.world.now
            self.holder.is_lost = True
            self.lost_locks += 1
            self.is_idle()

    def is_busy(self) -> None:
        """A process has the lock from now on."""
        if self._busy_since is None:
            self._busy_since = self.world.now

    def is_idle(self) -> None:
        """No living process has the lock any more."""
        self._busy = self.busy
        self._busy_since = None

    @property
    def busy(self) -> float:
        """The seconds for which living processes have held the lock so far."""
        since = self._busy_since
        return self._busy + (0.0 if since is None else self.world.now - since)

    def hearts_stop(self, process: Process | None, seconds: float) -> None:
        """Stop extending the leases of *process* (``None``: of all) for that long."""
        holder = self.holder
        if (
            self.lease is not None
            and self.lease < seconds
            and holder is not None
            and process in (None, holder.process)
        ):
            holder.ends = min(holder.ends, self.world.now + self.lease)
            holder.is_lost = holder.is_late = True
            self.lost_locks += 1

    def dies(self, process: Process) -> None:
        """*process* has ended: its lock is free, at once or when its lease has run out."""
        if self.holder is not None and self.holder.process is process:
            self.is_idle()
            if self.lease is not None:
                self.hearts_stop(process, inf)
            else:
                self.holder.ends = self.world.now


class SimulatedStore:
    """One process' access to the disk."""

    is_copy = False
    poll = (0.01, 0.05)

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process
        self.world = disk.world
        self.lock_ends_with_holder = disk.lease is None
        self.unheard: str | None = None
        if disk.is_file:
            self.glimpse, self.reserve = self._glimpse, self._reserve

    def __repr__(self) -> str:
        return "SimulatedStore()"

    @property
    def now(self) -> float:
        ahead = self.process.computer.ahead if self.disk.ahead is None else self.disk.ahead
        return self.world.now + ahead

    def _glimpse(self) -> object:
        self.world.point("glimpse")
        return self.disk.writes, self.disk.slot and self.disk.slot[1]

    def _reserve(self) -> AbstractContextManager[object] | None:
        disk = self.disk
        self.world.point("reserve")
        is_claimed = disk.claimant is not None and disk.claimant.alive
        if is_claimed or (disk.holder is not None and disk.holder.is_held()):
            return None
        disk.claimant = self.process
        return self._claimed()

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.disk.claimant is self.process:
                self.disk.claimant = None

    def load(self) -> Snapshot:
        began = self.world.now
        self.reach("load")
        document, tag = self.disk.slot or (None, None)
        self.disk.witness.loaded(self.process, document, self.world.now - began)
        return Snapshot(document, tag, self.now)

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        self.reach("save", writes=True)
        if not self.disk.swaps_locked or self._has_turn():
            return self._swap(document, tag, expected, ttl)
        lock = self.lock()
        end = self.world.now + _LOCK_TIMEOUT
        try:
            while not lock.acquire(_LOCK_TIMEOUT):
                if self.world.now > end:
                    self.disk.witness.store_failed(self.process)
                    raise StoreError("others have the lock")
                self.world.sleep(0.01)
            return self._swap(document, tag, expected, ttl)
        finally:
            lock.release()

    def _has_turn(self) -> bool:
        holder = self.disk.holder
        return holder is not None and holder.is_held() and holder.task is self.world.running

    def between(self) -> None:
        """A point between a comparison and a write."""
        if self.disk.swaps_locked:
            self.world.point("compared")

    def _swap(self, document: Document, tag: str, expected: str | None, ttl: float | None) -> bool:
        disk = self.disk
        stored = disk.slot[1] if disk.slot is not None else None
        if stored not in (expected, tag):
            self.world.note(self.process, "  somebody else has written")
            disk.witness.moved(self.process)
            return False
        before, changed_at = disk.document, disk.changed_at
        self.between()
        if disk.changed_at == changed_at:
            before = disk.document
        else:
            disk.witness.loses_record()  # whoever does that heeds no lock
        disk.put((document, tag), ttl)
        disk.writes += 1
        written = disk.writes
        disk.witness.saved(self.process, before, document)
        self.world.point("saved")
        disk.witness.sees(self.process, document, written)
        if self.world.happens(disk.lost_answers):
            self.world.note(self.process, "  the store's answer is lost")
            disk.witness.doubts(self.process)
            if self.world.choices.chance(0.5):
                if tag in (stored, self.unheard):
                    disk.witness.store_failed(self.process)  # for the second time
                self.unheard = tag
                raise StoreError("the connection is lost")
            return False
        return True

    def prepare(self) -> None:
        self.reach("prepare", writes=True)

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        self.reach("remember_spent", writes=True)
        self.disk.notes.add(note)
        self.disk.noted_at[note] = self.world.now
        self.disk.notes_of.setdefault(self.process, set()).add(note)

    def was_spent(self, note: str) -> bool:
        self.reach("was_spent")
        return self.disk.remembers(note, self.process)

    def reach(self, task: str, *, writes: bool = False) -> None:
        """Access the disk.

        :raises StoreError: if it cannot be reached, or written.
        """
        self.world.point(task)
        disk = self.disk
        is_full = writes and disk.is_full_for(self.process)
        fails = disk.failing_saves if writes else 0.0
        if disk.is_down_for(self.process) or is_full or self.world.happens(fails):
            self.world.note(self.process, "  the store fails")
            self.disk.witness.store_failed(self.process)
            raise StoreError(f"{task}: fails in this schedule")


class SimulatedLock:
    """A lock that ends with its process, like that of a file, or a lease.

    :ivar taken_at: when it was taken.
    :ivar ends: when it lapses.
    :ivar is_released: whether its holder has released it.
    :ivar is_lost: whether it is or soon will be free without a fault of its holder.
    :ivar is_late: whether that is because heartbeats were missed.
    :ivar points: the points that its thread had reached at the last confirmation.
    :ivar stalled: the seconds for which its process had been stopped by then.
    """

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.disk = store.disk
        self.process = store.process
        self.task: Task | None = None
        self.ends = self.hold_for = self.stalled = self.taken_at = 0.0
        self.is_lost = self.is_late = self.is_released = False
        self.points = 0
        self.presentation: Presentation | None = None
        """The last one that was made under this lock."""

    def is_held(self) -> bool:
        return self.disk.holder is self and self.store.world.now < self.ends

    def is_good(self) -> bool:
        """Whether its holder may go by it: if it has not asked for anything since it made sure,
        it cannot know what happened meanwhile."""
        has_just_confirmed = self.task is not None and self.task.points == self.points
        return not self.is_released and (self.is_held() or has_just_confirmed)

    def acquire(self, hold_for: float) -> bool:
        self.store.reach("lock")
        holder = self.disk.holder
        is_held = holder is not None and holder.is_held()
        if holder is not None and is_held and not self.process.sees_death_of(holder.process):
            return False
        self.disk.holder = self
        self.taken_at = self.store.world.now
        self.disk.is_busy()
        self.task = self.store.world.running
        self.disk.locks[self.task] = self
        self.hold_for = hold_for
        self._begin()
        self.store.world.note(self.process, "  has the lock")
        return True

    def is_certain(self) -> bool:
        """Whether no heartbeat was missed for longer than its lease since it was confirmed."""
        return not self.is_late

    def confirm(self) -> bool:
        # No point: what follows a confirmation follows at once, or it would mean nothing.
        reachable = self.disk.lease is None or not self.disk.is_down_for(self.process)
        is_held = reachable and self.is_held()
        if is_held:
            self._begin()
        return is_held

    def _begin(self) -> None:
        lease = self.disk.lease
        self.ends = inf if lease is None else self.store.world.now + self.hold_for + lease
        self.is_lost = self.is_late = False
        self.stalled = self.process.stalled
        self.points = self.store.world.running.points

    def release(self) -> None:
        self.is_released = True
        if self.is_held():
            self.disk.witness.releases(self)
            if self.disk.lease is not None and self.disk.is_down_for(self.process):
                self.disk.hearts_stop(self.process, inf)
            else:
                self.disk.holder = None
            self.disk.is_idle()
        self.store.world.point("unlocked")
