"""Two profiles of one file that name one store."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import Command
from .test_check import problems


@pytest.fixture
def text(server: TokenServer, place: Path) -> str:
    """The profiles ``cal``, for a user, and ``cc``, with client credentials."""
    user = billing(server, place, "refresh_token").replace("billing", "cal")
    first = f'refresh_token = "{server.issue()["refresh_token"]}"\n'
    return user + first + billing(server, place).replace("billing", "cc")


def states(command: Command) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(command("status", "--json")[1])}


def test_profiles_of_two_sources_in_one_store_are_a_problem_before_any_login(
    command: Command, text: str, place: Path
) -> None:
    write(place, text)
    for names, sharer in (((), "cal"), (("cc",), "cal"), (("cal",), "cc")):
        (problem,) = problems(command, "--offline", *names)
        assert problem.startswith(f"{sharer} uses this store too (FileStore(")
        assert "another `store`" in problem


def test_one_store_for_two_scopes_is_a_problem(
    command: Command, server: TokenServer, place: Path
) -> None:
    text = billing(server, place)
    other = text.replace("billing", "other")
    write(place, f"{text}{other}")
    assert problems(command, "--offline") == []
    write(place, f'{text}{other}scope = "read"\n')
    (problem,) = problems(command, "--offline")
    assert problem.startswith("billing uses this store too")


def test_slots_of_one_database_are_stores_of_their_own(
    command: Command, text: str, place: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    first, second = f"sqlite:///{place}/db?create=1#cal", f"sqlite:///{place}/db?create=1#cc"
    file = f"file:{place}/state/token.json"
    write(place, text.replace(file, first, 1).replace(file, second))
    assert problems(command, "--offline") == []


def test_the_profile_that_owns_the_token_is_named_and_its_token_is_not_deleted(
    command: Command, text: str, place: Path
) -> None:
    write(place, text)
    assert command("header", "cal")[0] == 0
    cause = states(command)["cc"]["failure"]["cause"]
    assert cause == ("The store contains the token of the profile cal. Give cc another `store`.")
    assert not any("forget" in problem for problem in problems(command, "--offline"))
    kept = command("token", "cal")[1]
    code, _, err = command("header", "cc")
    assert code == 3
    assert "`tokenadapter check cc` says how" in err
    assert "forget" not in err
    code, _, err = command("forget", "cc", "--force")
    assert code == 3
    assert "cc.store: This store contains the token of the profile cal. Nothing was deleted" in err
    assert command("token", "cal")[1] == kept


def test_advice_about_another_profile_of_a_named_file_names_the_file(
    command: Command, text: str, place: Path
) -> None:
    """Otherwise it would revoke the token of a profile of that name in the user's own file."""
    folder = place / "a team's; files"
    folder.mkdir()
    path = str(write(folder, text))
    assert command("header", "cal", "--config", path)[0] == 0
    code, _, err = command("forget", "cc", "--force", "--config", path)
    assert code == 3
    (advice,) = re.findall("`(tokenadapter forget .*)`", err)
    assert shlex.split(advice) == ["tokenadapter", "forget", "cal", "--config", path]


def test_status_names_what_differs_from_the_source_of_the_stored_token(
    command: Command, rotating: TokenServer, place: Path
) -> None:
    command("header", "billing")
    path = place / "tokenadapter.toml"
    path.write_text(path.read_text() + 'account = "ada"\n')
    cause = states(command)["billing"]["failure"]["cause"]
    assert "token of another source: user is not named there, and 'ada' here. If" in cause
    assert "`tokenadapter forget billing --force`" in cause


def test_status_suspects_another_file_that_uses_the_same_default_store(
    command: Command, server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    text = billing(server, place)
    (store,) = (line for line in text.splitlines() if line.startswith("store"))
    write(place, text.replace(store, ""))
    assert command("header", "billing")[0] == 0
    write(place, text.replace(store, "").replace('"client"', '"staging"'))
    cause = states(command)["billing"]["failure"]["cause"]
    assert (
        "client is 'client' there, and 'staging' here. If another configuration file has" in cause
    )
    assert "set `store` in both" in cause


def test_the_advice_to_name_the_user_of_two_profiles_leads_to_a_working_login(
    command: Command, server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in() -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(server.issue())))
        return command("adopt", "billing")[0]

    one = billing(server, place, "refresh_token")
    two = one.replace("billing", "other")
    write(place, one + two)
    assert log_in() == 0
    assert command("refresh", "billing")[0] == 0
    (problem,) = [text for text in problems(command, "--offline") if "If both are" in text]
    assert "already stored: run `tokenadapter logout other` before" in problem
    assert command("logout", "other")[0] == 0
    write(place, f'{one}account = "ada"\n{two}account = "ada"\n')
    assert command("forget", "other", "--force")[0] == 0
    assert log_in() == 0
    assert problems(command, "--offline") == []
    assert command("header", "other")[0] == 0
