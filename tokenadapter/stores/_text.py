"""A record as text: JSON that a person can read, with a format and a tag."""

from __future__ import annotations

import json

from tokenadapter.values import Document, one_line

__all__ = ["FORMAT", "LIMIT", "Refused", "decode", "encode", "understood"]

LIMIT = 1 << 20
"""The most bytes that a record may have."""

FORMAT = "tokenadapter/1"
"""The value of ``format`` in a record's text: it identifies a record and its version."""


class Refused(OSError):
    """Something that a store must not use or write.  The text says why, and what to do."""


def encode(document: Document, tag: str) -> bytes:
    """The text of a record.

    :raises Refused: if the text is longer than ``LIMIT``.
    """
    record = {"format": FORMAT, "tag": tag, "document": document}
    content = json.dumps(record, indent=2).encode() + b"\n"
    if len(content) > LIMIT:
        raise Refused(f"the record would have {len(content)} bytes, more than {LIMIT}")
    return content


def decode(content: bytes) -> tuple[Document, str] | None:
    """The document and the tag, or ``None`` if *content* is not a record.

    :raises Refused: if a newer version wrote the record.
    """
    if len(content) > LIMIT:
        return None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return understood(data)


def understood(data: object) -> tuple[Document, str] | None:
    """The document and the tag in the parsed text of a record; ``None`` if it is not a record.

    :raises Refused: if a newer version wrote the record.
    """
    match data:
        case {"format": str(form), "tag": str(tag), "document": dict(document)} if form == FORMAT:
            return document, tag
        case {"format": str(form)} if form.startswith("tokenadapter/") and form != FORMAT:
            form = one_line(form, 50)
            raise Refused(f"a newer tokenadapter wrote it, as {form}: upgrade, or use another path")
    return None
