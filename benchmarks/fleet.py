"""A fleet on a simulated clock: real keepers, a store that counts, and an authorization server.

Each call of a keeper, and each helper thread that it starts, is a greenlet.  A greenlet that sleeps
or waits is an entry in a queue ordered by time, so that a hundred thousand processes pass an expiry
within minutes, and nothing but the simulated clock decides how.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from tokenadapter import TokenKeeper
from tokenadapter.core.runtime import Runtime
from tokenadapter.errors import ReauthRequired, RefreshTemporarilyFailed, TokenError
from tokenadapter.protocols import Credential, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenadapter.token import Token

LIFETIME = 3600.0
# Seconds that the token endpoint takes.
LATENCY = 0.5
# Seconds for the way to the store and back.
ROUND_TRIP = 0.001
START = 1_000_000.0
# Of a lease, as in tokenadapter.stores._lease.
LEASE, LAPSES_AFTER = 5.0, 0.85


class Clock:
    """Simulated time, and what is to happen when."""

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        self.dice = random.Random(seed)
        self._queue: list[tuple[float, int, _Entry]] = []
        self._numbers = count()
        self._hub = getcurrent()

    def at(self, time: float, work: Callable[[], object]) -> None:
        """Have *work* begin at *time*, as a thread."""
        self._enter(time, _Entry(lambda: greenlet(work).switch()))

    def sleep(self, seconds: float) -> None:
        """Let the calling thread sleep."""
        self._enter(self.now + seconds, _Entry(getcurrent().switch))
        self._hub.switch()

    def run(self, until: float | None = None) -> None:
        """Until *until*, or until nothing is left to happen."""
        queue = self._queue
        while queue and (until is None or queue[0][0] <= until):
            self.now, _, entry = heappop(queue)
            if entry.work is not None:
                entry.work()
        if until is not None:
            self.now = until

    def wait(self, seconds: float, waiting: list[_Entry]) -> None:
        """Let the calling thread sleep until somebody wakes *waiting*."""
        entry = _Entry(getcurrent().switch)
        waiting.append(entry)
        self._enter(self.now + seconds, entry)
        self._hub.switch()
        entry.work = None

    def wake(self, waiting: list[_Entry]) -> None:
        """Let those who wait go on."""
        for entry in waiting:
            if entry.work is not None:
                self._enter(self.now, _Entry(entry.work))
                entry.work = None
        waiting.clear()

    def _enter(self, time: float, entry: _Entry) -> None:
        heappush(self._queue, (time, next(self._numbers), entry))


class _Entry:
    """What happens at its time, unless something else came first."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], object] | None) -> None:
        self.work = work


class _Event:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_set = False
        self._waiting: list[_Entry] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._clock.wake(self._waiting)

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            self._clock.wait(timeout, self._waiting)
        return self._is_set


class SimulatedMachine(Runtime):
    """What a process sees of the world."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self.random = clock.dice.random  # type: ignore[misc]

    def wall(self) -> float:  # type: ignore[override]
        return self._clock.now

    monotonic = wall  # type: ignore[assignment]

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def nonce(self) -> str:
        return f"{self._clock.dice.getrandbits(64):016x}"

    def thread_id(self) -> int:
        return id(getcurrent())

    def process(self) -> str:
        return self._name

    def has_died(self, process: str) -> bool:
        return False

    def is_elsewhere(self, process: str) -> bool:
        return False

    def event(self) -> _Event:
        return _Event(self._clock)

    def start(self, work: Callable[[], None]) -> bool:
        self._clock.at(self._clock.now, work)
        return True

    def is_helper(self) -> bool:
        return True

    def exiting(self) -> bool:
        return False


class Server:
    """The authorization server: rotates refresh tokens, and counts.

    :ivar down_until: until when it answers 503.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.requests = 0
        self.number = 0
        self.down_until = 0.0
        self.issued_at = 0.0

    def issue(self) -> dict[str, Any]:
        self.number += 1
        self.issued_at = self.clock.now
        access = f"access-{self.number}-".ljust(800, "x")
        refresh = f"refresh-{self.number}-".ljust(100, "x")
        return {"access_token": access, "refresh_token": refresh, "expires_in": LIFETIME}


class Grant:
    """Presents the refresh token that is stored."""

    owner: Mapping[str, str] = {"client": "fleet"}
    requested: Mapping[str, str] = {}
    client_credential = "fleet"
    deadline = 30.0
    grace = 0.0
    urls: Sequence[str] = ()

    def __init__(self, server: Server) -> None:
        self._server = server

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        if previous is None or previous.refresh_token is None:
            return []
        secret = previous.refresh_token
        return [Credential("refresh_token", secret, single_use=True, refusal_is_final=True)]

    def fetch(self, credential: Credential, previous: Token | None) -> dict[str, Any]:
        server = self._server
        server.requests += 1
        server.clock.sleep(LATENCY)
        if server.clock.now < server.down_until:
            raise RefreshTemporarilyFailed("503", processed=False)
        if f"refresh-{server.number}-" not in credential.secret:
            raise ReauthRequired("used before", error="invalid_grant")
        return server.issue()


