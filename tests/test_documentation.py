"""The examples in README.md and docs/ work: each page is run, from its top to its bottom.

A page's ``python`` blocks run one after the other as one program, and its ``pycon`` blocks are
sessions of that program whose output has to be as shown.  A ``toml`` block that begins with the
path of a user's configuration file is that file.  The addresses in them lead to a token server.  A
block that cannot run stands below a comment that says why::

    <!-- not run: needs a Celery worker -->
"""

from __future__ import annotations

import doctest
import gc
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stores.servers import RedisServer

from tokenadapter.testing import TokenServer

ROOT = Path(__file__).parent.parent
REDIS = "redis://cache.example.com:6379/0"
POSTGRESQL = "postgresql+psycopg://app@db.example.com/app"
CONFIGURATION = ".config/tokenadapter/tokenadapter.toml"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"(?P<skip>^<!-- not run: [^\n]+ -->\n+)?^```(?P<kind>python|pycon|toml)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """Who answers at the addresses in the examples, and the place where they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BILLING_SECRET", "made-up")
    # Or requests-oauthlib would refuse addresses of plain http.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    with TokenServer(clients={"billing": "made-up"}) as server:
        monkeypatch.setenv("BILLING_REFRESH_TOKEN", server.issue()["refresh_token"])
        yield server


@pytest.fixture
def redis_url() -> Iterator[str]:
    """What answers at the address of Redis in the examples."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def django_settings() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that makes settings of the names in capitals."""
    from django.test import override_settings

    with ExitStack() as stack:

        def use(names: dict[str, Any]) -> None:
            capitals = {name: value for name, value in names.items() if name.isupper()}
            stack.enter_context(override_settings(**capitals))

        yield use


def drop(program: dict[str, Any]) -> None:
    """End a program: what an example leaves open, as a short one may, no later test shall find."""
    program.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


# It has to be there before a test: what a test starts ends with it.
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_work(page: Path, server: TokenServer, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    if REDIS in text:
        text = text.replace(REDIS, request.getfixturevalue("redis_url"))
    text = text.replace(POSTGRESQL, "sqlite:///app.sqlite3")
    program: dict[str, Any] = {"__name__": "__main__"}
    request.addfinalizer(partial(drop, program))
    for block in BLOCK.finditer(text):
        if block["skip"]:
            continue
        code = block["code"]
        code = code.replace("https://api.example.com/", server.api_url)
        code = code.replace("https://id.example.com/token", server.token_url)
        line = text.count("\n", 0, block.start("code"))
        if block["kind"] == "toml":
            if code.startswith(f"# ~/{CONFIGURATION}\n"):
                (Path.home() / CONFIGURATION).parent.mkdir(parents=True, exist_ok=True)
                (Path.home() / CONFIGURATION).write_text(code, encoding="utf-8")
                (Path.home() / CONFIGURATION).chmod(0o600)
            continue
        if block["kind"] == "python":
            # Empty lines before it make tracebacks show the lines of the page.
            exec(compile("\n" * line + code, page, "exec"), program)
            if code.startswith("# settings.py\n"):
                request.getfixturevalue("django_settings")(program)
        else:
            session = doctest.DocTestParser().get_doctest(code, program, page.name, str(page), line)
            session.globs = program
            differences: list[str] = []
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
            runner.run(session, out=differences.append, clear_globs=False)
            assert not differences, "".join(differences)
