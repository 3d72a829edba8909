"""The examples in README.md and docs/ work: each page is run, from its top to its bottom.

A page's ``python`` blocks run one after the other as one program, and its ``pycon`` blocks are
sessions of that program whose output has to be as shown.  A ``toml`` block that begins with the
path of a user's configuration file is that file.  The addresses in them lead to a token server.  A
block that cannot run stands below a comment that says why::

    <!-- not run: needs a Celery worker -->

or one that says where it is run all the same::

    <!-- run by tox -e sdks: needs botocore -->

What an example finds on the reader's machine, such as a file, is made in a comment, which no reader
copies::

    <!-- set-up of the test:
    Path("token.json").write_text("{}")
    -->
"""

from __future__ import annotations

import dataclasses
import doctest
import gc
import logging
import os
import re
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import requests
from unit.stores.servers import RedisServer, free_port

from tokenadapter import ClientCredentials, TokenAdapter, events
from tokenadapter.testing import TokenServer

ROOT = Path(__file__).parents[2]
REDIS = "redis://cache.example.com:6379/0"
POSTGRESQL = "postgresql+psycopg://app@db.example.com/app"
CONFIGURATION = ".config/tokenadapter/tokenadapter.toml"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"(?P<skip>^<!-- not run: [^\n]+ -->\n+)?"
    r"(?P<sdk>^<!-- run by tox -e sdks: [^\n]+ -->\n+)?"
    r"^(?:```(?P<kind>python|pycon|toml)|<!-- set-up of the test:)\n(?P<code>.*?)^(?:```|-->)$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """Who answers at the addresses in the examples, and the place where they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BILLING_SECRET", "made-up")
    # The browser of the reader, who approves; the module looks for one when it is first used.
    monkeypatch.setenv("BROWSER", f"{sys.executable} -m tokenadapter.testing.browser %s")
    monkeypatch.setattr(webbrowser, "_tryorder", None)
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
        if block["skip"] or (block["sdk"] and "SDKS" not in os.environ):
            continue
        code = block["code"]
        code = code.replace("https://api.example.com/", server.api_url)
        code = code.replace("https://id.example.com/token", server.token_url)
        code = code.replace("https://id.example.com/authorize", server.authorization_url)
        line = text.count("\n", 0, block.start("code"))
        if block["kind"] == "toml":
            if code.startswith(f"# ~/{CONFIGURATION}\n"):
                (Path.home() / CONFIGURATION).parent.mkdir(parents=True, exist_ok=True)
                (Path.home() / CONFIGURATION).write_text(code, encoding="utf-8")
                (Path.home() / CONFIGURATION).chmod(0o600)
            continue
        if block["kind"] in ("python", None):
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_example_overwrites_a_file_of_the_reader(page: Path) -> None:
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["kind"] and not block["skip"]:
            assert not re.search(r'Path\(".*\.write_(text|bytes)\(', block["code"])
            assert not re.search(r"""open\(.*["'][wa]b?["']""", block["code"])


# --- what the pages say of other packages ------------------------------------------------------


@pytest.fixture
def trusted() -> Iterator[TokenServer]:
    """A server whose certificate its own file of certificates vouches for, and no other."""
    with TokenServer(https=True) as server:
        yield server


@pytest.fixture
def another() -> Iterator[TokenServer]:
    """A server whose file of certificates does not vouch for the other one."""
    with TokenServer(https=True) as server:
        yield server


def test_the_environment_overrides_the_certificates_of_a_session_and_not_of_a_call_or_source(
    trusted: TokenServer, another: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ClientCredentials(
        trusted.token_url, client_id="client", client_secret="secret", verify=trusted.ca_file
    )
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", another.ca_file)
    with requests.Session() as session:
        TokenAdapter(trusted.api_url, source).mount(session)
        assert session.get(trusted.api_url, verify=trusted.ca_file).ok
        for settings in (trusted.ca_file, False):
            session.verify = settings
            with pytest.raises(requests.exceptions.SSLError):
                session.get(trusted.api_url)
        session.trust_env = False
        session.verify = trusted.ca_file
        assert session.get(trusted.api_url).ok


def test_the_environment_overrides_the_proxies_of_a_session_and_not_of_a_call(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {"http": f"http://127.0.0.1:{free_port()}"}
    proxy = {"http": server.url}  # it answers as to a path that it does not know
    with requests.Session() as session:
        monkeypatch.setenv("HTTP_PROXY", proxy["http"])
        session.proxies = nobody
        assert session.get("http://api.example.com/").status_code == 404
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("http://api.example.com/", proxies=nobody)
        session.trust_env = False
        session.proxies = proxy
        assert session.get("http://api.example.com/").status_code == 404


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_setting_of_django_that_a_page_reads_exists(page: Path) -> None:
    from django.conf import global_settings

    text = page.read_text(encoding="utf-8")
    read = set(re.findall(r"\bsettings\.([A-Z_]+)\b", text))
    written = set(re.findall(r"^([A-Z_]+) = ", text, re.MULTILINE))
    assert read <= {*dir(global_settings)} | written


def test_the_table_of_events_has_each_event_with_its_level_and_fields() -> None:
    text = (ROOT / "docs" / "howto" / "events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ([A-Z]+)\b.* \| (.+) \|$", text, re.MULTILINE)
    listed = [
        (name, level, re.findall(r"(?:^|[;,] )`(\w+)`", further)) for name, level, further in rows
    ]
    kinds = [getattr(events, name) for name in events.__all__ if name != "Event"]
    assert sorted(listed) == sorted(
        (
            kind.__name__,
            logging.getLevelName(kind._level),
            [field.name for field in dataclasses.fields(kind) if field.name != "store"],
        )
        for kind in kinds
    )


def test_the_login_program_of_python_fitbit_is_not_in_its_package() -> None:
    files = [path.name for path in metadata.files("fitbit") or ()]
    assert "api.py" in files
    assert "gather_keys_oauth2.py" not in files
    text = (ROOT / "docs" / "howto" / "legacy.md").read_text(encoding="utf-8")
    assert re.search(r"brings no program for\s+that login; `gather_keys_oauth2.py`", text)
