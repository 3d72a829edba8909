"""The examples and tables of CONTRIBUTING.md are correct."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tokenadapter"
# The paragraph before a block ends with the path of the file.
FILE = re.compile(
    r"`(?P<path>(?:tokenadapter|tests/unit)/\w+/\w+\.py)`:\n\n```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests, with the files of the page."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(PACKAGE, tree / "tokenadapter")
    files = list(FILE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert [file["path"] for file in files] == [
        "tokenadapter/sources/command.py",
        "tests/unit/sources/test_command.py",
    ]
    for file in files:
        (tree / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tree / file["path"]).write_text(file["code"], encoding="utf-8")
    return tree


def test_the_examples_of_the_page_pass(tree: Path) -> None:
    done = subprocess.run(
        # Without -P the tree comes first in the search path.
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"),
            "unit/sources/test_command.py",
        ],
        cwd=tree / "tests",
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_that_the_table_of_rules_names_exist() -> None:
    folders = (ROOT / "tests", PACKAGE / "testing" / "contract")
    files = [path for each in folders for path in each.rglob("*.py")]
    code = "".join(path.read_text("utf-8") for path in files)
    known = {*(path.stem for path in files), *re.findall(r"def test_(\w+)\(", code)}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.search(r"^\| rule \| test \|\n(.+?)\n\n", text, re.DOTALL | re.MULTILINE)
    assert table is not None
    named = {name for row in table[1].splitlines() for name in re.findall(r"`(\w+)`", row)}
    assert named
    assert named <= known


def test_one_test_can_be_run_without_the_plugin_that_runs_many_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/unit/test_values.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
