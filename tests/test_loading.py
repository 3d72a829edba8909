"""What renewals need is imported: whatever fails, and never while this process forks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import Authority, Clockwork, Shelf

from tokenadapter import forking
from tokenadapter.loading import load
from tokenadapter.testing.workers import succeeds_in_child

WHEN_FORKING: list[Callable[[], object]] = []


def _fork_begins() -> None:
    for call in WHEN_FORKING:
        call()


# The hook that was registered last is called first.
os.register_at_fork(before=_fork_begins)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(Clockwork())


@pytest.fixture
def when_forking(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    calls: list[Callable[[], object]] = []
    monkeypatch.setattr(sys.modules[__name__], "WHEN_FORKING", calls)
    return calls


def loading_by(work: Callable[[], object]) -> Any:
    grant: Any = Authority()
    grant.load = work
    return grant


def test_a_fork_waits_until_a_helper_has_imported_what_it_needs(
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when_forking: list[Callable[[], object]],
) -> None:
    gate = SimpleNamespace(has_begun=threading.Event(), goes_on=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", gate)
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("slow_to_import.py").write_text(
        "import gate\ngate.has_begun.set()\ngate.goes_on.wait(30)\n"
    )

    def import_it() -> object:
        return __import__("slow_to_import")

    helper = threading.Thread(target=load, args=(shelf, loading_by(import_it)))
    helper.start()
    assert gate.has_begun.wait(30)
    when_forking.append(gate.goes_on.set)
    assert succeeds_in_child(lambda: bool(import_it()))
    helper.join()
    del sys.modules["slow_to_import"]


def test_an_import_may_fork(shelf: Shelf) -> None:
    told: list[bool] = []
    load(shelf, loading_by(lambda: told.append(succeeds_in_child(lambda: True))))
    assert told == [True]


def test_a_fork_waits_for_so_long_only(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forks may have what the import waits for."""
    monkeypatch.setattr(forking, "_PATIENCE", 0.01)
    has_begun, goes_on = threading.Event(), threading.Event()

    def stands_still() -> None:
        has_begun.set()
        goes_on.wait(30)

    def loads_all_the_same() -> bool:
        loaded: list[bool] = []
        load(shelf, loading_by(lambda: loaded.append(True)))
        return loaded == [True]

    helper = threading.Thread(target=load, args=(shelf, loading_by(stands_still)))
    helper.start()
    assert has_begun.wait(30)
    assert succeeds_in_child(loads_all_the_same)
    goes_on.set()
    helper.join()
    assert loads_all_the_same()


def test_what_cannot_be_imported_is_told_by_whoever_needs_it(shelf: Shelf) -> None:
    def fails() -> None:
        raise ImportError("no module of that name")

    load(shelf, loading_by(fails))
