"""The facts about providers: each has a source, and the pages say what the library knows."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections import Counter
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.http.verdicts import expired_on
from tokenadapter.sources.oauth2_client import OAuth2Client
from tokenadapter.sources.providers import PATH, example, known_names

DOCS = Path(__file__).parents[2] / "docs"
TABLES: dict[str, dict[str, Any]] = tomllib.loads(Path(PATH).read_text("utf-8"))
every_provider = pytest.mark.parametrize("name", TABLES)

# The known keys, and what each value must be.
URL, TEXT, TEXTS, SECONDS, FLAG, TABLE = "url", str, list, int, bool, dict
FACTS: dict[str, Any] = {
    "source": URL,
    "date": date,
    "token_url": URL,
    "revocation_url": URL,
    "authorization_url": URL,
    "device_authorization_url": URL,
    "issuer": URL,
    "client_auth": TEXT,
    "grant_type": TEXT,
    "authorization_parameters": TABLE,
    "scope": TEXT,
    "scope_separator": TEXT,
    "redirect_uri": TEXT,
    "grace": SECONDS,
    "renew_early": FLAG,
    "verdict": TABLE,
    "login_lifetime": SECONDS,
    "rotates": FLAG,
    "access_token_lifetime": SECONDS,
    "unused_lifetime": SECONDS,
    "register": TEXTS,
    "know": TEXTS,
}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", DOCS / "providers" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(name: str) -> dict[str, Any]:
    return {key: fact for group in TABLES[name]["facts"] for key, fact in group.items()}


def test_the_names_are_found_without_parsing_the_file() -> None:
    assert known_names() == sorted(TABLES) == [*TABLES]


@every_provider
def test_every_fact_has_a_source_and_a_date_and_is_of_a_known_kind(name: str) -> None:
    table = TABLES[name]
    assert (
        {"name", "example", "facts"} <= table.keys() <= {"name", "example", "facts", "parameters"}
    )
    assert {"prefix"} <= table["example"].keys() <= {"prefix", "scope"}
    for group in table["facts"]:
        assert {"source", "date"} < group.keys() <= FACTS.keys()
        for key, value in group.items():
            kind = FACTS[key]
            assert isinstance(value, str if kind == URL else kind), key
            assert kind != URL or re.fullmatch(r"https://[^\s]+", value), key
            assert kind != SECONDS or value > 0, key
            assert kind != TEXTS or all(isinstance(one, str) for one in value), key


@every_provider
def test_each_fact_is_stated_once(name: str) -> None:
    counted = Counter(key for group in TABLES[name]["facts"] for key in group)
    repeatable = {"source", "date", "register", "know"}
    assert {key for key, count in counted.items() if count > 1} <= repeatable


@every_provider
def test_the_facts_of_a_provider_fit_together(name: str) -> None:
    known = facts(name)
    assert ("token_url" in known) != ("issuer" in known)
    if "token_url" in known:
        assert "authorization_url" in known  # or no user could log in
    if "authorization_parameters" in known:
        assert "?" not in known["authorization_url"]
    places = set(re.findall(r"\{(\w+)\}", " ".join(map(str, known.values()))))
    parameters = TABLES[name].get("parameters", {})
    assert places - {"…"} == parameters.keys() <= {"domain", "tenant"}
    assert all({"about"} <= one.keys() <= {"about", "default"} for one in parameters.values())
    if "client_auth" in known:
        OAuth2Client("client", "secret", known["client_auth"])
    if "verdict" in known:
        expired_on(**known["verdict"])
    if "grace" in known:
        assert known["rotates"] is True


@every_provider
def test_the_profile_to_start_from_is_valid(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenadapter.toml"
    text = example(name).replace('domain = "…"', 'domain = "id.example.com"')
    path.write_text(text.replace('tenant = "…"', 'tenant = "main"'), encoding="utf-8")
    path.chmod(0o600)
    profile = Profile(ConfigFile.read(str(path)), name)
    assert profile.grant.can_log_in
    assert profile.adapters()


def test_the_pages_are_what_the_program_makes_of_the_facts(pages: ModuleType) -> None:
    made = pages.pages()
    folder = DOCS / "providers"
    assert {path.name for path in folder.glob("*.md")} == made.keys()
    for name, text in made.items():
        assert (folder / name).read_text("utf-8") == text, (
            f"{name} is out of date: run python docs/providers/pages.py"
        )
