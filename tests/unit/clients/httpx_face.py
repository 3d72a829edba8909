"""Clients of httpx and httpx2, used in one way by the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import httpx
import httpx2
import trio

LIBRARIES = {"httpx": httpx, "httpx2": httpx2}


class Face:
    """A client of a library that blocks, or one of an event loop: used in one way."""

    def __init__(self, library: ModuleType, kind: str) -> None:
        self.library: Any = library
        self.is_async = kind != "sync"
        self._kind = kind
        self._runner = asyncio.Runner() if kind == "asyncio" else None
        self._clients: list[Any] = []

    def client(self, auth: Any, **settings: Any) -> Callable[..., Any]:
        """The ``request`` method of a new client."""
        if self._kind == "trio":
            return partial(self._in_trio, auth, settings)
        kind = self.library.AsyncClient if self.is_async else self.library.Client
        client = kind(auth=auth, **settings)
        self._clients.append(client)
        if self._runner is None:
            return client.request
        return lambda *args, **how: self.run(client.request(*args, **how))

    def _in_trio(self, auth: Any, settings: Any, *args: Any, **how: Any) -> Any:
        async def ask() -> Any:
            async with self.library.AsyncClient(auth=auth, **settings) as client:
                return await client.request(*args, **how)

        return trio.run(ask)

    def run(self, work: Any) -> Any:
        assert self._runner is not None
        return self._runner.run(work)

    def close(self) -> None:
        for client in self._clients:
            if self.is_async:
                self.run(client.aclose())
            else:
                client.close()
        if self._runner is not None:
            self._runner.close()
