"""Reports events to the listener, to the log, and to the counters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import logging
    from contextvars import Context

    from tokenadapter import events
    from tokenadapter.events import Event
    from tokenadapter.protocols import TokenStore
else:
    events = late("tokenadapter.events")
    logging = late("logging")

__all__ = ["Journal"]


class Journal:
    """Takes the events of a keeper and its clients.

    :param store: the keeper's store, which every event names.
    :param listener: called with each event, in the thread in which the event happens.  An exception
        that it raises is only logged, so that a failing listener costs no request.
    """

    def __init__(
        self, store: TokenStore, listener: Callable[[Event], object] | None = None
    ) -> None:
        self.store = store
        self.listener = listener
        self._counts: dict[str, int] = {}
        self._emitted: set[tuple[str, str]] = set()
        # Guards _counts.  Re-entrant, since a signal handler may interrupt a count.
        self._lock = threading.RLock()
        self._caller = threading.local()

    @contextmanager
    def on_behalf_of(self, context: Context | None) -> Iterator[None]:
        """Report the events of this thread in the context of the caller that waits for it.

        Traces and structured logs then show to which request an event belongs.
        """
        before = getattr(self._caller, "context", None)
        self._caller.context = context
        try:
            yield
        finally:
            self._caller.context = before

    def emit(self, name: str, *, is_raised: bool = False, **fields: Any) -> None:
        """Report an event of the class *name* of :mod:`tokenadapter.events`.

        :param is_raised: whether a caller gets an error with the same message.  Then the event is
            logged at level DEBUG, since the program logs the errors that it catches.
        """
        event: Event = getattr(events, name)(**fields, store=self.shown_store())
        self._count(name)
        level = logging.DEBUG if is_raised else event.level
        context: Context | None = getattr(self._caller, "context", None)
        if context is None:
            self._report(event, level)
        else:
            # A copy: this may be a call within the context, which cannot be entered twice.
            context.copy().run(self._report, event, level)

    def _report(self, event: Event, level: int) -> None:
        self.write(event, level)
        if self.listener is not None:
            try:
                self.listener(event)
            except Exception as error:  # noqa: BLE001 - a callback may raise anything
                log, raised = logging.getLogger("tokenadapter"), type(error).__name__
                log.log(
                    logging.ERROR, "on_event raised %s (traceback at DEBUG) for: %s", raised, event
                )
                self.trace("on_event raised", error)

    def write(self, event: Event, level: int) -> None:
        """Write *event* to the log."""
        logging.getLogger("tokenadapter").log(level, "%s", event)

    def count(self, name: str, **fields: Any) -> None:
        """Like :meth:`emit`, for an event below the level WARNING: without a listener or a log for
        it, the event is only counted, which is cheap."""
        log = logging.getLogger("tokenadapter")
        if self.listener is None and not log.isEnabledFor(logging.INFO):
            self._count(name)
        else:
            self.emit(name, **fields)

    def emit_once(self, name: str, about: str = "", **fields: Any) -> None:
        """Like :meth:`emit`, but only once.

        :param about: the subject of the event, if it is emitted once for each subject.
        """
        if (name, about) not in self._emitted:
            self._emitted.add((name, about))
            self.emit(name, **fields)

    def trace(self, what: str, error: BaseException) -> None:
        """Log, at level DEBUG, the traceback of an exception that code of the program raised."""
        log = logging.getLogger("tokenadapter")
        log.debug("%s [%s]", what, self.shown_store(), exc_info=error)

    def reset(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may have held it."""
        self._lock = threading.RLock()

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each event happened, by its class name."""
        with self._lock:
            return dict(self._counts)

    def shown_store(self) -> str:
        """The store as a text."""
        try:
            return repr(self.store)
        except Exception:  # noqa: BLE001 - the code of a program's own store may raise anything
            return object.__repr__(self.store)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
