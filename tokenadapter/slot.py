"""The store's one slot as the keeper sees it: records instead of documents, and whose they are.

Every write is a compare-and-swap on the tag of what was read before.  A tag is a version and a
nonce: whoever finds their own nonce in the slot has written, whatever the store answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tokenadapter.machine import Machine
from tokenadapter.protocols import Grant, TokenStore
from tokenadapter.record import Record

__all__ = ["Moved", "Slot", "View"]


class View(NamedTuple):
    """What was in the slot when it was looked at."""

    record: Record
    """A new one if the slot was empty."""
    tag: str | None
    now: float
    """The store's time then (POSIX timestamp in seconds)."""
    monotonic: float
    """This process' monotonic clock just before that, in seconds."""
    wall: float
    """This process' wall clock just before that (POSIX timestamp in seconds)."""


class Moved(Exception):
    """Somebody else has written the slot since it was looked at; nothing was written."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view


class Slot:
    """Looks at and writes one slot for one grant."""

    def __init__(self, store: TokenStore, grant: Grant, machine: Machine) -> None:
        self.store = store
        self._grant = grant
        self._machine = machine
        # The last record with a token that this process saw: if the slot is emptied, it is
        # written back.
        self._memory: Record | None = None

    def look(self) -> View:
        """What the slot holds now.

        :raises StoreError: if it cannot be read.
        :raises RefreshConfigError: if the record is another's.
        """
        monotonic, wall = self._machine.monotonic(), self._machine.wall()
        document, tag, now = self.store.load()
        if document is None:
            record = self._memory or self._new_record()
        else:
            try:
                record = Record.from_document(document)
            except ValueError as error:
                from tokenadapter.errors import StoreError

                raise StoreError(
                    f"{self.store!r} holds something that this version of tokenadapter cannot "
                    f"use: {error}. It was left as it is: move it away, or name another store."
                ) from None
            self._refuse_anothers(record)
            self._remember(record)
        return View(record, tag, now, monotonic, wall)

    def nowhere(self) -> View:
        """A view of no slot at all, by our own clock: for when the store is out of reach."""
        wall = self._machine.wall()
        return View(self._new_record(), None, wall, self._machine.monotonic(), wall)

    def write(self, view: View, record: Record) -> View:
        """Replace what *view* saw by *record*; when this returns, it is durable.

        :raises Moved: if the slot is no longer as *view* saw it.
        :raises StoreError: if it cannot be written.
        """
        from tokenadapter.errors import StoreError

        tag = f"{_version(view.tag) + 1}-{self._machine.nonce()}"
        failure: StoreError | None = None
        try:
            written = self.store.save(
                record.to_document(), tag=tag, expected=view.tag, ttl=record.ttl(self.now(view))
            )
        except StoreError as error:
            written, failure = False, error
        if not written:
            # It may be written all the same, if only the store's answer was lost.
            current = self.look()
            if current.tag != tag:
                raise failure or Moved(current)
        self._remember(record)
        return view._replace(record=record, tag=tag)

    def now(self, view: View) -> float:
        """The store's time now (POSIX timestamp in seconds)."""
        return view.now + self._machine.monotonic() - view.monotonic

    def forget(self) -> None:
        """Forget what was seen: in a forked child, the parent may know better by now."""
        self._memory = None

    def _remember(self, record: Record) -> None:
        if record.token is not None:
            self._memory = record

    def _new_record(self) -> Record:
        return Record(self._grant.whose, self._grant.asked, self._machine.nonce())

    def _refuse_anothers(self, record: Record) -> None:
        if dict(record.whose) != dict(self._grant.whose):
            from tokenadapter.errors import RefreshConfigError

            raise RefreshConfigError(
                f"{self.store!r} holds the token of {_described(record.whose)}, not of "
                f"{_described(self._grant.whose)}. Nothing was used or overwritten: give each its "
                "own store, or share one TokenKeeper if they are meant to share the token."
            )


def _version(tag: str | None) -> int:
    version = (tag or "").partition("-")[0]
    return int(version) if version.isdecimal() else 0


def _described(whose: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in whose.items()) or "an unnamed source"
