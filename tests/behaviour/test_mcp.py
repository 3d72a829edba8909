"""Clients of MCP with tokens that live for 2 seconds: the real package, server and client.

``tox -e sdks`` installs it; elsewhere, these tests are skipped.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import urllib3
import uvicorn
from unit.stores.servers import free_port

from tokenadapter import ApiUser, FileStore, TokenAuth, login
from tokenadapter.testing import Browser, TokenServer

if "SDKS" not in os.environ:
    pytest.skip("tox -e sdks installs what it needs", allow_module_level=True)

import agents.mcp
import fastmcp
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.auth import OAuthClientProvider
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

EXPIRIES = 3


class Verifier:
    """Asks the API of the token server whether it accepts a token."""

    def __init__(self, server: TokenServer) -> None:
        self._server = server
        self._pool = urllib3.PoolManager()
        self.asked: set[str] = set()
        self.accepted: set[str] = set()

    async def verify_token(self, token: str) -> AccessToken | None:
        self.asked.add(token)
        headers = {"Authorization": f"Bearer {token}"}
        # The event loop waits for this machine.
        answer = self._pool.request("GET", self._server.api_url, headers=headers)
        if answer.status != 200:
            return None
        self.accepted.add(token)
        return AccessToken(token=token, client_id="client", scopes=[])

    def close(self) -> None:
        self._pool.clear()


@contextmanager
def shop(server: TokenServer, verifier: Verifier) -> Iterator[str]:
    """An MCP server whose tools need a token; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    settings = AuthSettings(
        issuer_url=server.issuer, resource_server_url=url, validate_token_resource=False
    )
    mcp = MCPServer("shop", token_verifier=verifier, auth=settings)

    @mcp.tool()
    def price(item: str) -> str:
        """What an item costs."""
        return f"{len(item)} coins"

    config = uvicorn.Config(mcp.streamable_http_app(), port=port, log_level="error", ws="none")
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        while not runner.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield url
    finally:
        runner.should_exit = True
        thread.join()
        verifier.close()


# Reads lines: after each, it calls a tool four times at once, on one connection.
CLIENT = """
import asyncio, sys
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tokenadapter import ApiUser, FileStore, TokenAuth

url, store = sys.argv[1:]
auth = TokenAuth(url, ApiUser(url), store=FileStore(store))

async def main():
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(auth=auth, timeout=timeout) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            while await asyncio.to_thread(sys.stdin.readline):
                calls = [client.call_tool("price", {"item": "x" * n}) for n in range(4)]
                results = await asyncio.gather(*calls)
                print([result.content[0].text for result in results], flush=True)

asyncio.run(main())
"""
PRICES = f"{[f'{n} coins' for n in range(4)]}\n"


@contextmanager
def client(url: str, store: Path) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, url, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.communicate(timeout=30)
        assert program.returncode == 0


def ask(*programs: subprocess.Popen) -> None:
    """Each program calls its tools, all at the same time."""
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    assert [program.stdout.readline() for program in programs] == [PRICES] * len(programs)


@pytest.mark.timeout(300)
def test_processes_and_parallel_calls_renew_once_per_expiry_and_a_restart_needs_no_login(
    tmp_path: Path,
) -> None:
    with TokenServer(lifetime=2) as server:
        verifier = Verifier(server)
        store = tmp_path / "token.json"
        with shop(server, verifier) as url:
            first = login(ApiUser(url), FileStore(store), browser=Browser(), show=lambda text: None)
            with client(url, store) as one, client(url, store) as two, client(url, store) as three:
                while server.stats.refreshes <= EXPIRIES:
                    ask(one, two, three)
            stats = server.stats
            # Each renewal brought the token that all of them used next.
            renewed = verifier.accepted - {first.access_token}
            assert stats.refreshes - 1 <= len(renewed) <= stats.refreshes
            time.sleep(2)  # the stored token has expired
            earlier, verifier.asked = verifier.asked, set()
            with client(url, store) as again:
                ask(again)
    # No expired token was sent, and no browser was needed.
    assert not earlier & verifier.asked
    assert server.stats.refreshes > stats.refreshes
    assert (server.stats.refusals, server.stats.reuse_detections) == (0, 0)


def test_the_program_of_the_page_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "mcp.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(# agent.py\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    with TokenServer() as server, shop(server, Verifier(server)) as url:
        code = block[1].replace("https://mcp.example.com/mcp", url)
        path = tmp_path / "agent.py"
        path.write_text(code)
        first = """
from tokenadapter import login
from tokenadapter.testing import Browser
import agent
login(agent.source, agent.store, browser=Browser(), show=lambda text: None)
"""
        for program in (first, code):
            done = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.stderr == ""
        assert done.stdout == "3 coins\n4 coins\n"
        (asked,) = [one for one in server.requests if one.path == "/token"]
        assert asked.form["resource"] == url
        assert "code_verifier" in asked.form


def test_clients_of_other_packages_take_the_same_auth(tmp_path: Path) -> None:
    async def by_fastmcp(url: str, auth: TokenAuth) -> str:
        async with fastmcp.Client(StreamableHttpTransport(url, auth=auth)) as client:
            return str((await client.call_tool("price", {"item": "tea"})).content[0].text)

    async def by_agents(url: str, auth: TokenAuth) -> str:
        async with agents.mcp.MCPServerStreamableHttp({"url": url, "auth": auth}) as client:
            return str((await client.call_tool("price", {"item": "tea"})).content[0].text)

    with TokenServer() as server, shop(server, Verifier(server)) as url:
        source, store = ApiUser(url), FileStore(tmp_path / "token.json")
        login(source, store, browser=Browser(), show=lambda text: None)
        for call in (by_fastmcp, by_agents):
            server.expire_now()
            auth = TokenAuth(url, source, store=store)
            assert asyncio.run(call(url, auth)) == "3 coins"
        assert server.stats.refreshes == 2


class Storage:
    """The storage of mcp's own provider, after an earlier process has logged in."""

    def __init__(self, server: TokenServer) -> None:
        self._tokens = OAuthToken(**server.issue())
        self._client = OAuthClientInformationFull(
            client_id="client", client_secret="secret", redirect_uris=["http://127.0.0.1/"]
        )

    async def get_tokens(self) -> OAuthToken:
        return self._tokens

    async def get_client_info(self) -> OAuthClientInformationFull:
        return self._client

    async def set_tokens(self, tokens: OAuthToken) -> None:
        raise AssertionError("it renewed: see what docs/howto/mcp.md says of it")


def test_the_provider_of_mcp_asks_a_person_again_despite_its_refresh_token() -> None:
    class Asked(Exception):
        pass

    async def open_browser(url: str) -> None:
        raise Asked

    async def main(url: str) -> None:
        metadata = OAuthClientMetadata(redirect_uris=["http://127.0.0.1/"])
        provider = OAuthClientProvider(url, metadata, storage, open_browser, open_browser)
        async with httpx2.AsyncClient(auth=provider) as http:
            await http.post(url)

    with TokenServer() as server, shop(server, Verifier(server)) as url:
        storage = Storage(server)
        server.expire_now()
        with pytest.raises(Asked):
            asyncio.run(main(url))
    assert server.stats.refreshes == 0
