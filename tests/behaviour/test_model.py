"""The renewal protocol as a model (:mod:`model`), and the page that shows it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from model import world
from model.variants import BROKEN, LIMITS, RIGHT, Case, explored

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "concepts" / "why.md").read_text(encoding="utf-8")
INVARIANTS = {
    text
    for name, text in vars(world).items()
    if name.isupper() and isinstance(text, str) and text.endswith(".")
}
IS_SHORT = int(os.environ.get("SIMULATION_SCHEDULES", "0")) < 100_000


def name_of(case: Case) -> str:
    return f"{case.name}-{case.processes}-{case.faults}"


@pytest.mark.parametrize("case", RIGHT, ids=name_of)
def test_no_invariant_is_violated_in_any_state(case: Case) -> None:
    found = explored(case)
    assert not found.wrong, case.story()
    assert found.states > 0
    assert f"\n{case.row()}\n" in PAGE, "run python -m model in tests/"


@pytest.mark.skipif(IS_SHORT, reason="takes long: tox -e simulate")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "case", [Case(case.protocol, 2, 3) for case in RIGHT if case.processes == 2], ids=name_of
)
def test_no_invariant_is_violated_when_three_processes_meet_any_two_mishaps(case: Case) -> None:
    assert not explored(case).wrong, case.story()


@pytest.mark.parametrize("case", [*BROKEN, *LIMITS], ids=name_of)
def test_each_variant_without_a_rule_violates_an_invariant(case: Case) -> None:
    assert explored(case).wrong in INVARIANTS
    assert f"\n{case.row()}\n" in PAGE, "run python -m model in tests/"
    if case.faults:
        fewer = explored(case._replace(faults=case.faults - 1))
        assert not fewer.wrong, "fewer mishaps would do"


def test_each_invariant_is_violated_by_some_variant() -> None:
    # Each row of the page is compared with the model above.
    assert {text for text in INVARIANTS if f"| {text} |\n" in PAGE} == INVARIANTS


def test_the_page_shows_nothing_else() -> None:
    rows = re.findall(r"^\|.*\d \|.*$", PAGE, re.MULTILINE)
    assert len(rows) == len(RIGHT) + len(BROKEN) + len(LIMITS)


@pytest.mark.parametrize("story", re.findall(r"(?ms)^```text\n(.*?)\n```$", PAGE))
def test_the_steps_on_the_page_are_those_that_the_model_finds(story: str) -> None:
    assert story in {case.story() for case in BROKEN}, "run python -m model NAME in tests/"


def test_the_command_prints_the_steps_of_a_variant() -> None:
    case = next(case for case in BROKEN if case.name == "UsesBeforeSaving")
    done = subprocess.run(
        [sys.executable, "-m", "model", case.name],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{case.story()}\n", done.stderr


@pytest.mark.parametrize("file", sorted((TESTS / "model").glob("*.py")), ids=lambda file: file.name)
def test_the_model_shares_no_code_with_the_library(file: Path) -> None:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    assert imported <= {"model", *sys.stdlib_module_names}
