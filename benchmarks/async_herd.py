"""A herd of tasks

1,000 tasks of one process share a client whose token has expired, and send a request at the same
moment. Then 24 processes of async workers, with 40 tasks each, read the same token file and do so.

The server is the one of the herd of threads. *Threads* is how many more the process has at most
while the tasks run than before. Each client opens 10 connections at most: httpcore takes minutes to
queue 1,000 requests for the 100 that are its default.

httpx-auth knows the user's password here, and logs in again. mcp's provider knows that its token
has expired, as after a login in the same process; it sends one request at a time. Its storage does
not keep when a token expires: the processes find that out by a 401, after which it wants a person
to log in.

The lower bound is the time of plain httpx with a valid token, and 50 ms. Most of it is the queue of
httpcore for its connections, whose cost grows with the square of the requests that wait.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, NamedTuple

import httpx
from contenders import CLIENT, Case
from measuring import Claim, Finding, Table, alone, in_turns
from thread_herd import Herd, ended, span, stage

TASKS, PROCESSES, EACH = 1000, 24, 40
PLAIN, OURS = "plain httpx, valid token", "tokenadapter with httpx"
Get = Callable[[], Awaitable[int]]
TIMEOUT, CONNECTIONS = 120, 10
LIMITS = httpx.Limits(max_connections=CONNECTIONS)


# --- the contenders ----------------------------------------------------------------------------


@asynccontextmanager
async def of_httpx(case: Case, **settings: Any) -> AsyncIterator[Get]:
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS, **settings) as client:

        async def get() -> int:
            return (await client.get(case.api)).status_code

        yield get


def plain(case: Case) -> Any:
    return of_httpx(case, headers={"Authorization": f"Bearer {case.load()['access_token']}"})


def by_hand(case: Case) -> Any:
    class ByHand(httpx.Auth):
        requires_response_body = True
        token = case.load()

        def auth_flow(self, request: httpx.Request) -> Any:
            request.headers["Authorization"] = f"Bearer {self.token['access_token']}"
            answer = yield request
            if answer.status_code != 401:
                return
            form = {"grant_type": "refresh_token", "refresh_token": self.token["refresh_token"]}
            renewed = yield httpx.Request("POST", case.token_url, data={**form, **CLIENT})
            self.token.update(renewed.json())
            case.save(self.token)
            request.headers["Authorization"] = f"Bearer {self.token['access_token']}"
            yield request

    return of_httpx(case, auth=ByHand())


def source(case: Case) -> Any:
    from tokenadapter import RefreshToken

    return RefreshToken(case.token_url, case.load()["refresh_token"], **CLIENT)


def ours_with_httpx(case: Case) -> Any:
    from tokenadapter import TokenAuth

    return of_httpx(case, auth=TokenAuth(case.api, source(case), store=f"{case.path}.store"))


@asynccontextmanager
async def ours_with_aiohttp(case: Case) -> AsyncIterator[Get]:
    import aiohttp

    from tokenadapter import TokenMiddleware

    tokens = TokenMiddleware(case.api, source(case), store=f"{case.path}.store")
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, middlewares=[tokens]) as session:

        async def get() -> int:
            async with session.get(case.api) as answer:
                await answer.read()
                return answer.status

        yield get


@asynccontextmanager
async def authlib(case: Case) -> AsyncIterator[Get]:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    async def update_token(token: Any, refresh_token: Any = None, access_token: Any = None) -> None:
        case.save(token)

    async with AsyncOAuth2Client(
        **CLIENT,
        token=case.load(),
        token_endpoint=case.token_url,
        update_token=update_token,
        timeout=TIMEOUT,
        limits=LIMITS,
    ) as client:

        async def get() -> int:
            return int((await client.get(case.api)).status_code)

        yield get


def httpx_auth(case: Case) -> Any:
    from httpx_auth import OAuth2ResourceOwnerPasswordCredentials

    user = {"username": "user", "password": "password"}
    client = (CLIENT["client_id"], CLIENT["client_secret"])
    auth = OAuth2ResourceOwnerPasswordCredentials(case.token_url, **user, client_auth=client)
    return of_httpx(case, auth=auth)


@asynccontextmanager
async def mcp(case: Case, has_just_expired: bool = False) -> AsyncIterator[Get]:
    import httpx2
    from mcp.client.auth import OAuthClientProvider
    from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

    class Storage:
        async def get_tokens(self) -> OAuthToken:
            kept = ("access_token", "token_type", "refresh_token")
            return OAuthToken(**{name: case.load()[name] for name in kept})

        async def set_tokens(self, tokens: OAuthToken) -> None:
            case.save(tokens.model_dump())

        async def get_client_info(self) -> OAuthClientInformationFull:
            return OAuthClientInformationFull(
                **CLIENT,
                redirect_uris=["http://127.0.0.1:9/"],
                token_endpoint_auth_method="client_secret_post",
            )

        async def set_client_info(self, info: OAuthClientInformationFull) -> None: ...

    async def nobody_is_here(*_: object) -> Any:
        raise PermissionError("it wants a person to log in")

    provider = OAuthClientProvider(
        case.api,
        OAuthClientMetadata(redirect_uris=["http://127.0.0.1:9/"]),
        Storage(),
        nobody_is_here,
        nobody_is_here,
    )
    if has_just_expired:
        await provider._initialize()
        provider.context.token_expiry_time = time.time() - 60
    limits = httpx2.Limits(max_connections=CONNECTIONS)
    async with httpx2.AsyncClient(auth=provider, timeout=TIMEOUT, limits=limits) as client:

        async def get() -> int:
            return (await client.get(case.api)).status_code

        yield get


class Entry(NamedTuple):
    client: Callable[..., Any]
    distribution: str = "tokenadapter"


CONTENDERS = {
    PLAIN: Entry(plain),
    "httpx.Auth by hand": Entry(by_hand),
    OURS: Entry(ours_with_httpx),
    "tokenadapter with aiohttp": Entry(ours_with_aiohttp),
    "Authlib": Entry(authlib, "Authlib"),
    "httpx-auth": Entry(httpx_auth, "httpx-auth"),
    "mcp": Entry(mcp, "mcp"),
}


def here() -> list[str]:
    """The contenders that are installed."""
    found = []
    for name, entry in CONTENDERS.items():
        try:
            version(entry.distribution)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


# --- what each process does --------------------------------------------------------------------


async def work(name: str, case: Case, tasks: int, is_alone: bool) -> None:
    """Say when all is ready, wait for a line, send the requests, and report."""
    settings = {"has_just_expired": True} if name == "mcp" and is_alone else {}
    async with CONTENDERS[name].client(case, **settings) as get:
        print(flush=True)
        sys.stdin.readline()
        before = most = threading.active_count()
        waiting = {asyncio.create_task(_ask(get)) for _ in range(tasks)}
        succeeded = 0
        while waiting:
            most = max(most, threading.active_count())
            done, waiting = await asyncio.wait(waiting, timeout=0.005)
            succeeded += sum(task.result() for task in done)
        print(json.dumps([succeeded, most - before, time.monotonic()]))


async def _ask(get: Get) -> bool:
    try:
        return await get() == 200
    except Exception:  # noqa: BLE001 - each has errors of its own
        return False


class Tasks(NamedTuple):
    """What became of one herd."""

    herd: Herd
    threads: int


def herd(name: str, processes: int, tasks: int) -> Tasks:
    with stage("by_hand", is_valid=name == PLAIN) as (server, case):
        command = [sys.executable, __file__, "--run", name, *case, str(tasks), str(processes)]
        workers = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        began = time.monotonic()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        told = [json.loads(worker.communicate()[0]) for worker in workers]
        succeeded, threads, end = zip(*told, strict=True)
        return Tasks(ended(server, sum(succeeded), max(end) - began), max(threads))


# --- the finding -------------------------------------------------------------------------------


def table(what: str, herds: dict[str, list[Tasks]], size: int) -> Table:
    head = [what, "token requests", "succeeded", "user", "threads", "finished, s"]
    rows = []
    for name, rounds in herds.items():
        is_out = any(one.herd.is_logged_out for one in rounds)
        rows.append(
            [
                name,
                span(one.herd.token_requests for one in rounds),
                f"{span(one.herd.succeeded for one in rounds)} of {size}",
                "logged out" if is_out else "stays logged in",
                span(one.threads for one in rounds),
                f"{median(one.herd.seconds for one in rounds):.1f}",
            ]
        )
    return Table(head, rows)


def claims(herds: dict[str, list[Tasks]], size: int, what: str) -> list[Claim]:
    ours = [one for name in herds if name.startswith("tokenadapter") for one in herds[name]]
    everyone = all(one.herd.succeeded == size for one in ours)
    return [
        Claim(f"{what}: one renewal", all(one.herd.token_requests == 1 for one in ours)),
        Claim(f"{what}: every request succeeds", everyone),
        Claim(f"{what}: at most 2 more threads", all(one.threads <= 2 for one in ours)),
    ]


def measure(quick: bool) -> Finding:
    tasks, processes, each = (20, 2, 5) if quick else (TASKS, PROCESSES, EACH)
    names = [PLAIN, OURS] if quick else here()
    first = in_turns(names, 1, lambda name: herd(name, 1, tasks))
    second = in_turns(names, 1, lambda name: herd(name, processes, each))
    size = processes * each
    return Finding(
        [
            table(f"{tasks:,} tasks", first, tasks),
            table(f"{processes} processes of {each} tasks", second, size),
        ],
        claims=[*claims(first, tasks, "Tasks"), *claims(second, size, "Processes")],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        name, *rest = sys.argv[2:]
        asyncio.run(work(name, Case(*rest[:3]), int(rest[3]), rest[4] == "1"))
    else:
        alone(measure)
