"""Tells what happens: to the listener, to the log, and to the counters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import logging

    from tokenadapter import events
    from tokenadapter.events import Event
else:
    events = late("tokenadapter.events")
    logging = late("logging")

__all__ = ["Journal"]


class Journal:
    """Where a keeper and its faces report events.

    :param listener: called with each event, in the thread in which it happens.  What it raises
        is logged: a listener that fails must not cost anyone a token.
    """

    def __init__(self, listener: Callable[[Event], object] | None = None) -> None:
        self.listener = listener
        self._counts: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        # Guards _counts.  Re-entrant, since a signal handler may count in mid-count.
        self._lock = threading.RLock()

    def emit(self, name: str, *, is_raised: bool = False, **fields: Any) -> None:
        """An event of the class *name* of :mod:`tokenadapter.events` happened.

        :param is_raised: whether a caller gets an error that says the same.  Then the log has the
            event at level DEBUG only: the program logs what it catches.
        """
        event: Event = getattr(events, name)(**fields)
        self._count(name)
        self.write(event, logging.DEBUG if is_raised else event.level)
        if self.listener is not None:
            try:
                self.listener(event)
            except Exception as error:  # noqa: BLE001 - it is the program's, and told
                log, raised = logging.getLogger("tokenadapter"), type(error).__name__
                log.log(
                    logging.ERROR, "on_event raised %s (traceback at DEBUG) for: %s", raised, event
                )
                self.trace("on_event raised", error)

    def write(self, event: Event, level: int) -> None:
        """Put *event* where people read it: into the log."""
        logging.getLogger("tokenadapter").log(level, "%s", event)

    def count(self, name: str, **fields: Any) -> None:
        """As :meth:`tell`, of an event below the level WARNING: where nobody hears of those, it is
        counted, and no more is paid for it."""
        log = logging.getLogger("tokenadapter")
        if self.listener is None and not log.isEnabledFor(logging.INFO):
            self._count(name)
        else:
            self.emit(name, **fields)

    def emit_once(self, name: str, about: str = "", **fields: Any) -> None:
        """As :meth:`tell`, but not again after the first time.

        :param about: what the event is about, where it is told once of each.
        """
        if (name, about) not in self._told:
            self._told.add((name, about))
            self.emit(name, **fields)

    def trace(self, what: str, error: Exception) -> None:
        """Log at level DEBUG the traceback of what code of the program raised."""
        logging.getLogger("tokenadapter").debug("%s", what, exc_info=error)

    def reset(self) -> None:
        """Be usable in a forked child, whatever the parent's threads held."""
        self._lock = threading.RLock()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each event happened: its class name, and a number."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
