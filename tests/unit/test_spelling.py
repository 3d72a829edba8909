"""A text in place of the path of a file: which is a path, and how much of it messages show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenadapter.spelling import may_be_path, shown_path

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLXNlY3JldA"
UNSIGNED = "eyJhbGciOiJub25lIn0.e30."
OPAQUE = "access-3yW0zqk8u5V1rQ2xJ7bTnA_hLmPdGfSe"
IN_BASE64 = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
SECRETS = [JWT, UNSIGNED, OPAQUE, IN_BASE64, f"/{OPAQUE}", "hunter2", "s3cret", "secret", PEM]
PATHS = [
    "token.json",
    "key.p8",
    "./subject",
    "secrets/subject-token",
    "~/.config/billing/secret",
    "/var/run/secrets/azure/tokens/azure-identity-token",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "3f2a7c1e.pem",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", SECRETS)
def test_a_text_that_names_no_file_and_looks_like_no_path_is_not_shown(text: str) -> None:
    shown = shown_path(text)
    assert shown.endswith(f"{os.sep}…")
    assert not any(part and part in shown for part in text.split("/"))


@pytest.mark.parametrize("text", PATHS)
def test_a_text_that_looks_like_a_path_is_shown_and_may_be_one(text: str) -> None:
    assert shown_path(text) == str(Path(text).expanduser().absolute())
    assert may_be_path(text)


@pytest.mark.parametrize("text", [JWT, UNSIGNED, OPAQUE, IN_BASE64, f"/{OPAQUE}", PEM, "a" * 256])
def test_a_token_or_a_key_is_no_path(text: str) -> None:
    assert not may_be_path(text)


@pytest.mark.parametrize("name", [JWT, OPAQUE, "secret"])
def test_what_exists_is_a_path_whatever_its_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.touch()
    assert may_be_path(name)
    assert shown_path(name) == shown_path(str(file)) == str(file)


def test_a_strange_name_in_a_directory_that_exists_may_appear_later(tmp_path: Path) -> None:
    directory = tmp_path / "pods"
    directory.mkdir()
    text = str(directory / "3f2a7c1e-0b5d-4e1a-9c57-5d0f6a1b2c3d" / "token")
    assert may_be_path(text)
    assert shown_path(text) == str(directory / "…")
    assert not may_be_path(str(directory / JWT))
