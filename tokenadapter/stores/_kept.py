"""What a program keeps for a store: one JSON object, of which the record is a part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from tokenadapter.stores._text import FORMAT, understood
from tokenadapter.values import Document

__all__ = ["Kept", "Loaded", "kept"]

Loaded: TypeAlias = Mapping[str, Any] | str | bytes | None
"""The object, as a mapping or as JSON text; nothing, or something empty, if there is none yet."""


class Kept(NamedTuple):
    """What the two functions keep."""

    document: Document | None = None
    tag: str | None = None
    notes: tuple[str, ...] = ()
    writer: str | None = None
    """Which process wrote last; ``None`` where there is a lock."""
    aside: str | None = None
    """What was there before and was no record."""
    is_new: bool = False
    """Whether that is still there."""

    def as_text(self) -> str:
        record: dict[str, Any] = {"format": FORMAT}
        for name in ("tag", "document", "notes", "writer", "aside"):
            value = getattr(self, name)
            if value not in (None, ()):
                record[name] = value
        return json.dumps(record)


def kept(data: Loaded) -> Kept:
    """What is in *data*.

    :raises Refused: if a later version wrote it.
    """
    if not data:
        return Kept()
    text = json.dumps(dict(data), default=repr) if isinstance(data, Mapping) else data
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    known = understood(record)
    document, tag = known or (None, None)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        return Kept(aside=text, is_new=True)
    notes = tuple(map(str, record.get("notes", ())))
    return Kept(document, tag, notes, record.get("writer"), record.get("aside"))
