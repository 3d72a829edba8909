"""Which objects are token sources, and which credential a function is assumed to present."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import sniffio
from doubles import Authority

from tokenadapter import (
    MemoryStore,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    StoreError,
    TokenError,
)
from tokenadapter.core.function_grant import FunctionGrant, function_grant
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.protocols import Grant
from tokenadapter.testing import TokenServer
from tokenadapter.token import Token
from tokenadapter.values import Credential


def obtain(previous: Token | None) -> str:
    return f"after {previous and previous.access_token}"


def test_a_callable_grant_is_used_as_a_grant() -> None:
    class Both(Authority):
        def __call__(self, previous: Token | None) -> str:
            raise AssertionError

    for grant in (Authority(), Both()):
        assert TokenKeeper(grant).grant is grant


def test_a_function_becomes_a_grant_with_the_given_owner() -> None:
    grant = function_grant(obtain, {"user": "me"})
    assert isinstance(grant, Grant)
    assert grant.owner == {"user": "me"}
    assert (grant.requested, grant.urls, grant.grace) == ({}, (), 0)
    assert grant.deadline > 0


@pytest.mark.parametrize("source", ["s3cr3t", None, {"access_token": "s3cr3t"}])
def test_a_source_of_another_type_is_refused(source: Any) -> None:
    kind = type(source).__name__
    with pytest.raises(TypeError, match=f"that returns a token, not of type {kind}$"):
        function_grant(source, {})


def test_a_function_is_given_the_previous_token() -> None:
    grant = FunctionGrant(obtain, {})
    [credential] = grant.credentials(None)
    assert grant.fetch(credential, None) == "after None"
    assert grant.fetch(credential, Token("abc")) == "after abc"


@pytest.mark.parametrize("previous", [None, Token("abc")])
def test_a_function_without_a_refresh_token_spends_nothing(previous: Token | None) -> None:
    [credential] = FunctionGrant(obtain, {}).credentials(previous)
    assert credential == Credential("function", "", opaque=True)


@pytest.mark.parametrize(
    "answer",
    [{"access_token": "abc", "refresh_token": "def"}, Token("abc", refresh_token="def")],
    ids=["mapping", "token"],
)
def test_a_function_that_has_returned_a_refresh_token_counts_as_spending(answer: Any) -> None:
    grant = FunctionGrant(lambda previous: answer, {})
    grant.fetch(*grant.credentials(None), None)
    [credential] = grant.credentials(None)
    assert credential == Credential("function", "", single_use=True, opaque=True)


def test_a_function_that_was_given_a_refresh_token_counts_as_spending() -> None:
    grant = FunctionGrant(obtain, {})
    grant.credentials(Token("abc", refresh_token="def"))
    assert grant.credentials(None)[0].single_use


def test_a_function_is_taken_to_spend_the_refresh_token() -> None:
    [credential] = FunctionGrant(obtain, {}).credentials(Token("abc", refresh_token="def"))
    assert credential == Credential("refresh_token", "def", single_use=True)


class Source:
    """A function that fails until its bug is fixed."""

    def __init__(self, fault: Any) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, previous: Token | None) -> Any:
        self.calls += 1
        if isinstance(self.fault, BaseException):
            raise self.fault
        return self.fault


MISTAKES = [
    TypeError("s3cr3t"),
    AttributeError("s3cr3t"),
    NameError("s3cr3t"),
    ModuleNotFoundError("s3cr3t"),
    SyntaxError("s3cr3t"),
    5,
]


@pytest.mark.parametrize("fault", MISTAKES, ids=repr)
def test_a_bug_in_a_function_causes_no_backoff(fault: Any, tmp_path: Path) -> None:
    source, store = Source(fault), f"file:{tmp_path}/token.json"
    keeper = TokenKeeper(source, store)
    for _ in range(2):
        with pytest.raises(RefreshConfigError) as caught:
            keeper.current()
        assert caught.value.is_local
        assert "s3cr3t" not in str(caught.value)
    assert source.calls == 2
    source.fault = "corrected"
    assert TokenKeeper(source, store).current().access_token == "corrected"


@pytest.mark.parametrize(
    "fault",
    [
        OSError("down"),
        KeyError("access_token"),
        ValueError("no JSON"),
        AssertionError(),
        {"error": "busy"},
    ],
    ids=repr,
)
def test_errors_caused_by_an_outage_are_not_treated_as_bugs(fault: Any, tmp_path: Path) -> None:
    source = Source(fault)
    keeper = TokenKeeper(source, f"file:{tmp_path}/token.json")
    for _ in range(2):
        with pytest.raises(TokenError):
            keeper.current()
    assert source.calls == 1


def test_after_a_bug_the_outcome_of_the_presentation_is_unknown(
    tmp_path: Path,
) -> None:
    """It is presented again, without waiting for an answer."""
    source = Source({"access_token": "a", "refresh_token": "r", "expires_in": 3600})
    keeper = TokenKeeper(source, f"file:{tmp_path}/token.json")
    first = keeper.current()
    source.fault = TypeError()
    with pytest.raises(RefreshConfigError):
        keeper.renew(first)
    intent = (keeper.store.load().document or {})["intent"]
    assert (intent["attempt"], intent["awaited"]) == (1, [])
    source.fault = {"access_token": "b", "refresh_token": "s", "expires_in": 3600}
    assert keeper.renew(first).access_token == "b"
    assert "intent" not in (keeper.store.load().document or {})


@pytest.mark.parametrize("kind", [asyncio.CancelledError, concurrent.futures.CancelledError])
def test_the_cancellation_of_a_function_concerns_only_its_caller(
    kind: type[BaseException], tmp_path: Path
) -> None:
    source = Source({"access_token": "a", "refresh_token": "r", "expires_in": 3600})
    store = f"file:{tmp_path}/token.json"
    keeper = TokenKeeper(source, store)
    first = keeper.current()
    source.fault = kind("s3cr3t")
    for _ in range(2):
        with pytest.raises(RefreshTemporarilyFailed, match=f"raised {kind.__name__}") as caught:
            keeper.renew(first)
        assert (caught.value.is_local, caught.value.retry_at) == (True, None)
        assert isinstance(caught.value.__cause__, kind)
    document = keeper.store.load().document or {}
    assert "backoff" not in document
    assert document["intent"]["awaited"] == []  # the answer may be lost, and nobody waits for it
    source.fault = {"access_token": "b", "refresh_token": "s", "expires_in": 3600}
    assert TokenKeeper(source, store).renew(first).access_token == "b"


# --- coroutine functions -----------------------------------------------------------------------


async def obtain_later(previous: Token | None) -> dict[str, object]:
    await asyncio.sleep(0)
    number = int(previous.access_token) + 1 if previous else 1
    return {"access_token": f"{number}", "refresh_token": f"r{number}", "expires_in": 3600}


class Later:
    async def __call__(self) -> str:
        return "1"


def obtain_awaitable(previous: Token | None) -> Any:
    return obtain_later(previous)


@pytest.mark.parametrize("source", [obtain_later, obtain_awaitable, Later(), Later().__call__])
def test_a_coroutine_function_is_a_source(source: Any) -> None:
    assert TokenKeeper(source).current().access_token == "1"


def test_each_renewal_by_a_coroutine_function_has_an_event_loop_of_its_own() -> None:
    loops = []
    callers: ContextVar[str] = ContextVar("callers")

    async def source(previous: Token | None) -> object:
        loops.append((asyncio.get_running_loop(), threading.current_thread(), callers.get()))
        return await obtain_later(previous)

    async def main() -> None:
        callers.set("mine")
        keeper = TokenKeeper(source)  # type: ignore[arg-type]
        first = await keeper.acurrent()
        assert keeper.grant.credentials(first)[0].secret == "r1"
        assert (await keeper.arenew(first)).refresh_token == "r2"
        loops.append((asyncio.get_running_loop(), threading.current_thread(), callers.get()))

    asyncio.run(main())
    assert len({loop for loop, _, _ in loops}) == 3
    assert threading.main_thread() not in [thread for _, thread, _ in loops[:-1]]
    assert [caller for _, _, caller in loops] == ["mine"] * 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_coroutine_function_may_use_httpx_and_anyio_whatever_loop_its_caller_has(
    backend: str, server: TokenServer
) -> None:
    async def source(previous: Token | None) -> Any:
        form = {"grant_type": "client_credentials"}
        async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            answer = await client.post(server.token_url, data=form, auth=("client", "secret"))
        return answer.raise_for_status().json()

    async def main() -> None:
        assert (await TokenKeeper(source).acurrent()).access_token
        assert sniffio.current_async_library() == backend

    anyio.run(main, backend=backend)


def test_a_task_that_is_cancelled_leaves_the_coroutine_of_the_source_as_it_is() -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def source(previous: Token | None) -> dict[str, object]:
        begun.set()
        await asyncio.to_thread(go_on.wait, 60)
        return await obtain_later(previous)

    keeper = TokenKeeper(source)

    async def cancelled() -> None:
        task = asyncio.create_task(keeper.acurrent())
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    go_on.set()
    assert asyncio.run(keeper.acurrent()).access_token == "1"
    assert keeper.stats["Renewed"] == 1


async def refuse_to_close() -> None:
    loop = asyncio.get_running_loop()
    close = loop.close

    def fail() -> None:
        close()
        raise RuntimeError

    loop.close = fail  # type: ignore[method-assign]


async def leave_a_task_that_ends_its_thread() -> None:
    async def leave() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise SystemExit

    leftovers.append(asyncio.ensure_future(leave()))
    await asyncio.sleep(0)


async def leave_a_task_that_goes_on() -> None:
    async def go_on() -> None:
        while not is_over.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    leftovers.append(asyncio.ensure_future(go_on()))
    await asyncio.sleep(0)


async def leave_a_thread_that_goes_on() -> None:
    """As when a name cannot be resolved."""
    leftovers.append(asyncio.get_running_loop().run_in_executor(None, is_over.wait, 60))


async def leave_a_generator_that_goes_on() -> None:
    async def generate() -> Any:
        try:
            yield
        finally:
            while not is_over.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

    generator = generate()
    leftovers.append(generator)
    await generator.__anext__()


is_over = threading.Event()
leftovers: list[Any] = []


@pytest.fixture
def _over() -> Iterator[None]:
    is_over.clear()
    yield
    is_over.set()
    leftovers.clear()
    gc.collect()  # what asyncio says of them belongs to this test


async def cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(
    "disturb",
    [
        refuse_to_close,
        cancel_this_task,
        leave_a_task_that_ends_its_thread,
        leave_a_task_that_goes_on,
        leave_a_thread_that_goes_on,
        leave_a_generator_that_goes_on,
    ],
)
@pytest.mark.usefixtures("_over")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_that_a_coroutine_leaves_behind_costs_or_delays_its_token(
    disturb: Callable[[], Awaitable[None]],
) -> None:
    async def source(previous: Token | None) -> dict[str, object]:
        answer = await obtain_later(previous)
        await disturb()
        return answer

    store = MemoryStore()
    assert TokenKeeper(source, store, lock_timeout=30).current().refresh_token == "r1"
    assert (store.load().document or {})["token"]
    assert not is_over.is_set()


def test_what_a_coroutine_raises_counts_like_what_a_function_raises() -> None:
    async def source(previous: Token | None) -> str:
        raise KeyError("s3cr3t")

    with pytest.raises(RefreshTemporarilyFailed, match="raised KeyError"):
        TokenKeeper(source).current()


def test_a_coroutine_function_in_the_thread_of_an_event_loop_is_refused() -> None:
    class Unstarted:
        def __await__(self) -> Any:
            raise AssertionError

    async def main() -> None:
        keeper = TokenKeeper(lambda previous: Unstarted(), inline=True)
        for _ in range(2):
            with pytest.raises(RefreshConfigError, match="has an event loop already") as caught:
                await keeper.acurrent()
            assert caught.value.is_local

    asyncio.run(main())
    assert TokenKeeper(obtain_later, inline=True).current().access_token == "1"


AT_EXIT = """
import asyncio, sys, threading
from contextlib import suppress
from tokenadapter import TokenKeeper, TokenError

