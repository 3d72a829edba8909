"""A text in a keyring, whose entries may be too short for it: a head, and the parts that it names.

There are two sets of parts, *a* and *b*.  A new text goes into the set that the head does not
name; then the head is replaced, in one step; then the other set is deleted.  Who reads meanwhile
may find parts that do not fit the head: a digest tells, and the head has moved on by then.  What a
killed writer leaves behind has a known name, and is overwritten or deleted by the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from tokenadapter.stores._system import Refused
from tokenadapter.stores._text import FORMAT

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

__all__ = ["Entries"]

# How often a reader begins again because somebody writes.
_TRIES: Final = 50


class Entries:
    """The entries of one slot.

    :param size: how many characters an entry may have; ``None``: any number.
    """

    def __init__(
        self, backend: KeyringBackend, service: str, username: str, size: int | None
    ) -> None:
        self._backend = backend
        self._service = service
        self._username = username
        self._size = size

    def read(self) -> str | None:
        """The text, or ``None`` if there is none.  A head whose parts are lost is the text.

        :raises Refused: if others write all the time.
        """
        head = self._head()
        for _ in range(_TRIES):
            if head is None or (parts := _parts(head)) is None:
                return head
            text = "".join(self._set(parts["set"]))
            if _digest(text) == parts["sha256"]:
                return text
            head, earlier = self._head(), head
            if head == earlier:
                return head
        raise Refused("others write to it all the time: try again")

    def write(self, text: str, tag: str) -> None:
        """Replace the text.  Only for who holds the lock."""
        if self._size is None or len(text) <= self._size:
            self._backend.set_password(self._service, self._username, text)
            self._delete("a")
            self._delete("b")
            return
        head = self._head()
        parts = None if head is None else _parts(head)
        old, new = ("a", "b") if parts is not None and parts["set"] == "a" else ("b", "a")
        # Beforehand, or the rest of a longer text would be taken for a part of this one.
        self._delete(new)
        for number, start in enumerate(range(0, len(text), self._size)):
            part = text[start : start + self._size]
            self._backend.set_password(self._name(new, number), self._username, part)
        named = {"set": new, "sha256": _digest(text)}
        head = json.dumps({"format": FORMAT, "tag": tag, "parts": named})
        self._backend.set_password(self._service, self._username, head)
        self._delete(old)

    def set_aside(self, name: str) -> None:
        """Keep what the head is now in an entry of another name."""
        head = self._head()
        if head is not None:
            self._backend.set_password(name, self._username, head)

    def _head(self) -> str | None:
        return self._backend.get_password(self._service, self._username)

    def _name(self, letter: str, number: int) -> str:
        return f"{self._service} part {letter}{number + 1}"

    def _set(self, letter: str) -> Iterator[str]:
        for number in count():
            part = self._backend.get_password(self._name(letter, number), self._username)
            if part is None:
                return
            yield part

    def _delete(self, letter: str) -> None:
        # The last first: what is left if this is interrupted is found by its beginning.
        for number in reversed(range(sum(1 for _ in self._set(letter)))):
            self._backend.delete_password(self._name(letter, number), self._username)


def _parts(head: str) -> dict[str, Any] | None:
    """What a head says of its parts; ``None`` if it is the text itself."""
    try:
        data = json.loads(head)
    except (ValueError, RecursionError):
        return None
    match data:
        case {"format": form, "parts": {"set": "a" | "b", "sha256": str()} as parts}:
            return parts if form == FORMAT else None
    return None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
