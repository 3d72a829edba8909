"""A cleaner by age (tmpfiles.d, tmpreaper, ``find -mtime``) deletes files beside the record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import FileStore, RefreshToken, TokenKeeper
from tokenadapter.core.runtime import Runtime
from tokenadapter.testing import TokenServer
from tokenadapter.testing.workers import process

ROUNDS = 20
BESIDE = ("lock", "reserve", "spent")


class Reporting(Runtime):
    """Reports the first sleep."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._has_slept = False

    def sleep(self, seconds: float) -> None:
        if not self._has_slept:
            self._has_slept = True
            self._pipe.send("waits")
        super().sleep(seconds)


class Stopping(FileStore):
    """Stops at one step, until something comes through the pipe."""

    step = ""
    pipe: Connection

    def stop(self, step: str) -> None:
        if step == self.step:
            self.step = ""
            self.pipe.send(step)
            self.pipe.recv()

    def lock(self) -> Any:
        lock = super().lock()
        acquire = lock.acquire

        def acquire_and_stop(hold_for: float) -> bool:
            is_taken = acquire(hold_for)
            self.stop("after the lock")
            return is_taken

        lock.acquire = acquire_and_stop  # type: ignore[method-assign]
        return lock

    def prepare(self) -> None:
        super().prepare()
        self.stop("before the request")

    def save(self, document: Any, **rest: Any) -> bool:
        self.stop("before the intent" if document.get("intent") else "before the save")
        return super().save(document, **rest)


def renew(pipe: Connection, token_url: str) -> None:
    """Renew the token of each path that comes through the pipe."""

    class Source(RefreshToken):
        def fetch(self, *args: Any) -> Any:
            pipe.send("presents")
            return super().fetch(*args)

    for path, step in iter(pipe.recv, None):
        store = Stopping(path)
        store.step, store.pipe = step, pipe
        source = Source(token_url, client_id="client", client_secret="secret", timeout=60)
        try:
            pipe.send(TokenKeeper(source, store, runtime=Reporting(pipe)).current().fingerprint)
        except Exception as error:  # noqa: BLE001 - the test compares
            pipe.send(repr(error))


def source_of(server: TokenServer) -> RefreshToken:
    return RefreshToken(server.token_url, client_id="client", client_secret="secret")


def expired(server: TokenServer, path: Path) -> FileStore:
    """A store with a token that has expired."""
    store = FileStore(path)
    keeper = TokenKeeper(source_of(server), store)
    keeper.renew(keeper.adopt(server.issue()))  # so that there is a spent token to remember
    token = keeper.current()
    keeper.adopt(token.replace(expires_at=time.time() - 1))
    return store


def last(pipe: Connection, *, first: str | None = None) -> str:
    """The first message that is a result."""
    message = first or pipe.recv()
    while message in ("presents", "waits"):
        message = pipe.recv()
    return message


@pytest.fixture
def processes(server: TokenServer) -> Iterator[tuple[Connection, Connection]]:
    with (
        process(renew, server.token_url) as (_, first),
        process(renew, server.token_url) as (_, second),
    ):
        yield first, second


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a process lives")
@pytest.mark.parametrize(
    "step",
    [
        "",
        "after the lock",
        "before the intent",
        "before the request",
        "presents",
        "before the save",
    ],
)
def test_a_deleted_lock_file_loses_no_login(
    server: TokenServer,
    tmp_path: Path,
    processes: tuple[Connection, Connection],
    step: str,
) -> None:
    """One process is at *step* when the files are deleted; then another one starts to renew."""
    one, other = processes
    for number in range(ROUNDS):
        store = expired(server, tmp_path / f"{number}" / "token.json")
        before = server.stats.token_requests
        with server.hold() if step == "presents" else nullcontext() as hold:
            if step:
                one.send((store.path, step))
                while one.recv() != step:
                    pass
            if hold is not None:
                assert hold.arrived.wait(30)
            for end in BESIDE:
                Path(f"{store.path}.{end}").unlink(missing_ok=True)
            other.send((store.path, ""))
            found = other.recv()
            if found == "presents" and hold is None:
                found = last(other)
        if step and hold is None:
            one.send("go on")
        results = [last(other, first=found)]
        if step:
            results.append(last(one))
        assert len({*results}) == 1
        assert results[0] == TokenKeeper(source_of(server), store).current().fingerprint
        assert server.stats.token_requests == before + 1
    assert server.stats.reuse_detections == 0


@pytest.mark.parametrize("rotate", [False, True])
def test_a_renewal_makes_everything_young_that_it_relies_on(tmp_path: Path, rotate: bool) -> None:
    with TokenServer(rotate=rotate) as server:
        _check_ages(server, tmp_path)


def _check_ages(server: TokenServer, tmp_path: Path) -> None:
    store = expired(server, tmp_path / "state" / "token.json")
    store.remember_spent("of an earlier login", for_good=True)
    reservation = store.reserve()
    assert reservation is not None
    with reservation:
        pass
    directory = tmp_path / "state"
    old = time.time() - 40 * 86400
    for path in (*directory.iterdir(), directory):
        os.utime(path, (old, old))
    before = time.time() - 1
    # A look, or an attempt to take the lock that fails, writes nothing.
    keeper = TokenKeeper(source_of(server), store)
    holder = FileStore(store.path).lock()
    store.load()
    assert store.was_spent("hash") is False
    assert {path.stat().st_mtime for path in (*directory.iterdir(), directory)} == {old}
    assert holder.acquire(60)
    os.utime(f"{store.path}.lock", (old, old))
    assert not store.lock().acquire(60)
    assert Path(f"{store.path}.lock").stat().st_mtime == old
    holder.release()

    keeper.current()
    assert {path.name for path in directory.iterdir()} == {
        "token.json",
        *(f"token.json.{end}" for end in BESIDE),
    }
    for path in (*directory.iterdir(), directory):
        assert path.stat().st_mtime > before, path
        assert path.stat().st_atime > before, path