class SharedStore:
    """A store beyond one machine, with a lease: what Redis, a database and a cache have in common.

    It counts what it is asked, and the bytes of the documents that it gives and takes.

    :param rate: how many questions it answers in a second, one after the other.
    """

    is_copy = False
    poll = (0.05, 0.5)
    lease = LEASE

    def __init__(self, clock: Clock, rate: float | None = None) -> None:
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self.saved_at = 0.0
        self.lock_owner: object = None
        self.lock_until = 0.0
        self._slot: tuple[str, str] | None = None
        self._document: Mapping[str, Any] = {}
        self._gap = 1 / rate if rate else 0.0
        self._free_at = 0.0

    def __repr__(self) -> str:
        return "a shared store"

    @contextmanager
    def requested(self, what: str) -> Iterator[float]:
        """Answer a question in the block: what is asked first is answered first.

        :returns: for the block: when that is.
        """
        clock = self.clock
        self.counts[what] += 1
        self._free_at = max(clock.now + ROUND_TRIP / 2, self._free_at) + self._gap
        answered = self._free_at
        yield answered
        clock.sleep(answered + ROUND_TRIP / 2 - clock.now)

    def load(self) -> Snapshot:
        with self.requested("load") as now:
            if self._slot is None:
                snapshot = Snapshot(None, None, now)
            else:
                text, tag = self._slot
                self.counts["bytes read"] += len(text)
                snapshot = Snapshot(self._document, tag, now)
        return snapshot

    def save(
        self, document: Mapping[str, Any], *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        with self.requested("save") as answered:
            stored = None if self._slot is None else self._slot[1]
            is_written = stored in (expected, tag)
            text = json.dumps(document)
            self.counts["bytes written"] += len(text)
            if is_written:
                self._slot, self._document = (text, tag), json.loads(text)
                self.saved_at = answered
        return is_written

    def prepare(self) -> None:
        pass

    def lock(self) -> _Lease:
        return _Lease(self)

    def remember_spent(self, note: str, *, for_good: bool) -> None:
        with self.requested("remember_spent"):
            pass

    def was_spent(self, note: str) -> bool:
        with self.requested("was_spent"):
            return False


class _Lease:
    """As :class:`tokenadapter.stores._lease.Lease`."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._is_mine = False
        self._seconds = LEASE * LAPSES_AFTER

    def acquire(self, hold_for: float) -> bool:
        store = self._store
        with store.requested("lock attempt") as now:
            if store.lock_owner is None or store.lock_until <= now:
                store.lock_owner, store.lock_until = self, now + self._seconds
                self._is_mine = True
        if self._is_mine:
            store.clock.at(store.clock.now + self._seconds / 3, self._beat)
        return self._is_mine

    def confirm(self) -> bool:
        if not self._is_mine:
            return False
        began = self._store.clock.now
        return self._extend() and self._store.clock.now - began < self._seconds / 2

    def release(self) -> None:
        if not self._is_mine:
            return
        self._is_mine = False
        with self._store.requested("release"):
            if self._store.lock_owner is self:
                self._store.lock_owner = None

    def _extend(self) -> bool:
        store = self._store
        with store.requested("confirm") as now:
            is_held = store.lock_owner is self and now < store.lock_until
            if is_held:
                store.lock_until = now + self._seconds
        return is_held

    def _beat(self) -> None:
        while self._is_mine and self._extend():
            self._store.clock.sleep(self._seconds / 3)


class LocalStore(SharedStore):
    """A file: the kernel keeps its lock, and a glimpse and a claim cost next to nothing."""

    poll = (0.02, 0.05)
    lock_ends_with_holder = True

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.lease = None  # type: ignore[assignment]
        self._claimant: object = None

    def __repr__(self) -> str:
        return "a file"

    @contextmanager
    def requested(self, what: str) -> Iterator[float]:
        self.counts[what] += 1
        yield self.clock.now

    def glimpse(self) -> object:
        self.counts["glimpse"] += 1
        return None if self._slot is None else self._slot[1]

    def reserve(self) -> Any:
        self.counts["reserve"] += 1
        if self._claimant is not None or self.lock_owner is not None:
            return None
        self._claimant = object()
        return self._claimed()

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._claimant = None

    def lock(self) -> Any:
        return _FileLock(self)


class _FileLock:
    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def acquire(self, hold_for: float) -> bool:
        with self._store.requested("lock attempt"):
            if self._store.lock_owner is None:
                self._store.lock_owner = self
        return self.confirm()

    def confirm(self) -> bool:
        return self._store.lock_owner is self

    def release(self) -> None:
        if self.confirm():
            self._store.lock_owner = None


class Fleet:
    """Processes that share a store: when each of them called, and what became of it."""

    def __init__(
        self, size: int, machines: int, *, rate: float | None = None, file: bool = False
    ) -> None:
        self.clock = clock = Clock()
        self.server = Server(clock)
        self.store = LocalStore(clock) if file else SharedStore(clock, rate)
        self._grant = Grant(self.server)
        self.keepers = [
            self._keeper(f"machine{number % machines}:{number}") for number in range(size)
        ]
        self.waited: list[float] = []
        self.last_at = 0.0
        self.failed = 0
        first = self._keeper("login")
        clock.at(clock.now, lambda: first.adopt(self.server.issue()))
        clock.run()
        self.dies_at = self.server.issued_at + LIFETIME

    def _keeper(self, name: str) -> TokenKeeper:
        return TokenKeeper(self._grant, self.store, runtime=SimulatedMachine(self.clock, name))

    def share(self) -> None:
        """Have all of them read the token: what that takes does not count."""
        self.call_all()
        self.clock.run()
        self.store.counts.clear()
        self.waited.clear()

    def call_all(self, within: float = 0.0) -> None:
        """Have each call once: now, or at a moment of its own *within* so many seconds."""
        clock, begin = self.clock, self.clock.now
        for keeper in self.keepers:
            at = begin + clock.dice.random() * within if within else begin
            clock.at(at, partial(self.call, keeper.current))

    def call(self, work: Callable[[], object]) -> None:
        """What a process does, and how long it takes."""
        began = self.clock.now
        try:
            work()
        except TokenError:
            self.failed += 1
        self.waited.append(self.clock.now - began)
        self.last_at = max(self.last_at, self.clock.now)
