"""FileStore without the features that Windows lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tokenadapter.stores import _files, _reading
from tokenadapter.stores.file import FileStore

from .helpers import failing, save


def test_the_store_waits_while_another_process_has_the_file_open(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "_PAUSES", (0, 0, 0))
    monkeypatch.setattr(os, "replace", failing(os.replace, errno.EACCES, times=2))
    monkeypatch.setattr(
        os, "open", failing(os.open, errno.EACCES, times=2, only=lambda path: path == store.path)
    )
    save(store)
    assert store.load().document == {"n": 1}


def test_the_store_works_without_modes_and_directory_syncs(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_files, _reading):
        monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EACCES, only=os.path.isdir))
    monkeypatch.delattr(os, "geteuid")
    save(store)
    path.chmod(0o666)
    assert store.load().document == {"n": 1}
