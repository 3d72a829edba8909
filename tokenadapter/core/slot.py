"""The slot of a store as the keeper sees it: records instead of documents, with a checked owner.

Every write is a compare-and-swap on the tag of the last read.  A tag is a version and a nonce.  A
writer that finds its own nonce in the slot has succeeded, whatever the store answered.

A slot *was reset* if it was emptied after this process saw a token there, or set back to an earlier
token, by a failover or from a backup.  The earlier token may be spent, so the record that this
process remembers replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from tokenadapter.core.record import Record, spent_hash
from tokenadapter.core.runtime import Runtime
from tokenadapter.late_imports import late
from tokenadapter.values import Value

if TYPE_CHECKING:
    from tokenadapter import errors
    from tokenadapter.core import messages
    from tokenadapter.protocols import Grant, TokenStore
else:
    errors = late("tokenadapter.errors")
    messages = late("tokenadapter.core.messages")

__all__ = ["Conflict", "Slot", "View"]


# Digits of the version in a tag.
_MOST_DIGITS = 18


class View(Value):
    """The content of the slot at one moment."""

    record: Record
    """A new record if the slot was empty, or the last one that this process saw if it was reset."""
    tag: str | None
    """``None`` if the slot was empty."""
    read_at: float
    """The store's time of the read (POSIX timestamp in seconds)."""
    monotonic: float
    """This process' monotonic clock just before that, in seconds."""
    wall: float
    """This process' wall clock just before that (POSIX timestamp in seconds)."""
    took: float = 0.0
    """How long the read took, in seconds: the store may have read its clock at the very end."""
    was_reset: bool = False
    """Whether the slot was emptied or set back since this process saw the record, which must be
    written back."""
    glimpse: object = None
    """The glimpse just before the read, if the store has glimpses."""
    is_foreign: bool = False
    """Whether the token descends from another refresh token than the configured one: it may belong
    to another user."""


