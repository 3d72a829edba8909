"""Secrets that are kept elsewhere: each kind of place, and its errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import ProfileError
from tokenadapter.config.references import Reference, is_reference, resolved

KEY = "billing.source.client_secret"


def reference(kind: str, place: Any, directory: Path = Path("/etc")) -> Reference:
    return Reference(kind, place, KEY, str(directory / "tokenadapter.toml"))


def prints(program: str) -> Reference:
    return reference("command", [sys.executable, "-c", program])


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_line_end_after_a_secret_is_not_part_of_it(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", f" s3cret {end}")
    (tmp_path / "secret").write_bytes(f" s3cret {end}".encode())
    assert reference("env", "SECRET").read() == " s3cret "
    assert reference("file", str(tmp_path / "secret")).read() == " s3cret "
    assert prints(f"print(' s3cret ', end={end!r})").read() == " s3cret "


def test_a_path_counts_from_the_configuration_or_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir("/")
    for directory in ("home", "etc"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "secret").write_text(directory)
    assert reference("file", "secret", tmp_path / "etc").read() == "etc"
    assert reference("file", "~/secret", tmp_path / "etc").read() == "home"


def test_a_byte_order_mark_is_not_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    assert reference("file", "secret", tmp_path).read() == "s3cret"


def test_the_keyring_is_asked_by_service_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    requested = []
    monkeypatch.setattr(keyring, "get_password", lambda *who: requested.append(who) or "s3cret")
    assert reference("keyring", "bill/ing/ada").read() == "s3cret"
    assert requested == [("bill/ing", "ada")]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (reference("env", "NO_SUCH"), "The environment variable NO_SUCH is not set. cron"),
        (reference("env", "EMPTY"), "The environment variable EMPTY is empty"),
        (reference("file", "/no/such"), "The file /no/such does not exist. Create it"),
        (prints(""), "The output of .*python.* is empty"),
        (prints("print('one\\ntwo')"), "has 2 lines: only the secret should be there"),
        (prints("print('s3cret'); exit(3)"), "python.* failed with exit code 3"),
        (prints("import os; os.write(1, b'\\xff')"), "The output of .*python.* is not UTF-8 text"),
        (reference("command", ["no-such-program"]), "no-such-program cannot be run: No such file"),
    ],
    ids=str,
)
def test_an_error_names_the_key_and_not_the_secret(
    made: Reference, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "\n")
    with pytest.raises(ProfileError, match=said) as caught:
        made.read()
    assert str(caught.value).startswith(f"/etc/tokenadapter.toml: {KEY}: ")
    assert caught.value.key == KEY
    assert "s3cret" not in str(caught.value)


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenadapter.config.references._COMMAND_TIMEOUT", 0.2)
    with pytest.raises(ProfileError, match=r"did not finish within 0\.2 s"):
        prints("import time; time.sleep(60)").read()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("name", ["./secret", "bin/secret"])
def test_a_relative_program_counts_from_the_configuration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the working directory could be another user's."""
    for directory in ("etc", "work"):
        (tmp_path / directory).mkdir()
        script(tmp_path / directory / name, f"echo {directory}")
    monkeypatch.chdir(tmp_path / "work")
    assert reference("command", [name], tmp_path / "etc").read() == "etc"


def test_the_arguments_of_a_program_count_from_the_configuration_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("etc", "work"):
        script(tmp_path / directory / "secret", f"echo {directory}")
    monkeypatch.chdir(tmp_path / "work")
    assert reference("command", ["sh", "secret"], tmp_path / "etc").read() == "etc"


