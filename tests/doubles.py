"""A runtime, a store and a grant that tests control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tokenadapter.core.runtime import Runtime
from tokenadapter.errors import ReauthRequired, StoreError
from tokenadapter.protocols import Answer, Credential, Document, Snapshot
from tokenadapter.stores.toolkit import is_remembered
from tokenadapter.token import Token


class Clockwork(Runtime):
    """A runtime whose clocks move only when a test moves them.  Its threads are real."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.ticks = 500.0
        self.dice = 0.5
        self.slept: list[float] = []
        self.is_exiting = False
        self.dead: set[str] = set()
        self.living: set[str] = set()
        self.elsewhere: set[str] = set()

    def has_died(self, process: str) -> bool:
        return process in self.dead

    def may_save(self, process: str) -> bool:
        return process in self.living

    def is_elsewhere(self, process: str) -> bool:
        return process in self.elsewhere

    def wall(self) -> float:  # type: ignore[override]
        return self.now

    def monotonic(self) -> float:  # type: ignore[override]
        return self.ticks

    def random(self) -> float:  # type: ignore[override]
        return self.dice

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.go_on(seconds)

    def exiting(self) -> bool:
        return self.is_exiting

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds


LOST = StoreError("The answer got lost.")


class Save(NamedTuple):
    """The arguments of a save."""

    tag: str
    expected: str | None
    ttl: float | None


class Shelf:
    """A store in this process, which several keepers can share as processes share a file.

    :ivar ahead: the seconds by which the clock of the store is fast.
    :ivar takes: the seconds that a load or a save takes.
    :ivar clock_read_after: the fraction of a load after which the store reads its clock.
    :ivar failing: decides whether a step fails, by its name.
    :ivar next: the effects of the next saves: whether each writes, and its answer or error.
    :ivar writes: the documents that were written.
    :ivar saves: the arguments of all saves.
    :ivar spent: the hashes that :meth:`remember_spent` has got.
    :ivar remembered: the arguments of all calls of :meth:`remember_spent`.
    """

    is_copy = False
    lock_ends_with_holder = True
    poll = (0.01, 0.05)

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.ahead = self.takes = self.clock_read_after = 0.0
        self.slot: tuple[Document, str] | None = None
        self.spent: set[str] = set()
        self.remembered: list[tuple[str, bool]] = []
        self.writes: list[Document] = []
        self.saves: list[Save] = []
        self.next: list[tuple[bool, bool | StoreError]] = []
        self.failing: Callable[[str], bool] = lambda step: False
        self.holder: ShelfLock | None = None
        self.guard = threading.Lock()  # guards slot and holder

    def __repr__(self) -> str:
        return "Shelf()"

    def _step(self, name: str) -> None:
        if self.failing(name):
            raise StoreError(f"{name} fails in this test")

    def _pass(self, seconds: float) -> None:
        if seconds:
            assert isinstance(self.runtime, Clockwork)
            self.runtime.go_on(seconds)

    def load(self) -> Snapshot:
        self._step("load")
        self._pass(self.takes * self.clock_read_after)
        snapshot = Snapshot(*(self.slot or (None, None)), self.runtime.wall() + self.ahead)
        self._pass(self.takes * (1 - self.clock_read_after))
        return snapshot

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        self._step("save")
        self.saves.append(Save(tag, expected, ttl))
        self._pass(self.takes)
        is_written, answer = self.next.pop(0) if self.next else (True, None)
        if is_written:
            is_saved = self._save(document, tag, expected)
        if isinstance(answer, StoreError):
            raise answer
        return is_saved if answer is None else answer

    def _save(self, document: Document, tag: str, expected: str | None) -> bool:
        with self.guard:
            if (self.slot[1] if self.slot else None) not in (expected, tag):
                return False
            self.slot = (document, tag)
            self.writes.append(document)
            return True

    def prepare(self) -> None:
        self._step("prepare")

    def lock(self) -> ShelfLock:
        return ShelfLock(self)

    def remember_spent(self, digest: str, *, for_good: bool) -> None:
        self._step("remember_spent")
        self.spent.add(digest)
        self.remembered.append((digest, for_good))

    def was_spent(self, digest: str) -> bool:
        return is_remembered(self.spent, digest)


class ShelfLock:
    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def acquire(self, hold_for: float) -> bool:
        self.shelf._step("lock")
        with self.shelf.guard:
            if self.shelf.holder is None:
                self.shelf.holder = self
        return self.confirm()

    def confirm(self) -> bool:
        return self.shelf.holder is self

    def release(self) -> None:
        if self.confirm():
            self.shelf.holder = None


class Authority:
    """An authorization server with rotation and reuse detection, and its grant.

    ``script`` has one item for each presentation: an exception to raise without a rotation,
    ``None`` for an answer, or ``("lost", exception)`` for an exception after a rotation.
    """

    owner: Mapping[str, str] = {"endpoint": "https://id.example.com/token", "client": "me"}
    requested: Mapping[str, str] = {}
    client_credential = "me\0secret"
    deadline = 4.0
    grace = 0.0
    urls: Sequence[str] = ()

    def __init__(self, *, lifetime: float | None = 3600.0, first: str | None = "refresh-0") -> None:
        self.lifetime = lifetime
        self.first = first
        self.live = first
        self.presented: list[str] = []
        self.script: list[Any] = []
        self.count = 0
        self.revoked = False
        self.asking: Callable[[], object] = lambda: None

    def seeds(self) -> Iterator[str]:
        if self.first is not None:
            yield self.first

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        found = []
        stored = previous.refresh_token if previous is not None else None
        for secret in dict.fromkeys((stored, self.first)):
            if secret is not None:
                is_first = secret == self.first
                found.append(Credential("refresh_token", secret, True, is_first, True))
        return found

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        self.presented.append(credential.secret)
        self.asking()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if credential.secret != self.live:
            self.revoked = True
        if self.revoked:
            raise ReauthRequired("The server refused it: invalid_grant.", error="invalid_grant")
        answer = self.issue()
        if step is not None:
            raise step[1]
        return answer

    def issue(self) -> dict[str, Any]:
        self.count += 1
        self.live = f"refresh-{self.count}"
        answer: dict[str, Any] = {
            "access_token": f"access-{self.count}",
            "refresh_token": self.live,
        }
        if self.lifetime is not None:
            answer["expires_in"] = self.lifetime
        return answer


class Machinist(Authority):
    """A grant that spends no credential, like client credentials."""

    def seeds(self) -> Iterator[str]:
        return iter(())

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        return [Credential("client", "")]

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        self.presented.append(credential.kind)
        self.asking()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        answer = self.issue()
        del answer["refresh_token"]
        return answer
