"""The tests in docs/howto/testing.md pass when pytest runs them, as for users who copy them.

That the page can be read from its top to its bottom is tested with all other pages, in
``test_documentation.py``; there the tests in it are defined, and not run.
"""

from __future__ import annotations

import re
from pathlib import Path

from unit.testing.pytests import run_pytest

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "testing.md"
BLOCK = re.compile(
    r"^(?:```python|<!-- set-up of the test:)\n(.*?)^(?:```|-->)$", re.MULTILINE | re.DOTALL
)


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    program = "\n\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    (tmp_path / "test_page.py").write_text(program, encoding="utf-8")
    done = run_pytest(tmp_path, "-rA")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = set(
        re.findall(r"^PASSED test_page\.py::(test_\w+)(?:\[\w+\])?$", done.stdout, re.MULTILINE)
    )
    assert passed == set(re.findall(r"^def (test_\w+)", program, re.MULTILINE))
    assert "PASSED test_page.py::TestMyStore::" in done.stdout


def test_the_test_of_expiry_handling_has_five_lines() -> None:
    first = next(block for block in BLOCK.findall(PAGE.read_text("utf-8")) if "def test_" in block)
    assert "expire_now()" in first
    assert len(first.splitlines()) == 5
