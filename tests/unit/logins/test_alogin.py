"""A login for an event loop: the task that waits for it may be cancelled."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from tokenadapter import (
    FileStore,
    LockTimeout,
    MemoryStore,
    RefreshToken,
    Token,
    TokenKeeper,
    alogin,
    login,
)
from tokenadapter.testing import Browser, TokenServer

MAX_WAIT = 30.0


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(device_interval=0.01) as server:
        yield server


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def options(server: TokenServer, flow: str, browser: Any = None) -> dict[str, Any]:
    return {
        "flow": flow,
        "authorization_url": server.authorization_url,
        "device_authorization_url": server.device_authorization_url,
        "browser": browser,
        "show": lambda text: None,
    }


def test_the_event_loop_goes_on_while_the_user_logs_in(
    backend: str, source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    browser = Browser()
    opened, went_on = threading.Event(), threading.Event()

    def open_url(url: str) -> None:
        opened.set()
        if went_on.wait(MAX_WAIT):
            browser(url)

    async def tick() -> None:
        while not opened.is_set():
            await anyio.sleep(0.01)
        went_on.set()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            how = options(server, "browser", open_url)
            assert (await alogin(source, store, timeout=MAX_WAIT, **how)).refresh_token

    anyio.run(main, backend=backend)
    browser.join()


@pytest.mark.parametrize("flow", ["browser", "device"])
def test_a_login_whose_task_is_cancelled_ends_and_another_can_begin(
    flow: str, source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    async def main() -> Token:
        shown = asyncio.Event()
        loop = asyncio.get_running_loop()
        how = options(server, flow, lambda url: None)
        how["show"] = lambda text: loop.call_soon_threadsafe(shown.set)
        task = asyncio.ensure_future(alogin(source, store, **how))
        await shown.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        browser = Browser()
        try:
            return await alogin(source, store, **options(server, "browser", browser))
        finally:
            browser.join()

    assert asyncio.run(main()).refresh_token


@pytest.mark.parametrize("keeps", ["file", "memory"])
@pytest.mark.parametrize("flow", ["browser", "device"])
def test_a_login_that_is_cancelled_while_its_token_arrives_does_not_store_it(
    backend: str, flow: str, keeps: str, source: RefreshToken, store: Any, server: TokenServer
) -> None:
    """The task leaves at once.  The next login waits for the request, and uses the same port."""
    if keeps == "memory":
        store = MemoryStore()
    browser, shown = Browser(), []
    with socket.create_server(("127.0.0.1", 0)) as unused:
        redirect_uri = f"http://127.0.0.1:{unused.getsockname()[1]}/"

    async def log_in(flow: str, show: Any, open_url: Any) -> None:
        how = options(server, flow, open_url) | {"show": show, "redirect_uri": redirect_uri}
        await alogin(source, store, timeout=MAX_WAIT, **how)

    def approve(text: str) -> None:
        if flow == "device":
            server.approve_device()

    def open_next(url: str) -> None:
        shown.append((store.load().document or {}).get("token"))
        browser(url)

    async def main() -> None:
        with server.hold(processed=True) as hold:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log_in, flow, approve, browser)
                while not hold.arrived.is_set():
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log_in, "browser", shown.append, open_next)
                await anyio.sleep(0.1)
                assert shown == []
                hold.release()

    anyio.run(main, backend=backend)
    browser.join()
    text, stored_before = shown
    assert text.startswith("Log in with the browser")
    assert stored_before is None
    assert (store.load().document or {})["token"]


def test_a_login_waits_for_one_that_was_given_up_until_its_time_is_over(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    shown, go_on = threading.Event(), threading.Event()

    def block(text: str) -> None:
        shown.set()
        go_on.wait(MAX_WAIT)

    async def main() -> None:
        how = options(server, "device") | {"show": block}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(alogin, source, store, **how))
            while not shown.is_set():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    try:
        asyncio.run(main())
        with pytest.raises(LockTimeout, match=r"Another login for .* has been under way"):
            login(source, store, timeout=0.1, **options(server, "device"))
    finally:
        go_on.set()


def test_a_keeper_without_threads_is_refused(source: RefreshToken, server: TokenServer) -> None:
    keeper = TokenKeeper(source, MemoryStore(), inline=True)
    with pytest.raises(ValueError, match=r"alogin\(\) needs a helper thread"):
        asyncio.run(alogin(keeper, **options(server, "device")))


PROGRAM = """
import asyncio, os, signal, sys
from tokenadapter import RefreshToken, alogin

def interrupt(url):
    os.kill(os.getpid(), signal.SIGINT)

source = RefreshToken(sys.argv[1], client_id="client", client_secret="secret")
asyncio.run(
    alogin(source, sys.argv[3], authorization_url=sys.argv[2], browser=interrupt, flow="browser")
)
"""


def test_ctrl_c_ends_a_program_that_waits_for_its_user(server: TokenServer, tmp_path: Path) -> None:
    arguments = [server.token_url, server.authorization_url, str(tmp_path / "token.json")]
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60
    )
    assert "KeyboardInterrupt" in program.stderr
    assert server.stats.token_requests == 0


def test_a_login_by_paste_is_refused(
    source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    with pytest.raises(ValueError, match="cannot be cancelled"):
        asyncio.run(alogin(source, store, **options(server, "paste")))


def test_a_misspelt_argument_is_named(source: RefreshToken, store: FileStore) -> None:
    with pytest.raises(TypeError, match=r"alogin\(\) takes no argument 'flo'. Did you mean 'flow'"):
        asyncio.run(alogin(source, store, flo="device"))  # type: ignore[call-arg]
