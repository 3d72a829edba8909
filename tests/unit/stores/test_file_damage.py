"""FileStore and a file that is not a record."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from tokenadapter.errors import StoreError
from tokenadapter.stores.file import FileStore
from tokenadapter.testing.contract.terms import content_of

from .helpers import failing, mode, save

DAMAGED = {
    "empty": b"",
    "torn": b'{\n  "format": "tokenadapter/1",\n  "tag": "tag 1",\n  "docum',
    "binary": b"\x00\xff\xfe\x80",
    "zeros": bytes(4096),
    "a list": b"[]",
    "another program's": b'{"access_token": "abc", "expires_in": 3600}',
    "without a tag": b'{"format": "tokenadapter/1", "document": {}}',
    "with a tag that is none": b'{"format": "tokenadapter/1", "tag": 1, "document": {}}',
    "with a document that is none": b'{"format": "tokenadapter/1", "tag": "1", "document": []}',
    "too deep": b"[" * 200_000,
    "too large": b'{"format": "tokenadapter/1", "tag": "1", "document": {"a": "%s"}}'
    % (b"x" * (1 << 20)),
}


@pytest.fixture(params=DAMAGED)
def damaged(request: pytest.FixtureRequest, path: Path) -> bytes:
    path.parent.mkdir(0o700)
    path.touch(0o600)
    path.write_bytes(DAMAGED[request.param])
    return DAMAGED[request.param]


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def test_a_damaged_file_counts_as_empty(
    store: FileStore, path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert content_of(store) == (None, None)
    assert path.read_bytes() == damaged
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("tokenadapter.store", logging.WARNING)
    ]
    assert str(path) in caplog.text


def test_a_save_puts_a_damaged_file_aside(
    store: FileStore, path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save(store)
    assert store.load().document == {"n": 1}
    (kept,) = aside(path)
    assert kept.read_bytes() == damaged
    assert mode(kept) == 0o600
    assert str(kept) in caplog.text
    assert "s3cr3t" not in caplog.text


def test_a_file_that_was_put_aside_is_for_its_owner_alone(path: Path) -> None:
    store = FileStore(path, private=False)
    save(store)
    path.write_text("damage")
    path.chmod(0o664)
    save(store)
    (kept,) = aside(path)
    assert mode(kept) == mode(path) == 0o600


@pytest.mark.usefixtures("damaged")
def test_a_write_that_expects_a_record_leaves_a_damaged_file(store: FileStore, path: Path) -> None:
    assert not store.save({"n": 2}, tag="tag 2", expected="tag 1", ttl=None)
    assert aside(path) == []


def test_no_file_that_was_put_aside_is_overwritten(store: FileStore, path: Path) -> None:
    for number in range(3):
        save(store)
        path.write_text(f"damage {number}")
        save(store)
        path.unlink()
    assert {kept.read_text() for kept in aside(path)} == {"damage 0", "damage 1", "damage 2"}


def test_a_damaged_file_stays_where_it_is_if_it_cannot_be_put_aside(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store)
    path.write_text("damage")
    monkeypatch.setattr(os, "replace", failing(os.replace, errno.EIO))
    with pytest.raises(StoreError, match="Input/output error"):
        save(store)
    assert path.read_text() == "damage"
    assert aside(path) == []


def test_the_record_of_a_newer_version_is_refused_and_kept(store: FileStore, path: Path) -> None:
    save(store)
    newer = path.read_text().replace("tokenadapter/1", "tokenadapter/2")
    path.write_text(newer)
    for attempt in (store.load, lambda: save(store, 2)):
        with pytest.raises(StoreError, match="tokenadapter/2: upgrade"):
            attempt()
    assert path.read_text() == newer


def test_a_record_that_could_not_be_loaded_is_not_saved(store: FileStore) -> None:
    save(store)
    with pytest.raises(StoreError, match="more than 1048576"):
        store.save({"a": "x" * (1 << 20)}, tag="tag 2", expected="tag 1", ttl=None)
    assert store.load().document == {"n": 1}
