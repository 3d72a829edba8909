"""Two ways to call an API with a token in a file, and the process that uses one of them."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import requests
from requests import RequestException, Response

from tokenadapter import FileStore, RefreshToken, Token, TokenAdapter, TokenKeeper
from tokenadapter.demo.recording import Kind, Moment
from tokenadapter.events import Event, Replayed

CLIENT_ID, CLIENT_SECRET = "client", "secret"
TIMEOUT = 10
# Seconds between two requests: few enough for eight processes on two cores.
_PAUSE = 0.01, 0.02


class Place(NamedTuple):
    """The server and the token file."""

    token_url: str
    api_url: str
    file: Path


Report = Callable[[Kind, float], None]
"""Reports that something happened, and when it began, as a POSIX timestamp."""


class Way(NamedTuple):
    """A way to store and use the token.

    :ivar log_in: writes the token response of a login into the file, once for all processes.
    :ivar open: returns a function for one process: each call of it sends one request.
    """

    title: str
    log_in: Callable[[Place, Mapping[str, Any]], object]
    open: Callable[[Place, Report], Callable[[], Response]]


# --- with tokenadapter -------------------------------------------------------------------


def _source(place: Place) -> RefreshToken:
    return RefreshToken(place.token_url, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)


def _adopt(place: Place, response: Mapping[str, Any]) -> object:
    return TokenKeeper(_source(place), FileStore(place.file)).adopt(response)


def _open_mounted(place: Place, report: Report) -> Callable[[], Response]:
    def renewed(token: Token) -> None:
        report("renewed", token.issued_at)

    def replayed(event: Event) -> None:
        if isinstance(event, Replayed):
            report("replayed", time.time())

    session = requests.Session()
    TokenAdapter(
        place.api_url,
        _source(place),
        store=FileStore(place.file),
        on_refresh=renewed,
        on_event=replayed,
    ).mount(session)
    return lambda: session.get(f"{place.api_url}invoices", timeout=TIMEOUT)


# --- as scripts do -----------------------------------------------------------------------


def _write(place: Place, response: Mapping[str, Any]) -> dict[str, Any]:
    token = {**response, "expires_at": time.time() + response["expires_in"]}
    place.file.write_text(json.dumps(token))
    return token


def _open_script(place: Place, report: Report) -> Callable[[], Response]:
    session = requests.Session()

    def refresh(refresh_token: str) -> dict[str, Any]:
        begun = time.time()
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        response = session.post(
            place.token_url, form, auth=(CLIENT_ID, CLIENT_SECRET), timeout=TIMEOUT
        )
        response.raise_for_status()
        token = _write(place, response.json())
        report("renewed", begun)
        return token

    def get() -> Response:
        token = json.loads(place.file.read_text())
        if time.time() >= token["expires_at"]:
            token = refresh(token["refresh_token"])
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        return session.get(f"{place.api_url}invoices", headers=headers, timeout=TIMEOUT)

    return get


WITH_TOKENADAPTER = Way("with tokenadapter", _adopt, _open_mounted)
AS_SCRIPTS_DO = Way("as scripts do", _write, _open_script)


# --- a process -----------------------------------------------------------------------------


def work(way: Way, place: Place, scenario: Connection) -> None:
    """Report ready, receive when to start and to stop, and send requests in between."""
    # Standard error belongs to the timeline.
    logging.getLogger("tokenadapter").addHandler(logging.NullHandler())
    # Guards the pipe: the thread that renews reports the renewal.
    sending = threading.Lock()
    begin = end = 0.0

    def report(kind: Kind, begun: float) -> None:
        now = time.time()
        with sending:
            scenario.send(Moment(now - begin, kind, now - begun))

    get = way.open(place, report)
    with contextlib.suppress(ConnectionError, EOFError):  # the parent has gone
        scenario.send(None)
        begin, end = scenario.recv()
        while True:
            called = time.time()
            try:
                ok = get().ok
            except (RequestException, ValueError):  # a torn token file is a ValueError
                ok = False
            report("ok" if ok else "failed", called)
            # Checked last: on a busy machine the time may be over before a process gets to run.
            if time.time() >= end:
                break
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311
