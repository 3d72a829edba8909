"""Files and directories that a group may use: a Kubernetes volume with ``fsGroup``, for example."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

# A child that is another user may not be able to import them.
from tokenadapter.cli import findings
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.problems import ProfileError
from tokenadapter.errors import StoreError
from tokenadapter.keys.private_file import read_private
from tokenadapter.stores import _files, _flock, _strangers, _tenure  # noqa: F401
from tokenadapter.stores._strangers import check_database
from tokenadapter.stores.file import FileStore
from tokenadapter.testing.workers import succeeds_in_child

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

# A user and a group that no database knows.
APP, FS_GROUP = 12345, 54324
PROFILE = """
[billing]
prefix = "https://api.example/"
store = "file:{}"

[billing.source]
type = "client_credentials"
token_url = "https://id.example/token"
client_id = "client"
client_secret = "secret"
"""


@pytest.fixture
def mount() -> Iterator[Path]:
    """A volume: all users can enter the directories above it, unlike pytest's own."""
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    mount = above / "mount"
    mount.mkdir()
    start_pod(mount)
    yield mount
    shutil.rmtree(above)


def start_pod(mount: Path) -> None:
    """What the kubelet does at each start of a pod: the group, ``g+rw``, and ``g+xs`` for
    directories."""
    for path in (mount, *mount.rglob("*")):
        os.chown(path, -1, FS_GROUP)
        extra = stat.S_ISGID | 0o110 if path.is_dir() else 0
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o660 | extra)


def in_pod(work: Callable[[], object], groups: Sequence[int] = (FS_GROUP,)) -> None:
    def child() -> bool:
        os.setgroups([*groups])
        os.setgid(APP)
        os.setuid(APP)
        work()
        return True

    assert succeeds_in_child(child)


def write(path: Path, content: str) -> None:
    """Create a file of the user, with the mode that it has after a start of the pod."""
    path.write_text(content)
    path.chmod(0o600)
    os.chown(path, APP, APP)
    start_pod(path.parent)


def renewed(store: FileStore) -> None:
    """Do what a renewal does to the files."""
    document = store.load().document
    number = 0 if document is None else int(str(document["n"]))
    reservation = store.reserve()
    assert reservation is not None
    with reservation:
        lock = store.lock()
        assert lock.acquire(60)
        store.prepare()
        expected = None if document is None else f"tag {number}"
        assert store.save({"n": number + 1}, tag=f"tag {number + 1}", expected=expected, ttl=None)
        store.remember_spent(f"hash {number}", for_good=True)
        lock.release()
    assert all(store.was_spent(f"hash {one}") for one in range(number + 1))
    assert store.load().document == {"n": number + 1}


@pytest.mark.parametrize("name", ["token.json", "state/token.json"])
def test_a_store_in_a_volume_works_after_each_start_of_its_pod(mount: Path, name: str) -> None:
    assert stat.S_IMODE(mount.stat().st_mode) == 0o2775
    for _ in range(3):
        in_pod(lambda: renewed(FileStore(mount / name)))
        files = [path for path in mount.rglob("*") if path.is_file()]
        start_pod(mount)
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o660}


def test_a_file_that_is_read_becomes_private_again(mount: Path) -> None:
    store = FileStore(mount / "token.json")
    in_pod(lambda: renewed(store))
    start_pod(mount)
    in_pod(lambda: (store.load(), store.was_spent("hash")))
    assert stat.S_IMODE((mount / "token.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((mount / "token.json.spent").stat().st_mode) == 0o600


def test_a_mode_that_cannot_be_narrowed_is_logged_once(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(lambda: renewed(FileStore(mount / "token.json")))
    start_pod(mount)
    said: list[str] = []

    def refuse(fd: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    class Listing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    def work() -> None:
        monkeypatch.setattr(os, "fchmod", refuse)
        logging.getLogger("tokenadapter.store").addHandler(Listing())
        for _ in range(3):
            assert FileStore(mount / "token.json").load().document == {"n": 1}
        (message,) = said
        assert f"the group of {mount}/token.json can read or write it (mode 0660)" in message
        assert "cannot be changed: Operation not permitted." in message

    in_pod(work)


@pytest.mark.parametrize("why", ["not a member", "another member", "another user's own"])
def test_a_group_with_others_in_it_is_refused(
    mount: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    store = FileStore(mount / "state" / "token.json")
    in_pod(lambda: renewed(store))
    start_pod(mount)
    other = SimpleNamespace(pw_name="mallory", pw_uid=4711, pw_gid=4711)
    if why == "another member":
        monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_mem=["mallory"]))
    elif why == "another user's own":
        other.pw_gid = FS_GROUP
    monkeypatch.setattr(pwd, "getpwall", lambda: [other])

    def refused() -> None:
        with pytest.raises(StoreError, match=rf"others can write to {mount}/state \(mode 2770\)"):
            store.load()

    def refused_file() -> None:
        with pytest.raises(StoreError, match=r"others may read or write .* \(mode 0660\)"):
            store.load()

    groups = [] if why == "not a member" else [FS_GROUP]
    in_pod(refused, groups)
    mount.chmod(0o755)
    (mount / "state").chmod(0o711)
    os.chown(mount / "state", APP, -1)
    in_pod(refused_file, groups)


@pytest.mark.parametrize("is_shared", [False, True])
def test_all_checks_of_a_mode_agree(
    mount: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    write(mount / "key.pem", "secret")
    write(mount / "tokens.db", "")
    write(mount / "tokenadapter.toml", PROFILE.format(mount / "token.json"))
    program = mount / "program"
    write(program, "")
    in_pod(lambda: renewed(FileStore(mount / "token.json")))
    start_pod(mount)
    members = ["mallory"] if is_shared else []
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_mem=members))

    def outcomes() -> list[object]:
        config = str(mount / "tokenadapter.toml")
        found = [
            one.text
            for one in findings.findings(ConfigFile.read(config), ["billing"], offline=True)
        ]
        return [
            [text for text in found if "thers can" in text],
            [*findings._readers("key", str(mount / "key.pem"))],
            [*findings._writers("program", str(program))],
            read_private(str(mount / "key.pem")),
            check_database(str(mount / "tokens.db")),
        ]

    def all_is_well() -> None:
        assert outcomes() == [[], [], [], b"secret", None]

    def all_is_refused() -> None:
        with pytest.raises(ProfileError, match="Other users can write"):
            ConfigFile.read(str(mount / "tokenadapter.toml"))
        with pytest.raises(ValueError, match="can be read or written by other users"):
            read_private(str(mount / "key.pem"))
        with pytest.raises(Exception, match="others can read the tokens"):
            check_database(str(mount / "tokens.db"))
        assert [*findings._readers("key", str(mount / "key.pem"))]
        assert [*findings._writers("program", str(program))]

    in_pod(all_is_refused if is_shared else all_is_well)
