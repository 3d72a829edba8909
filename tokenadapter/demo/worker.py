"""What each process does: one request after the other, and a word to the stage about each."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from multiprocessing.connection import Connection

from requests import RequestException

from tokenadapter.demo.clients import Place, Way
from tokenadapter.demo.run import Kind, Moment

# Seconds between two requests: few enough for eight processes on two cores.
_PAUSE = 0.01, 0.02


def work(way: Way, place: Place, stage: Connection) -> None:
    """Say that all is ready, hear from when until when to work, and work."""
    # Stderr belongs to the timeline.
    logging.getLogger("tokenadapter").addHandler(logging.NullHandler())
    # Guards the sending: a renewal is told by the thread that does it.
    sending = threading.Lock()
    begin = end = 0.0

    def note(kind: Kind, begun: float) -> None:
        now = time.time()
        with sending:
            stage.send(Moment(now - begin, kind, now - begun))

    get = way.open(place, note)
    with contextlib.suppress(ConnectionError, EOFError):  # the stage is gone
        stage.send(None)
        begin, end = stage.recv()
        while True:
            called = time.time()
            try:
                ok = get().ok
            except (RequestException, ValueError):  # a torn token file is a ValueError
                ok = False
            note("ok" if ok else "failed", called)
            # Looked at last: on a busy machine the time may be over before it is a process's turn.
            if time.time() >= end:
                break
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311
