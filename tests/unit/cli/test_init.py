"""``init``: creates a small configuration file, and never changes an existing one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tokenadapter.config.config_file import EXAMPLE
from tokenadapter.sources.providers import example

from .conftest import Command


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_creates_a_file_that_the_other_commands_find(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENADAPTER_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(place))
    path = place / ".config" / "tokenadapter" / "tokenadapter.toml"
    code, out, err = command("init")
    assert (code, err) == (0, "")
    assert out == f"Created {path}. Edit it, then run `tokenadapter check`.\n"
    assert path.read_text() == EXAMPLE
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert command("completion", "names") == (0, "billing\n", "")
    assert "billing-secret does not exist" in command("check", "--offline")[1]


def test_init_creates_the_file_that_is_named(command: Command, place: Path) -> None:
    code, out, _ = command("init", "--config", "other/mine.toml")
    assert code == 0
    assert out.endswith("Edit it, then run `tokenadapter check --config other/mine.toml`.\n")
    assert (place / "other" / "mine.toml").exists()
    assert not (place / "tokenadapter.toml").exists()
    # The fixture sets the variable.
    assert "`tokenadapter init` to create" in command("status")[2]
    assert command("init")[0] == 0
    assert command("status")[0] == 0


@pytest.mark.parametrize("kind", ["file", "link", "link that leads nowhere"])
def test_an_existing_file_is_not_changed(command: Command, place: Path, kind: str) -> None:
    path, target = place / "tokenadapter.toml", place / "target"
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(target)
    if kind == "link":
        target.write_text("mine")
    code, out, err = command("init")
    assert (code, out) == (3, "")
    assert err == f"tokenadapter: {path}: The file exists already and was not changed.\n"
    assert target.exists() is (kind == "link")
    assert kind == "link that leads nowhere" or path.read_text() == "mine"


def test_the_error_says_why_the_file_cannot_be_written(command: Command, place: Path) -> None:
    (place / "file").touch()
    code, _, err = command("init", "--config", "file/tokenadapter.toml")
    assert code == 3
    assert err.startswith(
        f"tokenadapter: {place}/file/tokenadapter.toml: The file cannot be written: "
    )


def test_init_writes_the_profile_for_a_provider(command: Command, place: Path) -> None:
    code, out, _ = command("init", "--provider", "google")
    assert code == 0
    assert out.endswith("run `tokenadapter check` and `tokenadapter login google`.\n")
    assert (place / "tokenadapter.toml").read_text() == example("google")
    assert mode(place / "tokenadapter.toml") == 0o600
    assert command("completion", "names")[1] == "google\n"


def test_the_profile_for_a_provider_is_shown_where_a_file_exists(
    command: Command, place: Path
) -> None:
    (place / "tokenadapter.toml").write_text("mine")
    code, _, err = command("init", "--provider", "spotify")
    assert code == 3
    assert f"not changed. Add this profile to it:\n\n{example('spotify')}" in err
    assert (place / "tokenadapter.toml").read_text() == "mine"


def test_an_unknown_provider_is_explained(command: Command, place: Path) -> None:
    code, _, err = command("init", "--provider", "spotfy")
    assert code == 3
    assert "Did you mean 'spotify'?" in err
    assert not (place / "tokenadapter.toml").exists()
