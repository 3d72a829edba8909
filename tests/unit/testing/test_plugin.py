"""The pytest plugin: found by its entry point, cheap, and its fixtures are as the markers say."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tokenadapter.testing import FrozenClock, TokenServer, plugin
from unit.testing.pytests import run_pytest

THEIR_TESTS = """
import time

import pytest

pytestmark = pytest.mark.token_server(lifetime=60, scheme="token")


def test_module(token_server):
    assert token_server.issue()["expires_in"] == 60


@pytest.mark.token_server(lifetime=7)
class TestClass:
    def test_class(self, token_server):
        assert token_server.issue()["expires_in"] == 7

    @pytest.mark.token_server(lifetime=None, rotate=False)
    def test_function(self, token_server):
        assert "expires_in" not in token_server.issue()


def test_time(frozen_clock):
    frozen_clock.move(3600)
    assert time.time() == frozen_clock()


@pytest.mark.token_server(7)
def test_positional(token_server):
    pass


@pytest.mark.token_server(lifespan=7)
def test_unknown(token_server):
    pass
"""


def test_pytest_finds_it_by_its_entry_point() -> None:
    (found,) = entry_points(group="pytest11", name="tokenadapter")
    assert found.load() is plugin


def test_markers_from_module_to_test_configure_the_server(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    done = run_pytest(tmp_path)
    assert "4 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert "unexpected keyword argument 'lifespan'" in done.stdout


def test_each_test_gets_its_own_server(token_server: TokenServer) -> None:
    assert token_server.stats.token_requests == 0
    assert token_server.token_url.startswith("http://127.0.0.1:")


def test_the_clock_of_the_fixture_is_installed(frozen_clock: FrozenClock) -> None:
    with pytest.raises(RuntimeError, match="another FrozenClock is in place"):
        FrozenClock().__enter__()


def test_without_use_the_plugin_imports_nothing_else() -> None:
    program = (
        "import sys, pytest; old = {*sys.modules}; import tokenadapter.testing.plugin;"
        "print(*{*sys.modules} - old)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    own = {"tokenadapter", "tokenadapter.late_imports", "tokenadapter.testing"}
    assert loaded == own | {"tokenadapter.testing.plugin"}
