"""The store that docs/howto/own-store.md shows passes the contract, and needs nothing private."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tokenadapter import protocols

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "own-store.md"


@pytest.fixture(scope="module")
def example() -> str:
    """The store and its test class, as one file."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
    [store] = [block for block in blocks if "class SQLiteStore" in block]
    [test] = [block for block in blocks if "class TestSQLiteStore" in block]
    return store.partition("\nstore = SQLiteStore")[0] + test


def test_it_imports_public_modules_only(example: str) -> None:
    assert "from tokenadapter" in example
    assert re.search(r"tokenadapter\S*\._|\bimport _", example) is None


@pytest.mark.parametrize("name", protocols.__all__)
def test_the_page_lists_each_optional_member(name: str) -> None:
    text = getattr(protocols, name).__doc__ or ""
    if text.startswith("Optional, of a") and ("TokenStore" in text or "StoreLock" in text):
        assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")


def test_it_passes_the_contract(example: str, tmp_path: Path) -> None:
    (tmp_path / "test_sqlite_store.py").write_text(example, encoding="utf-8")
    done = subprocess.run(
        # Our own stores pass the tests with many processes, which take long.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-k", "not many_processes"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