class Conflict(Exception):
    """Another process wrote the slot since it was read.  Nothing was written."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view


class Slot:
    """Reads and writes one slot for one grant."""

    def __init__(self, store: TokenStore, grant: Grant, runtime: Runtime) -> None:
        self.store = store
        self._grant = grant
        self._runtime = runtime
        #: When the keeper was made, by the monotonic clock.
        self.started: float = runtime.monotonic()
        #: Whether holding the lock proves that no earlier holder is alive.
        self.lock_ends_with_holder: bool = getattr(store, "lock_ends_with_holder", False)
        self.has_looked: bool = False
        #: When the store failed last, by our monotonic clock.
        self.failed_at: float = -inf
        self._glimpse: Callable[[], object] = getattr(store, "glimpse", lambda: None)
        # A grant that names its user is identified by the name.
        self._names_user = "user" in grant.owner
        seeds: Callable[[], Iterator[str]] = getattr(grant, "seeds", _no_seeds)
        self._seeds = partial(_known_seeds, seeds) if self._names_user else seeds
        # The last result of began_otherwise(), and what it depends on.
        self._judged: tuple[object, bool] = (None, False)
        # The last record with a token that this process saw, to restore a slot that was reset.
        self._memory: Record | None = None

    def look(self) -> View:
        """Read the slot.

        :raises StoreError: if the slot cannot be read.
        :raises RefreshConfigError: if the record has another owner.
        """
        glimpse = self._glimpse()
        monotonic, wall = self._runtime.monotonic(), self._runtime.wall()
        try:
            found = self.store.load()
        except errors.StoreError:
            self.failed_at = self._runtime.monotonic()
            raise
        self.has_looked = True
        tag, now = found.tag, found.now
        took = self._runtime.monotonic() - monotonic
        record = self._new_record() if found.document is None else self._read(found.document)
        if self._is_foreign(record):
            # Not remembered, because this process must not restore it.
            return View(record, tag, now, monotonic, wall, took, False, glimpse, True)
        last = self._memory
        if last is not None and (tag is None or self._is_behind(record, last)):
            record = last if tag is None else last.restored_over(record)
            return View(record, tag, now, monotonic, wall, took, True, glimpse)
        self._remember(record)
        return View(record, tag, now, monotonic, wall, took, False, glimpse)

    def has_changed(self, view: View) -> bool:
        """Whether the slot may have been written since *view*; ``True`` without glimpses."""
        return view.glimpse is None or self._glimpse() != view.glimpse

    def empty_view(self) -> View:
        """A view without a slot, by the clock of this machine, while the store is unavailable."""
        wall = self._runtime.wall()
        return View(self._new_record(), None, wall, self._runtime.monotonic(), wall)

    def new_tag(self, view: View) -> str:
        """A tag for the next write after *view*."""
        last = (view.tag or "").partition("-")[0]
        # A longer version is not ours, and int() may refuse it.
        version = int(last) + 1 if last.isdecimal() and len(last) <= _MOST_DIGITS else 1
        return f"{version}-{self._runtime.nonce()}"

    def write(self, view: View, record: Record, tag: str | None = None) -> View:
        """Replace the content that *view* read by *record*, durably.

        :param tag: the tag of an earlier attempt at the same write, which may have succeeded.
        :raises Conflict: if the slot has changed since *view*.
        :raises StoreError: if the slot cannot be written.
        """
        last = self._memory
        if last is not None and self._is_behind(view.record, last):
            # Another thread has seen a later record since, and the slot was emptied or set back.
            raise Conflict(self.look())
        tag = tag or self.new_tag(view)
        if not self._save(view, record, tag):
            current = self.look()
            if current.tag != tag:
                raise Conflict(current)
        # The new view has the current time, so that it is newer than reads before this write.
        later = self._runtime.monotonic() - view.monotonic
        is_foreign = self._is_foreign(record)
        if not is_foreign:
            self._remember(record)
        return view._replace(
            record=record,
            tag=tag,
            read_at=view.read_at + later,
            monotonic=view.monotonic + later,
            wall=view.wall + later,
            was_reset=False,
            is_foreign=is_foreign,
        )

    def seeds(self, view: View) -> tuple[str, ...]:
        """The hashes of the first refresh tokens for the grant that begins after *view*: the one
        configured here, and those of the previous grant."""
        seed, record = next(self._seeds(), None), view.record
        known = () if view.is_foreign else (*record.seeds, record.origin)
        mine = None if seed is None else spent_hash(seed)
        return tuple(dict.fromkeys(one for one in (*known, mine) if one is not None))

    def now(self, view: View) -> float:
        """The latest time that the store's clock may show now, for what may have ended."""
        return view.read_at + self._runtime.monotonic() - view.monotonic

    def stamp(self, view: View) -> float:
        """The earliest time that the store's clock may show now, for what begins now."""
        return self.now(view) - view.took

    def forget(self) -> None:
        """Forget the last record: in a forked child, the parent may know a newer one."""
        self._memory = None

    @property
    def account(self) -> str | None:
        """Whose login it is, if that is known."""
        last = self._memory
        user = self._grant.owner.get("user")
        return user if last is None or last.account is None else str(last.account)

    def _save(self, view: View, record: Record, tag: str) -> bool:
        document, ttl = record.to_document(), record.ttl(self.now(view))
        try:
            return self.store.save(document, tag=tag, expected=view.tag, ttl=ttl)
        except errors.StoreError:
            # If only the store's answer was lost, the write has succeeded.  With the same tag, a
            # second attempt is the same write.
            return self.store.save(document, tag=tag, expected=view.tag, ttl=ttl)

    def _read(self, document: dict[str, object]) -> Record:
        try:
            record = Record.from_document(document)
        except ValueError as error:
            raise messages.unreadable_record(self.store, str(error)) from None
        if dict(record.owner) != dict(self._grant.owner):
            if record.is_blank():
                # Left by a logout, or by another owner before it had a token.
                blank = record.without_token(0.0)
                return blank._replace(owner=self._grant.owner, requested=self._grant.requested)
            raise messages.wrong_owner(self.store, record.owner, self._grant.owner)
        return record

    def _remember(self, record: Record) -> None:
        last = self._memory
        if record.token is not None:
            # Another thread may have seen a later one since, which this write then replaced.
            if last is None or not self._is_behind(record, last):
                self._memory = record
        elif last is not None and last.salt == record.salt:
            self._memory = None  # the token was removed, and must not be restored

    def _is_behind(self, record: Record, last: Record) -> bool:
        """Whether *record* is an earlier state of *last*.

        A record that was written later than *last* is not: a process without a memory has continued
        from a restored backup, and its token must not be overwritten.
        """
        return record.precedes(last) and record.written < last.written

    def _is_foreign(self, record: Record) -> bool:
        """Whether the token of *record* may be another user's."""
        return not self._names_user and self.began_otherwise(record)

    def began_otherwise(self, record: Record) -> bool:
        """Whether the token of *record* did not begin with the configured refresh token."""
        token = record.token
        if token is None:
            return False
        beginning = (record.salt, record.origin, record.seeds, token.refresh_token)
        judged, is_foreign = self._judged
        if beginning != judged:
            is_foreign = False
            for seed in self._seeds():
                hashed = spent_hash(seed)
                is_known = record.began_with(hashed) or (
                    self._names_user and (hashed in record.spent or self.store.was_spent(hashed))
                )
                is_foreign = seed != token.refresh_token and not is_known
                if not is_foreign:
                    break
            self._judged = beginning, is_foreign
        return is_foreign

    def _new_record(self) -> Record:
        return Record(self._grant.owner, self._grant.requested, self._runtime.nonce())


def _no_seeds() -> Iterator[str]:
    return iter(())


def _known_seeds(seeds: Callable[[], Iterator[str]]) -> Iterator[str]:
    """The seeds that can be looked up: for a grant that names its user, they are only reported."""
    with suppress(errors.TokenError):
        yield from seeds()
