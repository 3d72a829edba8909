"""The contract detects the faults of a store, and reports them like any test."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .helpers import run

STORES = '''
import pytest

from tokenadapter import MemoryStore
from tokenadapter.testing import StoreContract


class Whole(MemoryStore):
    """Nothing is wrong with it."""


class KnowsATagTooMuch(MemoryStore):
    def load(self):
        snapshot = super().load()
        return snapshot._replace(tag=snapshot.tag or "zero")


class ComparesNothing(MemoryStore):
    def save(self, document, *, tag, expected, ttl):
        return super().save(document, tag=tag, expected=self.load().tag, ttl=ttl)


class KnowsNoRepetition(MemoryStore):
    def save(self, document, *, tag, expected, ttl):
        is_other = tag != self.load().tag
        return is_other and super().save(document, tag=tag, expected=expected, ttl=ttl)


class CutsOff(MemoryStore):
    def save(self, document, *, tag, expected, ttl):
        short = {key: value[:9999] if key == "token" else value for key, value in document.items()}
        return super().save(short, tag=tag, expected=expected, ttl=ttl)


class Forgets(MemoryStore):
    def was_spent(self, digest):
        return False


class Lock:
    def acquire(self, hold_for):
        return True

    def confirm(self):
        return True

    def release(self):
        pass


class ExcludesNobody(MemoryStore):
    def lock(self):
        return Lock()


class TellsSecrets(MemoryStore):
    def __repr__(self):
        return str(self.load().document)


class IsImpatient(MemoryStore):
    poll = (0, 0)


class IsACopy(MemoryStore):
    is_copy = True
'''
# Those that find something out, and one of each other kind.
SOME = "empty or expects or repeated or large or remembered or exclude or nothing or "
SOME += "secret or polls or copy"
NAMES = re.findall(r"class (\w+)\(MemoryStore\)", STORES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of all of them."""
    directory = tmp_path_factory.mktemp("theirs")
    tests = [
        f"class Test{name}(StoreContract):\n"
        "    HOLD = 1.0\n"
        "    @pytest.fixture\n"
        "    def connect(self, request):\n"
        f"        return lambda: {name}(request.node.nodeid)\n"
        for name in NAMES
    ]
    (directory / "test_theirs.py").write_text("\n\n".join([STORES, *tests]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "-k", SOME],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_detects_the_faults_of_a_store(name: str, report: str) -> None:
    failed = f"FAILED test_theirs.py::Test{name}::" in report
    assert failed == (name != "Whole"), report


def test_the_report_says_what_was_found(report: str) -> None:
    assert "At index 1 diff: 'zero' != None" in report
    assert "the fixture 'corrupt' does not say how to damage the content" in report


def test_the_test_kit_needs_no_pytest_but_the_contract_does() -> None:
    run("""
        import sys
        from tokenadapter.testing import TokenServer
        import tokenadapter.testing
        sys.modules["pytest"] = None
        try:
            class TestMine(tokenadapter.testing.StoreContract): pass
        except ImportError as error:
            assert "pip install 'tokenadapter[testing]'" in str(error)
        else:
            raise AssertionError
    """)


def test_the_test_kit_alone_loads_no_pytest() -> None:
    run("""
        import sys
        import tokenadapter.testing
        assert "pytest" not in sys.modules
    """)
