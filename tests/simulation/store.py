"""The slot that all processes share, its lock, and each process' access to it.

:data:`simulation.plan.STORES` lists the differences between stores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import TYPE_CHECKING

from simulation.process import Process, Task
from simulation.world import World
from tokenadapter.errors import StoreError
from tokenadapter.protocols import Document, Snapshot
from tokenadapter.stores import toolkit

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
    :ivar reserved_by: the process with a reservation.
    :ivar lease: the seconds for which the lock outlives a holder that is dead or stopped;
        ``None`` for a lock that ends with its process.
    :ivar swaps_locked: whether a compare-and-swap is two steps, under the lock.
    :ivar is_file: whether there are glimpses and reservations.
    :ivar drops: whether documents are dropped after their ttl.
    :ivar has_dropped: whether one was.
    :ivar spent_at: when each hash was remembered, also if it was dropped since.
    :ivar spent_lost_at: when the hashes were last lost, in whole or in part.
    :ivar spent_apart: whether hashes of spent tokens are stored apart from the slot.
    :ivar spent_by: the hashes that each process remembers itself.
    :ivar past: the earlier contents of the slot, with the hashes at that time.
    :ivar ahead: the seconds by which its clock is fast; ``None`` for a store without a clock,
        such as a file: then the clock of the reading process counts.
    :ivar clocks_differ: the seconds by which the clocks of the processes may differ.
    """

    def __init__(self, world: World, witness: Witness) -> None:
        self.world = world
        self.witness = witness
        self._slot: tuple[Document, str] | None = None
        self._drops_at = inf
        self.past: list[tuple[tuple[Document, str], Collection[str]]] = []
        self.swaps_locked = self.is_file = self.drops = self.has_dropped = False
        self.spent_apart = True
        self.writes = self.set_back_at = self.changed_at = 0
        self.spent: list[str] = []
        self.spent_at: dict[str, float] = {}
        self.spent_lost_at = 0.0
        self.spent_by: dict[Process, list[str]] = {}
        self.holder: SimulatedLock | None = None
        self.locks: dict[Task, SimulatedLock] = {}
        self.reserved_by: Process | None = None
        self.lease: float | None = None
        self.ahead: float | None = None
        self.clocks_differ = 0.0
        self.down_until = 0.0
        self.cut_off_until: dict[Process, float] = {}
        self.full_until: dict[Process, float] = {}
        self.lost_locks = 0
        self._busy = 0.0
        self._busy_since: float | None = None
        self.failing_saves = 0.0
        self.lost_answers = 0.0

    @property
    def slot(self) -> tuple[Document, str] | None:
        if self._drops_at <= self.world.now:
            self.has_dropped = True
            self.put(None)
        return self._slot

    @property
    def document(self) -> Document:
        return self.slot[0] if self.slot is not None else {}

    def put(self, content: tuple[Document, str] | None, ttl: float | None = None) -> None:
        """Replace the content of the slot."""
        self._slot = content
        if content is not None:
            self.past.append((content, [*self.spent]))
        self._drops_at = self.world.now + ttl if ttl is not None and self.drops else inf

    def change(self, content: tuple[Document, str] | None) -> None:
        """Replace the content of the slot from outside of all processes."""
        self.put(content)
        self.writes += 1
        self.changed_at = self.writes

    def empty(self) -> None:
        """Empty the slot, and hashes that are stored in the same place."""
        self.change(None)
        if not self.spent_apart:
            self.lose_spent()

    def lose_spent(self) -> None:
        """Delete the hashes of spent tokens."""
        self.spent.clear()
        self.spent_lost_at = self.world.now

    def flush(self) -> None:
        """Empty the whole server: the content, the hashes, and the lock."""
        self.change(None)
        self.lose_spent()
        self.lose_lock()

    def set_back(self, writes: int) -> None:
        """Restore the content from so many writes ago; of a file, only the content."""
        content, spent = self.past[-1 - writes]
        self.witness.is_set_back(self.document, content[0])
        self.change(content)
        self.set_back_at = self.writes
        if self._is_one_with_its_hashes():
            self.spent = [line for line in self.spent if line in spent]
            self.spent_lost_at = self.world.now

    def remember_spent(self, digest: str, for_good: bool) -> None:
        """Remember a hash, as stores do."""
        self.spent = toolkit.remembering(self.spent, digest, for_good=for_good)
        self.spent_at[digest.partition("/")[0]] = self.world.now

    def remembers(self, spent: str, process: Process) -> bool:
        """Whether *process* can know the hash *spent*, or that there was a later token."""
        is_dropped = self.spent_at.get(spent, 0.0) > self.spent_lost_at
        return is_dropped or self.finds(spent, process)

    def finds(self, spent: str, process: Process) -> bool:
        """Whether *process* finds the hash *spent*."""
        own = [] if self.spent_apart else self.spent_by.get(process, [])
        return toolkit.is_remembered([*own, *self.spent], spent)

    def may_forget(self) -> bool:
        """Whether remembered hashes may be lost."""
        return not self.spent_apart or self.spent_lost_at > 0

    def _is_one_with_its_hashes(self) -> bool:
        """Whether restoring an earlier state also restores its hashes."""
        return self.lease is not None or not self.spent_apart

    def take_down(self, seconds: float) -> None:
        """Let no process reach the store for some seconds, and extend no lease."""
        self.world.log(None, "the store is down for {:.3f} s", seconds)
        self.witness.delays += 1
        self.down_until = self.world.now + seconds
        self.stop_heartbeats(None, seconds)

    def is_down_for(self, process: Process) -> bool:
        return self.world.now < max(self.down_until, self.cut_off_until.get(process, 0.0))

    def is_full_for(self, process: Process) -> bool:
        """Whether *process* can read and lock, but not write."""
        return self.world.now < self.full_until.get(process, 0.0)

    def lose_lock(self) -> None:
        """Drop the lock."""
        if self.holder is not None and self.holder.is_held():
            self.holder.ends = self.world.now
            self.holder.is_lost = True
            self.lost_locks += 1
            self.end_busy()

    def begin_busy(self) -> None:
        """A process has the lock from now on."""
        if self._busy_since is None:
            self._busy_since = self.world.now

    def end_busy(self) -> None:
        """No living process has the lock any more."""
        self._busy = self.busy
        self._busy_since = None

    @property
    def busy(self) -> float:
        """The seconds for which living processes have held the lock so far."""
        since = self._busy_since
        return self._busy + (0.0 if since is None else self.world.now - since)

    def stop_heartbeats(self, process: Process | None, seconds: float) -> None:
        """Stop extending the leases of *process* (``None``: of all) for that long."""
        holder = self.holder
        if (
            self.lease is not None
            and self.lease < seconds
            and holder is not None
            and process in (None, holder.process)
        ):
            holder.ends = min(holder.ends, self.world.now + self.lease)
            holder.is_lost = True
            self.lost_locks += 1

    def release_lock_of(self, process: Process) -> None:
        """Free the lock of a process that has ended, at once or when the lease has run out."""
        if self.holder is not None and self.holder.process is process:
            self.end_busy()
            if self.lease is not None:
                self.stop_heartbeats(process, inf)
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
        self.lost_tag: str | None = None
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
        is_reserved = disk.reserved_by is not None and disk.reserved_by.alive
        if is_reserved or (disk.holder is not None and disk.holder.is_held()):
            return None
        disk.reserved_by = self.process
        return self._reserved()

    @contextmanager
    def _reserved(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.disk.reserved_by is self.process:
                self.disk.reserved_by = None

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
        if not self.disk.swaps_locked or self._has_lock():
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

    def _has_lock(self) -> bool:
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
            self.world.log(self.process, "  another process has written")
            disk.witness.moved(self.process)
            return False
        before, changed_at = disk.document, disk.changed_at
        self.between()
        if disk.changed_at == changed_at:
            before = disk.document
        else:
            disk.witness.loses_record()  # a fault changed the slot without the lock
        disk.put((document, tag), ttl)
        disk.writes += 1
        written = disk.writes
        disk.witness.saved(self.process, before, document)
        self.world.point("saved")
        disk.witness.sees(self.process, document, written)
        if self.world.happens(disk.lost_answers):
            self.world.log(self.process, "  the store's answer is lost")
            disk.witness.doubts(self.process)
            if self.world.choices.chance(0.5):
                if tag in (stored, self.lost_tag):
                    disk.witness.store_failed(self.process)  # for the second time
                self.lost_tag = tag
                raise StoreError("the connection is lost")
            return False
        return True

    def prepare(self) -> None:
        self.reach("prepare", writes=True)

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        self.reach("remember_spent", writes=True)
        self.disk.remember_spent(digest, for_good)
        own = self.disk.spent_by.get(self.process, [])
        self.disk.spent_by[self.process] = toolkit.remembering(own, digest, for_good=for_good)

    def was_spent(self, digest: str) -> bool:
        self.reach("was_spent")
        return self.disk.finds(digest, self.process)

    def reach(self, task: str, *, writes: bool = False) -> None:
        """Access the disk.

        :raises StoreError: if the disk cannot be reached or written.
        """
        self.world.point(task)
        disk = self.disk
        is_full = writes and disk.is_full_for(self.process)
        fails = disk.failing_saves if writes else 0.0
        if disk.is_down_for(self.process) or is_full or self.world.happens(fails):
            self.world.log(self.process, "  the store fails")
            self.disk.witness.store_failed(self.process)
            raise StoreError(f"{task}: fails in this schedule")


class SimulatedLock:
    """A lock that ends with its process, like that of a file, or a lease.

    :ivar taken_at: the time at which it was taken.
    :ivar ends: the time at which it lapses.
    :ivar is_released: whether its holder has released it.
    :ivar is_lost: whether it is free, or soon will be, without a fault of its holder.
    :ivar points: the points that its thread had reached at the last confirmation.
    :ivar stalled: the seconds for which its process had been stopped at that time.
    """

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.disk = store.disk
        self.process = store.process
        self.task: Task | None = None
        self.ends = self.hold_for = self.stalled = self.taken_at = 0.0
        self.is_lost = self.is_released = False
        self.points = 0
        self.presentation: Presentation | None = None
        """The last presentation under this lock."""

    def is_held(self) -> bool:
        return self.disk.holder is self and self.store.world.now < self.ends

    def is_good(self) -> bool:
        """Whether its holder may rely on the lock.  A holder that has reached no point since it
        confirmed the lock cannot know of later events."""
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
        self.disk.begin_busy()
        self.task = self.store.world.running
        self.disk.locks[self.task] = self
        self.hold_for = hold_for
        self._begin()
        self.store.world.log(self.process, "  has the lock")
        return True

    def confirm(self) -> bool:
        # Not a point: a confirmation is worth something only if its caller acts at once.
        reachable = self.disk.lease is None or not self.disk.is_down_for(self.process)
        is_held = reachable and self.is_held()
        if is_held:
            self._begin()
        return is_held

    def _begin(self) -> None:
        lease = self.disk.lease
        self.ends = inf if lease is None else self.store.world.now + self.hold_for + lease
        self.is_lost = False
        self.stalled = self.process.stalled
        self.points = self.store.world.running.points

    def release(self) -> None:
        self.is_released = True
        if self.is_held():
            self.disk.witness.releases(self)
            if self.disk.lease is not None and self.disk.is_down_for(self.process):
                self.disk.stop_heartbeats(self.process, inf)
            else:
                self.disk.holder = None
            self.disk.end_busy()
        self.store.world.point("unlocked")
