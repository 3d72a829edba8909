"""Programs that end while they renew in the background.

Each is started on its own: ``python -m endings pool fork``, ``celery -A endings worker``,
``gunicorn endings:wsgi``, ``uvicorn endings:asgi``.  The environment names the API, the token
endpoint, the token file, and for Celery the broker.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import requests

from tokenadapter import FileStore, RefreshToken, TokenAdapter

API = os.environ.get("ENDINGS_API", "")
NUMBERS = range(20)

session: requests.Session


def begin() -> None:
    """Make the session of this process."""
    global session  # noqa: PLW0603
    session = requests.Session()
    source = RefreshToken(
        os.environ["ENDINGS_TOKEN_URL"], client_id="client", client_secret="secret"
    )
    adapter = TokenAdapter(API, source, store=FileStore(os.environ["ENDINGS_STORE"]))
    adapter.mount(session)


def fetch(number: int = 0) -> int:
    """Send a request; the token is stale, so the first request begins a renewal."""
    return session.get(f"{API}invoices/{number}", timeout=30).status_code


# --- pools -------------------------------------------------------------------------------


def pool(method: str, *, package: str = "multiprocessing", **settings: Any) -> None:
    """A pool whose ``with`` block ends it: by SIGTERM to each worker."""
    context = importlib.import_module(package).get_context(method)
    with context.Pool(4, initializer=begin, **settings) as workers:
        assert workers.map(fetch, NUMBERS) == [200] * len(NUMBERS)


def pool_of_parent(method: str) -> None:
    """A pool whose session is created before the workers are forked."""
    begin()
    with importlib.import_module("multiprocessing").get_context(method).Pool(4) as workers:
        assert workers.map(fetch, NUMBERS) == [200] * len(NUMBERS)


def pool_of_threads(method: str) -> None:
    """A pool whose workers use the session in other threads than the main thread."""
    with importlib.import_module("multiprocessing").get_context(method).Pool(4) as workers:
        assert workers.map(fetch_in_thread, NUMBERS) == [200] * len(NUMBERS)


def fetch_in_thread(number: int) -> int:
    answers: list[int] = []

    def work() -> None:
        if "session" not in globals():
            begin()
        answers.append(fetch(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return answers[0]


def executor(method: str) -> None:
    context = importlib.import_module("multiprocessing").get_context(method)
    with ProcessPoolExecutor(4, initializer=begin, mp_context=context) as workers:
        assert list(workers.map(fetch, NUMBERS)) == [200] * len(NUMBERS)


def billiard_pool(method: str) -> None:
    """A pool whose workers end after one task, by ``os._exit()``."""
    context = importlib.import_module("billiard").get_context(method)
    workers = context.Pool(4, initializer=begin, maxtasksperchild=1)
    assert workers.map(fetch, range(6), chunksize=1) == [200] * 6
    workers.close()
    workers.join()


def begin_and_fetch() -> None:
    begin()
    assert fetch() == 200


def billiard_process(method: str) -> None:
    process = (
        importlib.import_module("billiard").get_context(method).Process(target=begin_and_fetch)
    )
    process.start()
    process.join()
    assert process.exitcode == 0


# --- scripts -----------------------------------------------------------------------------


def script() -> None:
    """A script that a signal ends."""
    begin_and_fetch()
    threading.Event().wait()


def leave() -> None:
    """A script that exits at once."""
    begin_and_fetch()
    assert session.get_adapter(API).keeper.wait(30)
    os._exit(0)


# --- servers -----------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    answer = fetch()
    start_response(f"{answer} -", [("Content-Length", "0")])
    return []


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    answer = await asyncio.to_thread(fetch if scope["path"] == "/" else fetch_late)
    await send({"type": "http.response.start", "status": answer, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def fetch_late() -> int:
    """Send a request after uvicorn was told to shut down."""
    print("late", flush=True)  # noqa: T201 - the test reads it
    while not signal.getsignal(signal.SIGTERM).__self__.should_exit:
        time.sleep(0.001)
    return fetch()


def uvicorn_of_program(port: str) -> None:
    """A program that creates the session before uvicorn installs its signal handlers."""
    import uvicorn

    begin()
    uvicorn.run(asgi, port=int(port), log_level="warning")


# --- Celery ------------------------------------------------------------------------------

if "ENDINGS_BROKER" in os.environ:
    from celery import Celery

    app = Celery("endings", broker=os.environ["ENDINGS_BROKER"])
    app.conf.worker_hijack_root_logger = False

    @app.task
    def task() -> int:
        return fetch()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
elif __name__ == "endings":
    begin()
