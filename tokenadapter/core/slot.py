"""The store's one slot as the keeper sees it: records instead of documents, and whose they are.

Every write is a compare-and-swap on the tag of what was read before.  A tag is a version and a
nonce: whoever finds their own nonce in the slot has written, whatever the store answered.

A slot *lags* if it was emptied since a token was seen there, or set back, by a failover or from a
backup, to an earlier one: that may be spent.  Then what was seen counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """What was in the slot when it was looked at."""

    record: Record
    """A new one if the slot was empty, or, if it lags, the last one that this process saw in it."""
    tag: str | None
    """``None`` if the slot was empty."""
    read_at: float
    """The store's time then (POSIX timestamp in seconds)."""
    monotonic: float
    """This process' monotonic clock just before that, in seconds."""
    wall: float
    """This process' wall clock just before that (POSIX timestamp in seconds)."""
    took: float = 0.0
    """How long the look took, in seconds: the store may have told its time at its very end."""
    lags: bool = False
    """Whether the slot was emptied, or set back, since this process saw the record in it: that is
    to be written back."""
    glimpse: object = None
    """What a glimpse of the slot gave just before, if the store has such."""
    is_foreign: bool = False
    """Whether the token began with another refresh token than the one that is configured here: it
    may be another user's."""


class Conflict(Exception):
    """The slot was written by somebody else since it was looked at; nothing was written."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view


class Slot:
    """Looks at and writes one slot for one grant."""

    def __init__(self, store: TokenStore, grant: Grant, runtime: Runtime) -> None:
        self.store = store
        self._grant = grant
        self._runtime = runtime
        #: Whether having the lock proves that no earlier holder goes on.
        self.lock_ends_with_holder: bool = getattr(store, "lock_ends_with_holder", False)
        self.has_looked: bool = False
        self._glimpse: Callable[[], object] = getattr(store, "glimpse", lambda: None)
        # A grant that names its user is told apart by the name.
        self._names_user = "user" in grant.owner
        self._seeds: Callable[[], Iterator[str]] = getattr(grant, "seeds", _no_seeds)
        # Which beginning was looked at last, and whether it was foreign.
        self._judged: tuple[object, bool] = (None, False)
        # The last record with a token that this process saw: where the slot lags, it is written
        # back.
        self._memory: Record | None = None

    def look(self) -> View:
        """What the slot holds now.

        :raises StoreError: if it cannot be read.
        :raises RefreshConfigError: if the record is another's.
        """
        glimpse = self._glimpse()
        monotonic, wall = self._runtime.monotonic(), self._runtime.wall()
        found = self.store.load()
        self.has_looked = True
        tag, now = found.tag, found.now
        took = self._runtime.monotonic() - monotonic
        record = self._new_record() if found.document is None else self._read(found.document)
        if self._is_foreign(record):
            # Not remembered: it is not for this process to bring back.
            return View(record, tag, now, monotonic, wall, took, False, glimpse, True)
        last = self._memory
        if last is not None and (tag is None or self._is_behind(record, last)):
            record = last if tag is None else last.restored(record)
            return View(record, tag, now, monotonic, wall, took, True, glimpse)
        self._remember(record)
        return View(record, tag, now, monotonic, wall, took, False, glimpse)

    def has_changed(self, view: View) -> bool:
        """Whether the slot may have been written since *view*: at a glimpse, if the store has such,
        else it may."""
        return view.glimpse is None or self._glimpse() != view.glimpse

    def nowhere(self) -> View:
        """A view of no slot at all, by our own clock: for when the store is out of reach."""
        wall = self._runtime.wall()
        return View(self._new_record(), None, wall, self._runtime.monotonic(), wall)

    def new_tag(self, view: View) -> str:
        """A tag for what comes after *view*."""
        last = (view.tag or "").partition("-")[0]
        # A longer one is not ours, and int() may refuse it.
        version = int(last) + 1 if last.isdecimal() and len(last) <= _MOST_DIGITS else 1
        return f"{version}-{self._runtime.nonce()}"

    def write(self, view: View, record: Record, tag: str | None = None) -> View:
        """Replace what *view* saw by *record*; when this returns, it is durable.

        :param tag: of an earlier attempt at the same write, which may have succeeded unnoticed.
        :raises Conflict: if the slot is no longer as *view* saw it.
        :raises StoreError: if it cannot be written.
        """
        tag = tag or self.new_tag(view)
        if not self._save(view, record, tag):
            current = self.look()
            if current.tag != tag:
                raise Conflict(current)
        # The view is as of now: what was read before this write is older than it.
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
            lags=False,
            is_foreign=is_foreign,
        )

    def seeds(self, view: View) -> tuple[str, ...]:
        """The marks of the configured first refresh tokens whose programs share what begins here
        after *view*: the one configured here, and those that shared what was there."""
        seed, record = next(self._seeds(), None), view.record
        known = () if view.is_foreign else (*record.seeds, record.origin)
        mine = None if seed is None else spent_hash(seed)
        return tuple(dict.fromkeys(one for one in (*known, mine) if one is not None))

    def now(self, view: View) -> float:
        """The store's time now, and no earlier: for what may have ended."""
        return view.read_at + self._runtime.monotonic() - view.monotonic

    def stamp(self, view: View) -> float:
        """The store's time now, and no later: for what begins now."""
        return self.now(view) - view.took

    def forget(self) -> None:
        """Forget what was seen: in a forked child, the parent may know better by now."""
        self._memory = None

    def _save(self, view: View, record: Record, tag: str) -> bool:
        document, ttl = record.to_document(), record.ttl(self.now(view))
        try:
            return self.store.save(document, tag=tag, expected=view.tag, ttl=ttl)
        except errors.StoreError:
            # It may be written all the same, if only the store's answer was lost: with the same
            # tag, a second try is the same write.
            return self.store.save(document, tag=tag, expected=view.tag, ttl=ttl)

    def _read(self, document: dict[str, object]) -> Record:
        try:
            record = Record.from_document(document)
        except ValueError as error:
            raise messages.unreadable(self.store, str(error)) from None
        if dict(record.owner) != dict(self._grant.owner):
            if record.is_blank():
                # What somebody else, or a misspelt configuration, left before it had a token.
                return self._new_record()
            raise messages.of_another(self.store, record.owner, self._grant.owner)
        return record

    def _remember(self, record: Record) -> None:
        last = self._memory
        if record.token is not None:
            self._memory = record
        elif last is not None and last.salt == record.salt:
            self._memory = None  # the token was given up, and is not to come back

    def _is_behind(self, record: Record, last: Record) -> bool:
        """Whether *record* is what *last* was once.

        What was written later than *last* is not, although it precedes that: somebody without a
        memory has gone on from what a backup brought back.  Their work is not overwritten.
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
                is_foreign = seed != token.refresh_token and not record.began_with(spent_hash(seed))
                if not is_foreign:
                    break
            self._judged = beginning, is_foreign
        return is_foreign

    def _new_record(self) -> Record:
        return Record(self._grant.owner, self._grant.requested, self._runtime.nonce())


def _no_seeds() -> Iterator[str]:
    return iter(())
