"""One process of a fleet: sends requests at random times, and reports each to the driver.

The process ends when its standard input ends.  A report is a line ``PID KIND WORD SECONDS``: an
``answer`` is a status, or the reason or type of an error, an ``event`` one of
:mod:`tokenadapter.events`, and a ``point`` one of ``POINTS``.

    python client.py BASE_URL STORE LEASE GRACE PAUSE PAGE SLOT AHEAD

``STORE`` is the URL of a token store, and ``LEASE`` the lease of its locks in seconds, or 0 for the
default.  ``AHEAD`` is the number of seconds by which this process' wall clock is fast.

With ``CHAOS_DPOP`` in the environment, tokens are bound to a key.

``PAUSE`` is the longest time between two requests, in seconds.  Half of the requests are sent at
random times, the others at the same time by all clients, as by cron jobs.  ``PAGE`` is a file that
is mapped into the memory of the driver and all clients.  Each client has one byte: whether the
answer to its own token request is at stake.  The last byte is the point (see ``POINTS``) at which
the next client waits to be killed.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Before any other module reads the clock.
    right_time, ahead = time.time, float(sys.argv[-1])
    time.time = lambda: right_time() + ahead

import requests

from tokenadapter import (
    ReauthRequired,
    RefreshTemporarilyFailed,
    RefreshToken,
    StoreError,
    Token,
    TokenAdapter,
    TokenKeeper,
    store_from_url,
)
from tokenadapter.events import Event, HandedOn
from tokenadapter.protocols import Credential, TokenStore

# Of a public client, refresh tokens are bound too.
CLIENT: dict[str, Any] = (
    {"client_id": "client", "dpop": True}
    if "CHAOS_DPOP" in os.environ
    else {"client_id": "client", "client_secret": "secret"}
)
# The intent is saved but the token request is not sent; the server has answered; the answer is
# saved but not used.  The page counts the points from 1.
POINTS = ["asking", "answered", "saved"]


class Page:
    """The memory that the driver and its clients share."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self._bytes = mmap.mmap(opened.fileno(), 0)

    @classmethod
    def new(cls, file: Path, clients: int) -> Page:
        file.write_bytes(bytes(clients + 1))
        return cls(file)

    def is_at_stake(self, slot: int) -> bool:
        return self._bytes[slot] > 0

    def stake(self, slot: int, at_stake: bool) -> None:
        self._bytes[slot] = at_stake

    @property
    def armed(self) -> str | None:
        number = self._bytes[-1]
        return POINTS[number - 1] if number else None

    def arm(self, point: str | None) -> None:
        self._bytes[-1] = 0 if point is None else POINTS.index(point) + 1

    def close(self) -> None:
        self._bytes.close()


def tell(kind: str, word: str, seconds: float = 0.0) -> None:
    # One write, so that lines of several processes and threads never mix.
    os.write(1, f"{os.getpid()} {kind} {word} {seconds:.4f}\n".encode())


class Client:
    def __init__(self, page: Page, slot: int) -> None:
        self._page = page
        self._slot = slot

    def stake(self, at_stake: bool) -> None:
        self._page.stake(self._slot, at_stake)

    def reach(self, point: str) -> None:
        if self._page.armed == point:
            tell("point", point)
            sys.stdin.read()

    def on_refresh(self, token: Token) -> None:
        self.stake(False)
        self.reach("saved")

    def on_event(self, event: Event) -> None:
        tell("event", type(event).__name__)
        if isinstance(event, HandedOn):
            sys.stderr.write(f"{event}\n")


class StoppingRefreshToken(RefreshToken):
    """Can be stopped before, during and after a token request."""

    client: Client

    def fetch(self, credential: Credential, previous: Token | None) -> Token:
        self.client.reach("asking")
        self.client.stake(True)
        try:
            token = super().fetch(credential, previous)
        except BaseException:
            self.client.stake(False)
            raise
        self.client.reach("answered")
        return token


def open_store(url: str, lease: float) -> TokenStore:
    store = store_from_url(url)
    if lease:
        store.lease = lease  # type: ignore[attr-defined]
    return store


def request(session: requests.Session, url: str) -> None:
    started = time.monotonic()
    try:
        word = str(session.get(url, timeout=30).status_code)
    except ReauthRequired as error:
        word = error.reason
    except RefreshTemporarilyFailed:
        word = RefreshTemporarilyFailed.__name__
    except requests.RequestException as error:
        word = type(error).__name__
        traceback.print_exc()
    tell("answer", word, time.monotonic() - started)


def until_next(pause: float) -> float:
    """The seconds until the next request."""
    return random.choice([random.uniform(0, pause), pause - time.time() % pause])


def main() -> None:
    base, store, lease, grace, pause, page, slot, _ = sys.argv[1:]
    client = Client(Page(Path(page)), int(slot))
    source = StoppingRefreshToken(f"{base}/token", grace=float(grace), **CLIENT)
    source.client = client
    url = f"{base}/api/"
    with requests.Session() as session:
        keeper = TokenKeeper(
            source,
            open_store(store, float(lease)),
            on_refresh=client.on_refresh,
            on_event=client.on_event,
        )
        TokenAdapter(url, keeper).mount(session)
        # The time of a request then has no part in which a database client is imported.
        with suppress(StoreError):
            keeper.store.load()
        while not select.select([0], [], [], until_next(float(pause)))[0]:
            request(session, url)


if __name__ == "__main__":
    main()
