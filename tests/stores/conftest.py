"""One slot in a file, which most tests here are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenadapter.stores.file import FileStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "token.json"


@pytest.fixture
def store(path: Path) -> FileStore:
    return FileStore(path)
