"""Late imports: once, retried after a failure, and never while the process forks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from imports import Unguarded

from tokenadapter import TokenKeeper, late_imports
from tokenadapter.core import record
from tokenadapter.late_imports import imported, importing, load
from tokenadapter.testing.workers import succeeds_in_child

WHEN_FORKING: list[Callable[[], object]] = []


def _fork_begins() -> None:
    for call in WHEN_FORKING:
        call()


# The hook that was registered last is called first.
os.register_at_fork(before=_fork_begins)


@pytest.fixture
def when_forking(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    calls: list[Callable[[], object]] = []
    monkeypatch.setattr(sys.modules[__name__], "WHEN_FORKING", calls)
    return calls


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a module from a text, and return its name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"made_by_test_{tmp_path.name}".replace("-", "_")

    def make(text: str) -> str:
        tmp_path.joinpath(f"{name}.py").write_text(text)
        return name

    monkeypatch.setitem(sys.modules, name, None)  # so that monkeypatch removes it
    monkeypatch.delitem(sys.modules, name)
    return make


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gate at which a module waits during its import."""
    gate = SimpleNamespace(has_begun=threading.Event(), goes_on=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", gate)
    return gate


SLOW = "import gate\ngate.has_begun.set()\nassert gate.goes_on.wait(30)\nanswer = 42\n"


# --- what stands in for a module --------------------------------------------------------------


def test_a_module_is_imported_on_first_use(module: Callable[[str], str]) -> None:
    name = module("answer = 42\n")
    stand_in = late_imports.late(name)
    assert name not in sys.modules
    assert stand_in.answer == 42
    sys.modules[name].answer = 43
    assert stand_in.answer == 43


def test_a_failed_import_is_retried(module: Callable[[str], str]) -> None:
    name = module("raise ImportError('not today')\n")
    stand_in = late_imports.late(name)
    for use in (lambda: stand_in.answer, lambda: load(stand_in), lambda: imported(name)):
        with pytest.raises(ImportError, match="not today"):
            use()
    module("answer = 'at last'\n")
    load(stand_in)
    assert stand_in.answer == "at last"


def test_a_submodule_can_be_imported_late() -> None:
    assert late_imports.late("email.utils").unquote('"a"') == "a"


def test_an_import_without_the_guard_is_found(
    module: Callable[[str], str], unguarded: Unguarded
) -> None:
    name = module("answer = 42\n")
    function = "def imports():\n    import " + name
    program: dict[str, Any] = {"__name__": "tokenadapter.stores.made_up"}
    exec(compile(function, "made_up.py", "exec"), program)
    with importing():
        program["imports"]()
    del sys.modules[name]
    assert unguarded.found() == []
    assert succeeds_in_child(lambda: program["imports"]() is None)
    assert unguarded.found() == [f"made_up.py:2: imports() imports {name}"]


# --- what renewals need -------------------------------------------------------------------------


@pytest.fixture
def keeper() -> TokenKeeper:
    return TokenKeeper(lambda previous: "token")


def test_locks_and_grants_load_what_they_need_under_the_guard(
    keeper: TokenKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded: list[bool] = []
    check = lambda: guarded.append(late_imports._guard._is_owned())  # noqa: E731
    monkeypatch.setattr(keeper.grant, "load", check, raising=False)
    monkeypatch.setattr(type(keeper.store.lock()), "load", staticmethod(check), raising=False)
    keeper.current()
    assert guarded == [True, True]


def test_a_failed_preload_is_raised_on_use(
    keeper: TokenKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ImportError("no module of that name")

    monkeypatch.setattr(keeper.grant, "load", fails, raising=False)
    assert keeper.current().access_token == "token"


def test_openssl_loads_the_slow_hash_under_the_guard(
    keeper: TokenKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL has its own locks, which a forked child could inherit locked."""
    guarded: list[bool] = []

    def pbkdf2(*args: Any) -> bytes:
        guarded.append(late_imports._guard._is_owned())
        return hashlib.pbkdf2_hmac(*args)

    monkeypatch.setattr(record.hashlib, "pbkdf2_hmac", pbkdf2)
    keeper.current()
    assert guarded[0]
    assert not any(guarded[1:])


# --- forks --------------------------------------------------------------------------------------


def test_a_fork_waits_until_another_thread_has_imported(
    module: Callable[[str], str], gate: Any, when_forking: list[Callable[[], object]]
) -> None:
    name = module(SLOW)
    other = threading.Thread(target=imported, args=[name])
    other.start()
    assert gate.has_begun.wait(30)
    when_forking.append(gate.goes_on.set)
    assert succeeds_in_child(lambda: bool(imported(name).answer))
    other.join()


def test_an_import_may_fork() -> None:
    with importing():
        assert succeeds_in_child(lambda: True)
    assert succeeds_in_child(lambda: True)


def test_a_fork_waits_for_imports_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forking thread may hold what the import waits for."""
    monkeypatch.setattr(late_imports, "_GUARD_TIMEOUT", 0.01)
    has_begun, goes_on = threading.Event(), threading.Event()

    def stands_still() -> None:
        with importing():
            has_begun.set()
            goes_on.wait(30)

    def can_import() -> bool:
        with importing():
            return late_imports._guard._is_owned()

    other = threading.Thread(target=stands_still)
    other.start()
    assert has_begun.wait(30)
    assert succeeds_in_child(can_import)
    with importing():  # nor does an import wait for longer
        assert not late_imports._guard._is_owned()
    goes_on.set()
    other.join()
    assert can_import()


# A fork that holds the lock of logging would wait for ever for an import that makes a logger.
MAKES_A_LOGGER = """
import os, signal, sys, threading, time
from tokenadapter.late_imports import imported

assert "logging" not in sys.modules
begun, forking = threading.Event(), threading.Event()
sys.modules["gate"] = sys.modules[__name__]
other = threading.Thread(target=imported, args=["makes_a_logger"])
other.start()
assert begun.wait(30)
os.register_at_fork(before=forking.set)
child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(0 if imported("makes_a_logger").log else 1)
other.join()
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_fork_waits_for_imports_before_it_takes_the_lock_of_logging(tmp_path: Path) -> None:
    tmp_path.joinpath("makes_a_logger.py").write_text(
        "import logging, gate\n"
        "gate.begun.set()\nassert gate.forking.wait(30)\n"
        "gate.time.sleep(0.1)  # let the fork take the lock, if it does\n"
        "log = logging.getLogger('made up')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", MAKES_A_LOGGER],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
