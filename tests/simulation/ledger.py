"""What the witness writes down: presentations, and what it knows of each process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from simulation.authority import FIRST
from simulation.process import Process, Task
from simulation.store import SimulatedLock
from tokenadapter.protocols import Credential
from tokenadapter.token import Token


class Announcement(NamedTuple):
    """An intent that a process has written.

    :ivar task: the thread that has written it.
    :ivar first_sent: when what is announced was announced first, by the store's clock.
    :ivar until: until when it says that its answer is awaited, by the store's clock.
    :ivar write: which write of the slot that was.
    """

    task: Task
    secret: str
    first_sent: float
    until: float
    write: int


class Presentation:
    """One credential, presented once.

    :ivar task: the thread that presents it.
    :ivar stored: the access token in the record that it has seen.
    :ivar announcement: what was announced beforehand, if anything was.
    :ivar outcome: ``open``, until the process is told; then ``minted``, ``refused``,
        ``unprocessed`` or ``unknown``.
    :ivar ended_at: when the process was told.
    :ivar access: the access token that it brought.
    :ivar spends: whether it brought a refresh token in place of the one that was presented.
    :ivar wait: for how many seconds the server asked to be left alone.
    :ivar recorded: which write of the slot told the outcome to all; ``None``: none did.
    :ivar kept: which write saved the token of another last, and left the intent for it.
    :ivar excused: whether none need do so.
    :ivar is_due: whether the token was to be renewed for its age before anyone had to wait.
    :ivar is_handed_in: whether somebody has handed it in alone: it begins a grant of its own.
    :ivar was_overtaken: whether its process has found, when it tried, that others had written, and
        what they wrote accounts for it.
    """

    def __init__(
        self,
        task: Task,
        lock: SimulatedLock | None,
        credential: Credential,
        stored: str | None,
        announcement: Announcement | None,
    ) -> None:
        self.task = task
        self.process = task.process
        self.lock = lock
        self.credential = credential
        self.stored = stored
        self.announcement = announcement
        self.outcome = "open"
        self.ended_at = 0.0
        self.access: str | None = None
        self.spends = False
        self.wait: float | None = None
        self.recorded: int | None = None
        self.kept = 0
        self.excused = False
        self.is_due = self.is_handed_in = False
        self.was_overtaken = False

    def is_settled(self) -> bool:
        """Whether its outcome is known to all, and ends what became of the credential so far."""
        if self.outcome == "refused":
            return self.credential.refusal_is_final
        return self.outcome == "minted" and self.recorded is not None

    def has_renewed_for_free(self) -> bool:
        """Whether it has brought a token, as all can see, and can be presented once more."""
        return self.outcome == "minted" and self.recorded is not None and not self.spends

    def may_be_processed(self) -> bool:
        """Whether the server may have processed it, as far as others can know."""
        return self.outcome in ("open", "minted", "unknown")

    def is_left_to_others(self) -> bool:
        """Whether its process need not write down what became of it: who has lost the lock, and
        finds that others have written since, adds nothing but a new token."""
        return self.was_overtaken and self.has_lost_its_lock() and self.outcome != "minted"

    def is_untold(self) -> bool:
        """Whether the server has not processed it, and its process has lost the lock before it
        could write that down: others have to reckon with an answer."""
        is_known = self.outcome in ("unprocessed", "refused")
        return is_known and self.recorded is None and self.has_lost_its_lock()

    def must_be_saved(self) -> bool:
        """Whether it brought a token that is to be saved whatever it takes."""
        credential = self.credential
        is_spent = credential.single_use and (self.spends or not credential.opaque)
        return self.outcome == "minted" and is_spent

    def has_lost_its_lock(self) -> bool:
        """Whether the store has let others have the lock meanwhile, by no fault of its holder."""
        return self.lock is None or (self.lock.is_lost and not self.lock.is_held())


class Wish:
    """What a caller asks for that makes a renewal of a good token right.

    :param task: the thread that calls.
    :ivar least: for how many seconds the token shall live; without end: a new one shall come.
    """

    def __init__(self, task: Task, began: float, least: float = inf) -> None:
        self.task = task
        self.began = began
        self.ended = inf
        self.least = least

    def covers(self, task: Task) -> bool:
        """Whether *task* may work for it."""
        return task is self.task or self.began <= task.began <= self.ended


class Account:
    """What the witness knows of one process.

    :ivar asked: what it asks for.
    :ivar client: what authenticates its client.
    :ivar presentations: the last one that each of its threads made: one may hand something in while
        another renews.
    :ivar announcements: likewise.
    :ivar newest: the age of the newest token that it has seen.
    :ivar seen: the generation and the salt of the record in which it saw that, and when that token
        was issued, and the record written, as the record says.
    :ivar met: the access tokens that it has seen in the slot, or obtained.
    :ivar knows: of each of its threads, the number of the last write of the slot that it has made
        or seen.
    :ivar stored: which access token the slot held then.
    :ivar token_at: when it last obtained a token, or saw one in the slot.
    :ivar slowest_look: the longest that a look at the slot took, in seconds.
    :ivar requests: how often its users made a request.
    :ivar mints: how many tokens it obtained, but for those that were due.
    :ivar wishes: what its users asked for beyond that.
    :ivar hand: the last token that its users were given.
    :ivar dropped_at: when they last gave it up.
    """

    def __init__(self, requested: Mapping[str, str], client: str) -> None:
        self.requested = requested
        self.client = client
        self.presentations: dict[Task, Presentation] = {}
        self.announcements: dict[Task, Announcement] = {}
        self.newest = (0, 0)
        self.seen: tuple[int, str, float, float] | None = None
        self.met: set[str] = set()
        self.knows: dict[Task, int] = {}
        self.stored: dict[Task, str | None] = {}
        self.store_failures = 0
        self.store_failed_at = 0.0
        self.token_at = 0.0
        self.slowest_look = 0.0
        self.requests = 0
        self.mints = 0
        self.wishes: list[Wish] = []
        self.held: Token | None = None
        self.dropped_at = 0.0

    def forked(self) -> Account:
        """That of a child, which has seen nothing itself."""
        child = Account(self.requested, self.client)
        child.store_failures = self.store_failures
        child.store_failed_at = self.store_failed_at
        child.slowest_look = self.slowest_look
        return child

    def client_asked(self) -> str:
        """For whom a hold on a client, or on what it asks for, is meant."""
        return f"{self.client}\0{json.dumps(dict(self.requested), sort_keys=True)}"

    def has_forced(self, since: float) -> bool:
        """Whether a user has called for another try, whatever was refused, after *since*."""
        return any(wish.least == inf and wish.ended >= since for wish in self.wishes)

    def wished(self, task: Task) -> float:
        """For how many seconds a token shall live for those for whom *task* may work."""
        return max((wish.least for wish in self.wishes if wish.covers(task)), default=0.0)


class Mint:
    """One token that a process was given for a credential.

    :ivar told: whether the program was told of it.
    :ivar is_doubtful: whether its owner cannot know that it was saved.
    """

    def __init__(self, process: Process, at: float) -> None:
        self.process = process
        self.at = at
        self.told = False
        self.is_doubtful = False


def digest(salt: str, kind: str, secret: str) -> str:
    """In place of the hash by which a record knows a credential: quick, and can be read."""
    return f"{salt}:{kind}:{secret}"


def named(item: Mapping[str, Any]) -> str:
    """The secret that an intent or a tombstone is about: a function presents the first one, and
    nobody sees that."""
    return str(item["credential"]).rpartition(":")[2] or FIRST
