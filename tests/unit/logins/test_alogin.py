"""A login for an event loop: the task that waits for it may be cancelled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tokenadapter import FileStore, RefreshToken, Token, alogin
from tokenadapter.testing import Browser, TokenServer

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "asyncio":
        return lambda work: asyncio.run(work())  # type: ignore[arg-type]
    return trio.run


def options(server: TokenServer, flow: str, browser: Any = None) -> dict[str, Any]:
    return {
        "flow": flow,
        "authorization_url": server.authorization_url,
        "device_authorization_url": server.device_authorization_url,
        "browser": browser,
        "show": lambda text: None,
    }


def test_the_event_loop_goes_on_while_the_user_logs_in(
    run: Run, source: RefreshToken, store: FileStore, server: TokenServer
) -> None:
    browser = Browser()
    loop = threading.get_ident()
    opened_in: list[int] = []

    def open_url(url: str) -> None:
        opened_in.append(threading.get_ident())
        browser(url)

    token: Token = run(lambda: alogin(source, store, **options(server, "browser", open_url)))
    browser.join()
    assert token.refresh_token
    assert loop not in opened_in


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
