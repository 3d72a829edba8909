"""What the keeper and its sources and stores hand each other.

Apart from the protocols, which only people and type checkers read: a start does without them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tokenadapter.value import Value

__all__ = ["Credential", "Document", "Snapshot"]

Document: TypeAlias = dict[str, Any]
"""A JSON object."""


class Credential(Value):
    """Something that a grant can present to obtain a token."""

    kind: str
    """What it is, for people; only ``refresh_token`` has a meaning besides: such a one goes on
    being the refresh token if the answer brings no new one (RFC 6749 section 6)."""
    secret: str
    """What is presented.  It is only ever compared by its hash."""
    single_use: bool = False
    """Whether presenting it may spend it, as a rotated refresh token is (RFC 9700 section
    4.14.2): it is never presented again but after an answer that was lost."""
    first: bool = False
    """Whether it comes from the configuration and starts a grant, rather than from the record."""
    refusal_is_final: bool = False
    """Whether it is not presented again once it was refused: a refresh token that is dead, or a
    password, since retries lock accounts.  Other refusals are tried again after a while."""
    opaque: bool = False
    """Whether nobody can tell what is presented, as by a plain function: if it brings a refresh
    token, it counts as having spent one, and is not presented again without that."""

    def __repr__(self) -> str:
        return f"<Credential {self.kind}>"


class Snapshot(Value):
    """What a store held at one moment."""

    document: Document | None
    """``None`` if the slot is empty."""
    tag: str | None
    """Which write this is; ``None`` if the slot is empty."""
    now: float
    """The time by the store's clock (POSIX timestamp in seconds)."""

    def __repr__(self) -> str:
        return f"<Snapshot tag={self.tag!r}>"
