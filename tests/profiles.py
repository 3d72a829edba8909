"""Configuration files for tests."""

from __future__ import annotations

from pathlib import Path

from tokenadapter.testing import TokenServer


def write(directory: Path, text: str) -> Path:
    """Write a configuration file into *directory*, with private permissions."""
    path = directory / "tokenadapter.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def billing(server: TokenServer, directory: Path, kind: str = "client_credentials") -> str:
    """The profile ``billing`` for *server*, with its token in *directory*."""
    return f"""
[billing]
prefix = "{server.api_url}"
store = "file:{directory}/state/token.json"

[billing.source]
type = "{kind}"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"
"""
