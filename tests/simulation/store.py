"""The slot that all processes share, its lock, and each process' way there.

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

# How long a write outside of a turn waits for whoever has one, in seconds.
_PATIENCE = 10.0


class Disk:
    """Where the slot is, or the server that has it.

    :ivar writes: how often the slot was written, or set back.
    :ivar set_back_at: the number of the write that set it back last.
    :ivar claimant: who has claimed a renewal last, if they have not left it.
    :ivar lease: for how many seconds the lock outlives a holder that is dead or stopped; ``None``
        for a lock that ends with its process.
    :ivar swaps_locked: whether a compare-and-swap is two steps, under the lock.
    :ivar is_file: whether a glimpse tells that it was written, and renewals can be claimed there.
    :ivar drops: whether it drops what is worth nothing any more.
    :ivar notes_apart: whether notes are not in the slot, and lost with it.
    :ivar notes_of: what each process has noted, and remembers if the slot forgets it.
    :ivar past: what the slot has held, and what was noted then.
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
        self.writes = self.set_back_at = 0
        self.notes: set[str] = set()
        self.notes_of: dict[Process, set[str]] = {}
        self.holder: SimulatedLock | None = None
        self.claimant: Process | None = None
        self.lease: float | None = None
        self.ahead: float | None = None
        self.clocks_differ = 0.0
        self.down_until = 0.0
        self.cut_off_until: dict[Process, float] = {}
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
        """Replace what the slot holds."""
        self._slot = content
        if content is not None:
            self.past.append((content, frozenset(self.notes)))
        self._drops_at = self.world.now + ttl if ttl is not None and self.drops else inf

    def empty(self) -> None:
        """Somebody empties it, and what is kept in the same place."""
        self.put(None)
        if not self.notes_apart:
            self.notes.clear()

    def set_back(self, writes: int) -> None:
        """Somebody brings back what it held so many writes ago: of a file, that alone."""
        content, notes = self.past[-1 - writes]
        self.put(content)
        self.writes += 1
        self.set_back_at = self.writes
        if self._is_one_with_its_notes():
            self.notes &= notes

    def remembers(self, note: str, process: Process) -> bool:
        """Whether *process* can know *note*."""
        is_its_own = not self.notes_apart and note in self.notes_of.get(process, ())
        return note in self.notes or is_its_own

    def may_forget(self) -> bool:
        """Whether what was noted may be gone."""
        return not self.notes_apart or (self.set_back_at > 0 and self._is_one_with_its_notes())

    def _is_one_with_its_notes(self) -> bool:
        """Whether who brings an earlier state back brings back the notes of then."""
        return self.lease is not None or not self.notes_apart

    def is_down_for(self, process: Process) -> bool:
        return self.world.now < max(self.down_until, self.cut_off_until.get(process, 0.0))

    def hearts_stop(self, process: Process | None, seconds: float) -> None:
        """The leases of *process* (``None``: of all) are not extended for that long."""
        holder = self.holder
        if (
            self.lease is not None
            and self.lease < seconds
            and holder is not None
            and process in (None, holder.process)
        ):
            holder.ends = min(holder.ends, self.world.now + self.lease)
            self.witness.lapses += 1

    def dies(self, process: Process) -> None:
        """*process* has ended: its lock is free, at once or when its lease has run out."""
        if self.lease is not None:
            self.hearts_stop(process, inf)
        elif self.holder is not None and self.holder.process is process:
            self.holder.ends = self.world.now


class SimulatedStore:
    """One process' way to the disk."""

    is_copy = False
    poll = (0.01, 0.05)

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process
        self.world = disk.world
        self.lock_ends_with_holder = disk.lease is None
        if disk.is_file:
            self.glimpse, self.claim = self._glimpse, self._claim

    def __repr__(self) -> str:
        return "SimulatedStore()"

    @property
    def now(self) -> float:
        ahead = self.process.computer.ahead if self.disk.ahead is None else self.disk.ahead
        return self.world.now + ahead

    def _glimpse(self) -> object:
        self.world.point("glimpse")
        return self.disk.writes, self.disk.slot and self.disk.slot[1]

    def _claim(self) -> AbstractContextManager[object] | None:
        disk = self.disk
        self.world.point("claim")
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
        self.reach("save", self.disk.failing_saves)
        if not self.disk.swaps_locked or self._has_turn():
            return self._swap(document, tag, expected, ttl)
        lock = self.lock()
        end = self.world.now + _PATIENCE
        try:
            while not lock.acquire(_PATIENCE):
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
        """What happens between a comparison and a write."""
        if self.disk.swaps_locked:
            self.world.point("compared")

    def _swap(self, document: Document, tag: str, expected: str | None, ttl: float | None) -> bool:
        disk = self.disk
        stored = disk.slot[1] if disk.slot is not None else None
        if stored not in (expected, tag):
            self.world.note(self.process, "  somebody else has written")
            disk.witness.moved(self.process)
            return False
        before, set_back_at = disk.document, disk.set_back_at
        self.between()
        if disk.set_back_at == set_back_at:  # who brings back an earlier state heeds no lock
            before = disk.document
        disk.put((document, tag), ttl)
        disk.writes += 1
        disk.witness.saved(self.process, before, document)
        self.world.point("saved")
        if self.world.happens(disk.lost_answers):
            self.world.note(self.process, "  the store's answer is lost")
            if self.world.choices.chance(0.5):
                if stored == tag:
                    disk.witness.store_failed(self.process)  # for the second time
                raise StoreError("the connection is lost")
            return False
        return True

    def prepare(self) -> None:
        self.reach("prepare", self.disk.failing_saves)

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self)

    def mark(self, note: str, *, for_good: bool) -> None:
        self.reach("mark", self.disk.failing_saves)
        self.disk.notes.add(note)
        self.disk.notes_of.setdefault(self.process, set()).add(note)

    def marked(self, note: str) -> bool:
        self.reach("marked")
        return self.disk.remembers(note, self.process)

    def reach(self, task: str, fails: float = 0.0) -> None:
        """Come to the disk.

        :raises StoreError: if it cannot be reached, or, as likely as *fails* says, is full.
        """
        self.world.point(task)
        if self.disk.is_down_for(self.process) or self.world.happens(fails):
            self.world.note(self.process, "  the store fails")
            self.disk.witness.store_failed(self.process)
            raise StoreError(f"{task}: fails in this schedule")


class SimulatedLock:
    """A lock that ends with its process, as those of files do; or a lease.

    :ivar ends: when it is free by itself.
    """

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.disk = store.disk
        self.process = store.process
        self.task: Task | None = None
        self.ends = self.hold_for = 0.0
        self.presentation: Presentation | None = None
        """The last one that was made under this lock."""

    def is_held(self) -> bool:
        return self.disk.holder is self and self.store.world.now < self.ends

    def acquire(self, hold_for: float) -> bool:
        self.store.reach("lock")
        holder = self.disk.holder
        is_held = holder is not None and holder.is_held()
        if holder is not None and is_held and not self.process.sees_death_of(holder.process):
            return False
        self.disk.holder = self
        self.task = self.store.world.running
        self.hold_for = hold_for
        self._begin()
        self.store.world.note(self.process, "  has the lock")
        return True

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

    def release(self) -> None:
        if self.is_held():
            self.disk.witness.releases(self)
            if self.disk.lease is not None and self.disk.is_down_for(self.process):
                self.disk.hearts_stop(self.process, inf)
            else:
                self.disk.holder = None
        self.store.world.point("unlocked")
