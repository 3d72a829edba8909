"""The work of processes that share a file.  The processes import this module instead of a test, to
avoid the import of pytest, which would take longer than the work."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import requests

from tokenadapter import FileStore, RefreshToken, TokenAdapter

Target = tuple[str, str, str, str]
"""The API, the token endpoint, the first refresh token, and the file."""


def new_adapter(target: Target, **settings: Any) -> TokenAdapter:
    api, token_url, first, path = target
    source = RefreshToken(token_url, first, client_id="client", client_secret="secret")
    return TokenAdapter(api, source, store=FileStore(path), **settings)


def get_after_signal(target: Target, line: Connection) -> None:
    with requests.Session() as session:
        new_adapter(target).mount(session)
        line.send("ready")
        line.recv()
        line.send(session.get(target[0] + "x", timeout=30).status_code)


def together(target: Target, count: int, context: Any) -> list[int]:
    """The status codes that *count* processes get for requests at the same time."""
    lines = []
    workers = []
    for _ in range(count):
        mine, theirs = context.Pipe()
        worker = context.Process(target=get_after_signal, args=(target, theirs))
        worker.start()
        theirs.close()
        lines.append(mine)
        workers.append(worker)
    for line in lines:
        assert line.recv() == "ready"
    for line in lines:
        line.send("go")
    answers = [line.recv() for line in lines]
    for worker, line in zip(workers, lines, strict=True):
        worker.join()
        line.close()
    return answers
