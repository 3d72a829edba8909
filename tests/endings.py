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
import socket
import socketserver
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import requests

from tokenadapter import FileStore, RefreshToken, TokenAdapter, TokenKeeper

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


# --- children that nobody waits for ------------------------------------------------------


def fork() -> None:
    """A child that leaves as soon as its request has returned."""
    child = os.fork()
    if child == 0:
        begin_and_fetch()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def forking_server() -> None:
    """A server that forks for each request.  It forks once."""

    class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
        pass

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            begin_and_fetch()
            self.request.sendall(b"done")

    with Server(("127.0.0.1", 0), Handler) as server:
        client = socket.create_connection(server.server_address)
        server.handle_request()
        assert client.recv(4) == b"done"
        client.close()


def rq(worker: str, job: str, timeout: str) -> None:
    """A worker of RQ, which does one job."""
    import redis
    from rq import Queue
    from rq import worker as workers

    # A worker that unsubscribes at once may wait for ever (RQ 3.0).
    workers.BaseWorker.subscribe = workers.BaseWorker.unsubscribe = lambda worker: None
    connection = redis.Redis.from_url(os.environ["ENDINGS_BROKER"])
    queue = Queue(connection=connection)
    queue.enqueue(f"endings.{job}", job_timeout=int(timeout))
    getattr(workers, worker)([queue], connection=connection).work(burst=True)


def expired() -> int:
    """A job of RQ that has to wait for a token.  Its time may be over sooner."""
    return session.get(f"{API}invoices/1", timeout=1).status_code


async def with_httpx() -> None:
    """A task in a process that is frozen as soon as it has answered."""
    import httpx

    from tokenadapter.clients.httpx import TokenAuth

    source = RefreshToken(
        os.environ["ENDINGS_TOKEN_URL"], client_id="client", client_secret="secret"
    )
    auth = TokenAuth(API, source, store=FileStore(os.environ["ENDINGS_STORE"]))
    async with httpx.AsyncClient(auth=auth) as client:
        assert (await client.get(f"{API}invoices/1")).status_code == 200
    os._exit(0)


async def cancelled() -> None:
    """A task whose time is over before the token comes."""
    source = RefreshToken(
        os.environ["ENDINGS_TOKEN_URL"], client_id="client", client_secret="secret"
    )
    keeper = TokenKeeper(source, FileStore(os.environ["ENDINGS_STORE"]))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await keeper.acurrent()
    os._exit(0)


def frozen(client: str) -> None:
    """A function of a platform that freezes it, here by ending it, when it has answered."""
    if client == "cancelled":
        asyncio.run(cancelled())
    if client == "httpx":
        asyncio.run(with_httpx())
    begin_and_fetch()
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