@pytest.mark.parametrize("path", [".:/bin:/usr/bin", ":/bin:/usr/bin"])
def test_the_working_directory_is_not_searched_for_programs(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    script(tmp_path / "work" / "secret-of-mine", "echo work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", path)
    made = reference("command", ["secret-of-mine"], tmp_path / "etc")
    with pytest.raises(ProfileError, match="secret-of-mine cannot be run"):
        made.read()
    with pytest.raises(ProfileError, match="There is no program secret-of-mine in PATH"):
        made.check()


def test_a_check_reads_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    requested: list[object] = []
    monkeypatch.setattr(keyring, "get_password", lambda *who: requested.append(who))
    program = script(tmp_path / "program", f"touch {tmp_path}/was-run")
    os.mkfifo(tmp_path / "secret")  # a reader waits for a writer
    monkeypatch.setenv("SECRET", "s3cret")
    for kind, place in (
        ("keyring", "b/u"),
        ("command", [str(program)]),
        ("file", str(tmp_path / "secret")),
        ("env", "SECRET"),
    ):
        reference(kind, place).check()
    assert requested == []
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (reference("env", "NO_SUCH"), "The environment variable NO_SUCH is not set"),
        (reference("env", "EMPTY"), "The environment variable EMPTY is empty"),
        (reference("file", "/no/such"), "The file /no/such does not exist. Create it"),
        (reference("command", ["./no-such"]), r"/etc/\./no-such is not an executable program"),
        (reference("command", ["no-such"]), "There is no program no-such in PATH"),
    ],
    ids=str,
)
def test_a_check_names_what_is_missing(
    made: Reference, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "\n")
    with pytest.raises(ProfileError, match=said):
        made.check()


def test_a_check_finds_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    with pytest.raises(ProfileError, match=r"The file .*secret is empty"):
        reference("file", "secret", tmp_path).check()


def test_a_program_does_not_read_our_standard_input() -> None:
    assert prints("import sys; print(repr(sys.stdin.read()))").read() == "''"


def test_the_error_for_a_missing_keyring_entry_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyring = pytest.importorskip("keyring")
    monkeypatch.setattr(keyring, "get_password", lambda *who: None)
    with pytest.raises(ProfileError, match="no entry for service 'b' and user 'u': run `keyring"):
        reference("keyring", "b/u").read()


def test_the_error_for_a_locked_keyring_mentions_cron(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")

    def locked(*who: str) -> str:
        raise keyring.errors.KeyringLocked("locked")

    monkeypatch.setattr(keyring, "get_password", locked)
    with pytest.raises(ProfileError, match=r"cannot be read.*KeyringLocked.*as under cron"):
        reference("keyring", "b/u").read()


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ProfileError, match=r"pip install 'tokenadapter\[keyring\]'"):
        reference("keyring", "b/u").read()


def test_only_a_table_with_one_known_key_is_a_reference() -> None:
    assert is_reference({"env": "X"})
    assert not is_reference({"env": "X", "file": "y"})
    assert not is_reference({"user": "X"})
    assert not is_reference("env")


def test_references_are_replaced_at_any_depth() -> None:
    one = reference("env", "X")
    value = {"a": [one, 1], "b": {"c": one}, "d": "e"}
    read = resolved(value, lambda found: f"<{found.place}>")
    assert read == {"a": ["<X>", 1], "b": {"c": "<X>"}, "d": "e"}
    assert repr(one) == f"<Reference {KEY} env>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\ntwo\n", "The file .*secret has 2 lines: only the secret should be there"),
        (b"\xff\xfe", "The file .*secret is not UTF-8 text"),
        (b"\n", "The file .*secret is empty"),
    ],
)
def test_a_file_that_does_not_contain_one_secret_is_an_error(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ProfileError, match=said):
        reference("file", str(tmp_path / "secret")).read()


def test_a_keyring_entry_of_several_lines_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring")
    monkeypatch.setattr(keyring, "get_password", lambda *who: "one\ntwo")
    with pytest.raises(ProfileError, match=r"The keyring's entry b/u has 2 lines"):
        reference("keyring", "b/u").read()


@pytest.mark.parametrize("kind", ["env", "file"])
def test_a_secret_in_place_of_its_reference_is_not_shown(kind: str) -> None:
    secret = "ghp-16C7e42F292c6912E7710c838347Ae178B4a"
    one = reference(kind, secret)
    with pytest.raises(ProfileError, match="…") as caught:
        one.read()
    with pytest.raises(ProfileError) as checked:
        one.check()
    assert secret not in f"{caught.value} {checked.value} {one!r}"
