"""What a renewal is for, and what comes of it."""

# No "from __future__ import annotations" here: of a NamedTuple, each annotation would be compiled
# from its text, and cron pays for that at every start.

from typing import NamedTuple

from tokenadapter.token import Token

__all__ = ["Need", "Outcome"]


class Need(NamedTuple):
    """What a renewal is for."""

    rejected: Token | None = None
    """A token that the API refused; ``None`` where the one in hand is only old."""
    fresh: bool = False
    """Whether a token that is stale will not do."""
    waits: bool = True
    """Whether somebody waits for it: if not, others' renewals are left to them."""


class Outcome(NamedTuple):
    """What came of a renewal."""

    token: Token
    is_new: bool
    """Whether it was minted since the renewal was begun, by this process or another: if it is
    refused, the next one would be refused too."""
    minted: bool = False
    """Whether this very process minted it."""
    distrusted: bool = False
    """Whether it was refused when it was new: for a while, nobody renews it for a refusal."""
