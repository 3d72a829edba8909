"""Each measurement runs, and the documentation shows its results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import assert_words_are_within

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
CHARTS = sorted((ROOT / "docs" / "_static").glob("bench-*.svg"))
SCRIPTS = [
    path
    for path in sorted(BENCHMARKS.glob("*.py"))
    if "alone(measure)" in path.read_text() and path.stem != "scale"
]


def run(script: Path, option: str) -> str:
    done = subprocess.run(
        [sys.executable, script, option],
        # Use the compiled files of installed packages.
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS), "PYTHONPYCACHEPREFIX": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs(script: Path) -> None:
    output = run(script, "--quick")
    ours = [line for line in output.splitlines() if "tokenadapter" in line]
    assert ours or script.stem == "store_latency", output
    assert re.search(r"\d", output), output


def test_a_small_fleet_meets_the_promises_for_a_large_one() -> None:
    """The promises are counts, which do not depend on the load of the machine."""
    output = run(BENCHMARKS / "scale.py", "--quick")
    kept = [line[:3] for line in output.splitlines() if line.startswith(("yes", "NO"))]
    assert kept == ["yes"] * 6, output


def test_the_page_shows_what_was_measured() -> None:
    run(BENCHMARKS / "run.py", "--check")


@pytest.mark.parametrize("picture", CHARTS, ids=lambda picture: picture.stem)
def test_all_words_are_within_the_chart(picture: Path) -> None:
    assert_words_are_within(picture.read_text("utf-8"))


def test_the_readme_shows_what_was_measured() -> None:
    results = json.loads((BENCHMARKS / "results.json").read_text("utf-8"))
    versions = results["machine"]["versions"]
    [table] = results["measured"]["thread_herd"]["finding"]["tables"]
    expected = {}
    for name, *figures in table["rows"]:
        if "valid token" not in name:
            is_other = name in versions and name != "tokenadapter"
            expected[f"{name} {versions[name]}" if is_other else name] = figures[:3]
    section = (ROOT / "README.md").read_text("utf-8").split("| token requests |")[1]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip("*") for cell in row] for row in rows]
    assert {name: figures for name, *figures in cells} == expected
