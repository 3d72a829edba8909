"""Tells people of what a slot holds that is no record: it was torn, or is somebody else's."""

from __future__ import annotations

import logging

__all__ = ["found", "put_aside", "warn"]


def found(store: object) -> None:
    """Say what becomes of it.  It is told once for each object: every look would meet it."""
    warn(
        "%r is torn or holds something else: it counts as empty until it is saved, and then is put "
        "aside. A token of another library goes into TokenKeeper.adopt().",
        store,
    )


def put_aside(store: object, place: str) -> None:
    """Say where it is now."""
    warn("%r was torn or held something else: that is in %s now", store, place)


def warn(message: str, *args: object) -> None:
    """Warn people about a store."""
    logging.getLogger("tokenadapter.store").warning(message, *args)
