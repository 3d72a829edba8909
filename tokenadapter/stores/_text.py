"""A record as text: JSON that a person can read, and that says what it is."""

from __future__ import annotations

import json

from tokenadapter.stores._system import Refused
from tokenadapter.values import Document, one_line

__all__ = ["FORMAT", "LIMIT", "decode", "encode", "understood"]

LIMIT = 1 << 20
"""The most bytes that a record may have."""

FORMAT = "tokenadapter/1"
"""What says of a text that it is a record, and of which kind."""


def encode(document: Document, tag: str) -> bytes:
    """The text of a record.

    :raises Refused: if it is too long.
    """
    record = {"format": FORMAT, "tag": tag, "document": document}
    content = json.dumps(record, indent=2).encode() + b"\n"
    if len(content) > LIMIT:
        raise Refused(f"the record would have {len(content)} bytes, more than {LIMIT}")
    return content


def decode(content: bytes) -> tuple[Document, str] | None:
    """The document and the tag, or ``None`` if *content* is no record.

    :raises Refused: if it is one that this version cannot read.
    """
    if len(content) > LIMIT:
        return None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return understood(data)


def understood(data: object) -> tuple[Document, str] | None:
    """The document and the tag in what a record's text says.

    :raises Refused: if it is a record that this version cannot read.
    """
    match data:
        case {"format": str(form), "tag": str(tag), "document": dict(document)} if form == FORMAT:
            return document, tag
        case {"format": str(form)} if form.startswith("tokenadapter/") and form != FORMAT:
            form = one_line(form, 50)
            raise Refused(f"a newer tokenadapter wrote it, as {form}: upgrade, or use another path")
    return None