async def source(previous):
    await asyncio.to_thread(begun.set)
    while threading.main_thread().is_alive() or sys.argv[2] == "threads":
        await asyncio.to_thread(int) if sys.argv[2] == "threads" else await asyncio.sleep(0.001)
    return {"access_token": "1", "refresh_token": "r1", "expires_in": 3600}

def call():
    # A daemon thread that writes a traceback while the interpreter ends can abort it.
    with suppress(TokenError):
        keeper.current()

begun = threading.Event()
keeper = TokenKeeper(source, sys.argv[1])
threading.Thread(target=call, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize("needs", ["time", "threads"])
def test_an_exiting_interpreter_waits_for_a_coroutine(needs: str, tmp_path: Path) -> None:
    """If it needs more threads, which are not to be had then, no other process backs off."""
    path = f"{tmp_path}/token.json"
    command = [sys.executable, "-X", "faulthandler", "-c", AT_EXIT, path, needs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    document = TokenKeeper(obtain, path).store.load().document or {}
    assert "backoff" not in document
    assert ("token" in document) == (needs == "time")


def test_a_bug_causes_no_backoff_while_the_store_fails(tmp_path: Path) -> None:
    class Broken(MemoryStore):
        def load(self) -> Any:
            raise StoreError("It is down. Nothing was lost.")

    source = Source(TypeError())
    keeper = TokenKeeper(ClientGrant(source), Broken())
    for _ in range(2):
        with pytest.raises(RefreshConfigError):
            keeper.current()
    assert source.calls == 2


class ClientGrant(Authority):
    """A grant that spends nothing and calls *source*."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def credentials(self, previous: Token | None) -> list[Credential]:
        return [Credential("client", "secret")]

    def fetch(self, credential: Credential, previous: Token | None) -> Any:
        return self.source(previous)


def test_distinguishing_a_grant_from_a_function_imports_nothing_expensive() -> None:
    program = (
        "import sys; old = {*sys.modules};"
        "from tokenadapter import TokenKeeper; TokenKeeper(lambda previous: '');"
        "print({'dataclasses', 'inspect', 'requests'} & {*sys.modules} - old)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
