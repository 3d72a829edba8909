"""The package's log on standard error, at the level that ``--verbose`` and ``--debug`` name."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["begin_log"]


def begin_log(level: str, clean: Callable[[str], str] = str) -> None:
    """Write the log of ``tokenadapter`` from *level* on to standard error, tracebacks included.

    :param level: ``INFO`` or ``DEBUG``.
    :param clean: makes a text fit for a terminal.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(clean))
    log = logging.getLogger("tokenadapter")
    log.addHandler(handler)
    log.setLevel(level)


class _Formatter(logging.Formatter):
    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__("tokenadapter: %(message)s")
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        return self._clean(super().format(record))
