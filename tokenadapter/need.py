"""What a renewal is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.interchange import Value

if TYPE_CHECKING:
    from tokenadapter.token import Token

__all__ = ["Need"]


class Need(Value):
    """What a renewal is for."""

    rejected: Token | None = None
    """A token that the API refused; ``None`` where the one in hand is only old."""
    fresh: bool = False
    """Whether a token that is stale will not do."""
    min_validity: float = 0.0
    """For how many more seconds it shall live, if tokens like it do (see :class:`Hand`)."""
    waits: bool = True
    """Whether somebody waits for it: if not, others' renewals are left to them."""
    since: float | None = None
    """Since when they wait, by the monotonic clock, if that was before the renewal."""
