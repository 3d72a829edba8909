"""A keyring that works without a desktop: a directory, with a file for each entry.

Processes share it by the environment variables ``PYTHON_KEYRING_BACKEND``, which names its class,
and ``TEST_KEYRING``, which names its directory.
"""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class Recommended(KeyringBackend):
    """Takes entries of any length."""

    priority = 5

    def get_password(self, service: str, username: str) -> str | None:
        try:
            return self._path(service, username).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def set_password(self, service: str, username: str, password: str) -> None:
        path = self._path(service, username)
        draft = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        draft.touch(0o600)
        draft.write_text(password, encoding="utf-8")
        draft.replace(path)

    def delete_password(self, service: str, username: str) -> None:
        try:
            self._path(service, username).unlink()
        except FileNotFoundError:
            raise PasswordDeleteError("no such entry") from None

    def entries(self) -> int:
        """How many entries there are."""
        return len([*_directory().glob("*.entry")])

    def _path(self, service: str, username: str) -> Path:
        name = sha256(f"{service}\0{username}".encode()).hexdigest()
        return _directory() / f"{name}.entry"


class Discouraged(Recommended):
    """Stores secrets in plain text, as its name says."""

    priority = 0.5


def _directory() -> Path:
    return Path(os.environ["TEST_KEYRING"])
