"""Files that only their user may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokenadapter import groups
from tokenadapter.keys.key import Key, UnusableKey
from tokenadapter.keys.private_file import _check, read_private

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


@pytest.fixture(autouse=True)
def shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are in the group of each file."""
    monkeypatch.setattr(groups, "_is_alone_in", lambda gid: False)


def found(*, mode: int, owner: int) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o755])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "my key.pem"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(UnusableKey, match=rf"mode {mode:04o}.*`chmod 600 '{path}'`"):
        Key(path).check()
    path.chmod(0o400)
    assert read_private(str(path)) == b"secret"


@posix
def test_a_group_may_read_a_file_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _check("key.pem", found(mode=0o440, owner=0))
    for mode in (0o444, 0o460):
        with pytest.raises(ValueError, match=r"by other users .* have it mounted with mode 0440"):
            _check("key.pem", found(mode=mode, owner=0))


@posix
def test_a_file_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="belongs to another user"):
        _check("key.pem", found(mode=0o600, owner=1001))


@posix
def test_a_path_that_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises((ValueError, OSError), match="not a regular file"):
            read_private(str(path))


def test_a_file_that_is_too_long_for_a_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(bytes(1 << 17))
    path.chmod(0o600)
    with pytest.raises(ValueError, match="longer than 64 KiB"):
        read_private(str(path))
