"""The records of the witness: presentations, and the knowledge of each process."""

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

    :ivar task: the thread that wrote the intent.
    :ivar first_sent: the time of the first intent for the credential, by the store's clock.
    :ivar until: the end of the wait for the answer, by the store's clock.
    :ivar write: the number of the write.
    """

    task: Task
    secret: str
    first_sent: float
    until: float
    write: int


class Presentation:
    """One presentation of a credential.

    :ivar task: the thread that presents it.
    :ivar stored: the access token in the record that the thread has read.
    :ivar announcement: its intent, if there was one.
    :ivar outcome: ``open`` until the process knows it; then ``minted``, ``refused``,
        ``unprocessed`` or ``unknown``.
    :ivar began: the time at which it began.
    :ivar ended_at: the time at which the process learned the outcome.
    :ivar access: the new access token.
    :ivar spends: whether the server rotated the refresh token.
    :ivar wait: the seconds of the server's Retry-After.
    :ivar recorded: the number of the write that saved the outcome; ``None``: none.
    :ivar kept: the last write that saved the token of another presentation and kept this intent.
    :ivar excused: whether the outcome need not be saved.
    :ivar is_due: whether the token was stale.
    :ivar is_adoption: whether the refresh token was adopted alone, which begins a new grant.
    :ivar was_overtaken: whether its process found a write of another process that accounts for
        this presentation.
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
        self.began = task.process.world.now
        self.ended_at = 0.0
        self.access: str | None = None
        self.spends = False
        self.wait: float | None = None
        self.recorded: int | None = None
        self.kept = 0
        self.excused = False
        self.is_due = self.is_adoption = False
        self.was_overtaken = False

    def is_settled(self) -> bool:
        """Whether the outcome is saved and settles all earlier presentations of the credential."""
        if self.outcome == "refused":
            return self.credential.refusal_is_final
        return self.outcome == "minted" and self.recorded is not None

    def has_renewed_for_free(self) -> bool:
        """Whether the saved outcome is a token and the credential was not spent."""
        return self.outcome == "minted" and self.recorded is not None and not self.spends

    def may_be_processed(self) -> bool:
        """Whether the server may have processed the credential, as far as other processes know."""
        return self.outcome in ("open", "minted", "unknown")

    def is_left_to_others(self) -> bool:
        """Whether the outcome need not be saved: a process that has lost the lock, and finds a
        write of another process, saves nothing but a new token."""
        return self.was_overtaken and self.has_lost_its_lock() and self.outcome != "minted"

    def is_unreported(self) -> bool:
        """Whether the server has not processed the credential, and the process has not saved that:
        a process that writes meanwhile, since one of the two has lost the lock, must assume that an
        answer is on its way."""
        return self.outcome in ("unprocessed", "refused") and self.recorded is None

    def must_be_saved(self) -> bool:
        """Whether it brought a token whose save must be retried until it succeeds."""
        credential = self.credential
        is_spent = credential.single_use and (self.spends or not credential.opaque)
        return self.outcome == "minted" and is_spent

    def has_lost_its_lock(self) -> bool:
        """Whether the lock was lost without a fault of its holder."""
        return self.lock is None or (self.lock.is_lost and not self.lock.is_held())


class Demand:
    """The need of a caller that justifies the renewal of a valid token.

    :param task: the thread that calls.
    :ivar least: the required validity in seconds; infinite: a new token is required.
    """

    def __init__(self, task: Task, began: float, least: float = inf) -> None:
        self.task = task
        self.began = began
        self.ended = inf
        self.least = least

    def covers(self, task: Task) -> bool:
        """Whether *task* may renew for this caller."""
        return task is self.task or self.began <= task.began <= self.ended


class Account:
    """The knowledge of the witness about one process.

    :ivar requested: the scope or resource that the process requests.
    :ivar client: the credential of its client.
    :ivar presentations: the last presentation of each thread: one thread may adopt a refresh token
        while another renews.
    :ivar announcements: the last intent of each thread.
    :ivar newest: the rank of the newest token that the process has seen.
    :ivar seen: the generation and the salt of the record with that token, and the times in the
        record when the token was issued and the record was written.
    :ivar seen_backoff: the backoff in that record.
    :ivar met: the access tokens that the process has read or obtained.
    :ivar knows: for each thread, the number of the last write that it has made or seen.
    :ivar stored: the access token in the slot at that time.
    :ivar token_at: the time at which the process last obtained or read a token.
    :ivar slowest_look: the longest read of the slot in seconds.
    :ivar requests: the number of requests of its users.
    :ivar mints: the number of tokens that it obtained, without renewals of stale tokens.
    :ivar demands: other needs of its users.
    :ivar held: the last token that its users got.
    :ivar dropped_at: the time at which the users last forgot the token.
    """

    def __init__(self, requested: Mapping[str, str], client: str) -> None:
        self.requested = requested
        self.client = client
        self.presentations: dict[Task, Presentation] = {}
        self.announcements: dict[Task, Announcement] = {}
        self.newest = (0, 0)
        self.seen: tuple[int, str, float, float] | None = None
        self.seen_backoff: Mapping[str, Any] | None = None
        self.met: set[str] = set()
        self.knows: dict[Task, int] = {}
        self.stored: dict[Task, str | None] = {}
        self.store_failures = 0
        self.store_failed_at = 0.0
        self.token_at = 0.0
        self.slowest_look = 0.0
        self.requests = 0
        self.mints = 0
        self.demands: list[Demand] = []
        self.held: Token | None = None
        self.dropped_at = 0.0

    def forked(self) -> Account:
        """The knowledge of a forked child, which has read nothing itself."""
        child = Account(self.requested, self.client)
        child.store_failures = self.store_failures
        child.store_failed_at = self.store_failed_at
        child.slowest_look = self.slowest_look
        return child

    def backoff_target(self) -> str:
        """The key of a backoff that is limited to this client and request."""
        return f"{self.client}\0{json.dumps(dict(self.requested), sort_keys=True)}"

    def has_forced(self, since: float) -> bool:
        """Whether a user called refresh() after *since*."""
        return any(demand.least == inf and demand.ended >= since for demand in self.demands)

    def demanded_validity(self, task: Task) -> float:
        """The validity in seconds that the callers of *task* require."""
        return max((demand.least for demand in self.demands if demand.covers(task)), default=0.0)


class Mint:
    """One token that a process obtained for a credential.

    :ivar is_reported: whether ``on_refresh`` was called with the token.
    :ivar is_doubtful: whether the process cannot know whether the token was saved.
    """

    def __init__(self, process: Process, at: float) -> None:
        self.process = process
        self.at = at
        self.is_reported = False
        self.is_doubtful = False


def includes(wider: Mapping[str, str], requested: Mapping[str, str]) -> bool:
    """Whether a token for the request *wider* satisfies *requested* too."""
    return wider == requested or (
        bool(requested) and set(requested["scope"].split()) <= set(wider["scope"].split())
    )


def digest(salt: str, kind: str, secret: str) -> str:
    """A fast, readable replacement for the digest of a credential, also without spaces."""
    return f"{salt}:{kind}:{secret}".replace(" ", "")


def named(item: Mapping[str, Any]) -> str:
    """The secret of an intent or a tombstone.  The keeper does not know the secret that a function
    presents: it is the first refresh token."""
    return str(item["credential"]).rpartition(":")[2] or FIRST
