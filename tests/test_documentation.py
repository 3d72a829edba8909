"""The examples in README.md and docs/ work: each page is run, from its top to its bottom.

A page's ``python`` blocks run one after the other as one program, and its ``pycon`` blocks are
sessions of that program whose output has to be as shown.  The addresses in them lead to a token
server.  A block that cannot run stands below a comment that says why::

    <!-- not run: needs a Celery worker -->
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenadapter.testing import TokenServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"(?P<skip>^<!-- not run: .+ -->\n+)?^```(?P<kind>python|pycon)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """Who answers at the addresses in the examples, and the place where they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BILLING_SECRET", "made-up")
    with TokenServer(clients={"billing": "made-up"}) as server:
        yield server


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_work(page: Path, server: TokenServer) -> None:
    text = page.read_text(encoding="utf-8")
    program: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if block["skip"]:
            continue
        code = block["code"]
        code = code.replace("https://api.example.com/", server.api_url)
        code = code.replace("https://id.example.com/token", server.token_url)
        line = text.count("\n", 0, block.start("code"))
        if block["kind"] == "python":
            # Empty lines before it make tracebacks show the lines of the page.
            exec(compile("\n" * line + code, page, "exec"), program)
        else:
            session = doctest.DocTestParser().get_doctest(code, program, page.name, str(page), line)
            session.globs = program
            differences: list[str] = []
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
            runner.run(session, out=differences.append, clear_globs=False)
            assert not differences, "".join(differences)
