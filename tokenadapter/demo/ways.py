"""Two ways for a process to call an API with a token that is kept in a file."""

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
    """Where everything is."""

    token_url: str
    api_url: str
    file: Path


Note = Callable[[Kind, float], None]
"""Tells that something happened, and when it began, as a POSIX timestamp."""


class Way(NamedTuple):
    """A way to keep the token.

    :ivar log_in: puts the token response of a login into the file, once and for all processes.
    :ivar open: opens the API for one process: each call of what it returns is one request.
    """

    title: str
    log_in: Callable[[Place, Mapping[str, Any]], object]
    open: Callable[[Place, Note], Callable[[], Response]]


# --- with tokenadapter -------------------------------------------------------------------


def _source(place: Place) -> RefreshToken:
    return RefreshToken(place.token_url, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)


def _adopt(place: Place, response: Mapping[str, Any]) -> object:
    return TokenKeeper(_source(place), FileStore(place.file)).adopt(response)


def _open_mounted(place: Place, note: Note) -> Callable[[], Response]:
    def renewed(token: Token) -> None:
        note("renewed", token.issued_at)

    def tell(event: Event) -> None:
        if isinstance(event, Replayed):
            note("replayed", time.time())

    session = requests.Session()
    TokenAdapter(
        place.api_url,
        _source(place),
        store=FileStore(place.file),
        on_refresh=renewed,
        on_event=tell,
    ).mount(session)
    return lambda: session.get(f"{place.api_url}invoices", timeout=TIMEOUT)


# --- as scripts do -----------------------------------------------------------------------


def _write(place: Place, response: Mapping[str, Any]) -> dict[str, Any]:
    token = {**response, "expires_at": time.time() + response["expires_in"]}
    place.file.write_text(json.dumps(token))
    return token


def _open_script(place: Place, note: Note) -> Callable[[], Response]:
    session = requests.Session()

    def refresh(refresh_token: str) -> dict[str, Any]:
        begun = time.time()
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        response = session.post(
            place.token_url, form, auth=(CLIENT_ID, CLIENT_SECRET), timeout=TIMEOUT
        )
        response.raise_for_status()
        token = _write(place, response.json())
        note("renewed", begun)
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
