"""A source without a token, and a store for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenadapter import FileStore, RefreshToken
from tokenadapter.testing import TokenServer


@pytest.fixture
def source(server: TokenServer) -> RefreshToken:
    return RefreshToken(server.token_url, client_id="client", client_secret="secret", scope="read")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "token.json")
