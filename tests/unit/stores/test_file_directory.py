"""Which directories FileStore trusts, and what it says of files that other users left there."""

from __future__ import annotations

import fcntl
import grp  # noqa: F401 - see below
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from doubles import Authority

# A child that is another user may not be able to import them.
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.errors import StoreError
from tokenadapter.stores import _strangers
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.lockfile import LockFile
from tokenadapter.testing.workers import succeeds_in_child

from .helpers import mode, save

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

# Users without a name.
ALICE, MALLORY = 54321, 54322
# A group without a name.
TEAM = 54323


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that all users can enter: pytest's own is for one user alone."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def as_user(uid: int, work: Callable[[], bool], groups: Sequence[int] = ()) -> bool:
    def child() -> bool:
        os.setgroups([*groups])
        os.setgid(uid)
        os.setuid(uid)
        return work()

    return succeeds_in_child(child)


def attempts(store: FileStore) -> list[Callable[[], object]]:
    return [
        store.load,
        lambda: save(store, 2, expected="tag 1"),
        lambda: store.remember_spent("hash", for_good=True),
        lambda: store.was_spent("hash"),
    ]


@needs_root
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, levels: int) -> None:
    store = FileStore(tmp_path / "a" / "b" / "c" / "token.json")
    save(store)
    directory = Path(store.path).parents[levels]
    os.chown(directory, MALLORY, MALLORY)
    for attempt in attempts(store):
        with pytest.raises(
            StoreError, match=rf"{directory}\b.* belongs to another user \(uid {MALLORY}\)"
        ):
            attempt()
    assert FileStore(store.path, private=False).load().document == {"n": 1}


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("bits", [0o777, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(
    tmp_path: Path, levels: int, bits: int
) -> None:
    store = FileStore(tmp_path / "a" / "b" / "c d" / "token.json")
    save(store)
    directory = Path(store.path).parents[levels]
    directory.chmod(bits)
    for attempt in attempts(store):
        with pytest.raises(StoreError, match=rf"others can write to {directory}\b.*`chmod go-w '?"):
            attempt()
    assert FileStore(store.path, private=False).load().document == {"n": 1}
    directory.chmod(0o755)
    assert store.load().document == {"n": 1}


def test_no_refresh_token_is_spent_where_others_can_move_the_record_away(
    store: FileStore, path: Path
) -> None:
    path.parent.mkdir(0o700)
    path.parent.chmod(0o777)
    source = Authority()
    for _ in range(2):
        with pytest.raises(StoreError, match="others can write to"):
            TokenKeeper(source, store).current()
    assert source.presented == []
    assert {entry.name for entry in path.parent.iterdir()} <= {"token.json.reserve"}


def test_nothing_is_created_below_a_directory_that_others_can_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    store = FileStore(tmp_path / "new" / "token.json")
    with pytest.raises(
        StoreError, match=rf"others can write to {tmp_path} \(mode 0777\), which is above"
    ):
        store.load()
    assert [*tmp_path.iterdir()] == []


def test_a_sticky_directory_may_be_above_the_records_directory_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StoreError, match=f"such as {tmp_path}/tokenadapter\\."):
        FileStore(tmp_path / "token.json").load()
    store = FileStore(tmp_path / "tokenadapter" / "token.json")
    save(store)
    assert store.load().document == {"n": 1}
    assert mode(tmp_path / "tokenadapter") == 0o700


def test_the_target_of_a_link_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "shared" / "state").mkdir(0o700, parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    store = FileStore(tmp_path / "link" / "state" / "token.json")
    save(store)
    assert store.load().document == {"n": 1}
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(
        StoreError, match=rf"others can write to {tmp_path}/shared \(mode 0777\), which is above"
    ):
        store.load()


@needs_root
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "state").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    save(FileStore(tmp_path / "link" / "token.json"))
    os.chown(tmp_path / "link", MALLORY, MALLORY, follow_symlinks=False)
    with pytest.raises(StoreError, match=f"{tmp_path}/link belongs to another user"):
        FileStore(tmp_path / "link" / "token.json").load()


@needs_root
def test_a_group_whose_only_member_is_this_user_may_write(public: Path) -> None:
    os.chown(public, ALICE, ALICE)
    public.chmod(0o775)

    def work() -> bool:
        save(FileStore(public / "token.json"))
        return FileStore(public / "token.json").load().document == {"n": 1}

    assert as_user(ALICE, work)


@needs_root
@pytest.mark.parametrize("is_member", [True, False])
def test_a_group_of_other_users_must_not_write(public: Path, is_member: bool) -> None:
    others = next(user.pw_gid for user in pwd.getpwall() if user.pw_uid and user.pw_gid)
    os.chown(public, ALICE, others)
    public.chmod(0o770)

    def work() -> bool:
        with pytest.raises(StoreError, match=rf"others can write to {public} \(mode 0770\)"):
            FileStore(public / "token.json").load()
        return True

    assert as_user(ALICE, work, [others] if is_member else [])


def test_the_owner_of_the_file_system_is_trusted_where_root_has_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a user namespace into which root is not mapped.
    seen = SimpleNamespace(st_uid=65534, st_gid=65534, st_mode=0o40755)
    monkeypatch.setattr(os, "stat", lambda path: seen)
    _strangers.check("/home", seen, str(tmp_path))  # type: ignore[arg-type]


# What others left in a directory that is this user's by now


@needs_root
@pytest.mark.parametrize("name", ["token.json.lock", "token.json.spent", "token.json"])
def test_a_file_of_another_user_that_cannot_be_opened_is_named_with_its_owner(
    public: Path, name: str
) -> None:
    for file in ("token.json.lock", "token.json.spent", "token.json"):
        (public / file).touch(0o600)
        os.chown(public / file, ALICE, ALICE)
    os.chown(public, ALICE, ALICE)
    os.chown(public / name, MALLORY, MALLORY)

    store = FileStore(public / "token.json")
    attempt: dict[str, Callable[[], object]] = {
        "token.json": store.load,
        "token.json.lock": lambda: store.lock().acquire(60),
        "token.json.spent": lambda: store.was_spent("hash"),
    }

    def work() -> bool:
        with pytest.raises(StoreError) as caught:
            attempt[name]()
        message = str(caught.value)
        assert f"`chown {ALICE} {public / name}` as root" in message
        return f"{public / name} belongs to another user (uid {MALLORY})" in message

    assert as_user(ALICE, work)


@needs_root
def test_a_lock_that_another_user_holds_is_an_error_at_once(store: FileStore, path: Path) -> None:
    save(store)
    file = path.with_name("token.json.lock")
    os.chown(file, MALLORY, MALLORY)
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=rf"{file} belongs to another user \(uid {MALLORY}\)"):
            store.lock().acquire(60)
        with pytest.raises(StoreError, match=rf"{file} belongs to another user \(uid {MALLORY}\)"):
            store.lock().acquire_within(0)
    assert store.lock().acquire(60)


@needs_root
def test_the_owner_of_a_lock_that_may_be_anothers_is_named(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenadapter.stores._tenure.WRITE_TIMEOUT", 0.05)
    save(store)
    file = path.with_name("token.json.lock")
    os.chown(file, MALLORY, MALLORY)
    held = LockFile(str(file), store)
    assert held.acquire(60)
    with pytest.raises(StoreError, match=rf"belongs to another user, uid {MALLORY}\) for .*again"):
        save(FileStore(path, private=False))
    held.release()


# What users share on purpose


@needs_root
def test_the_members_of_a_group_share_a_file_in_a_directory_of_the_group(public: Path) -> None:
    os.chown(public, 0, TEAM)
    public.chmod(0o2770)
    store = FileStore(public / "token.json", private=False)

    def as_alice() -> bool:
        lock = store.lock()
        assert lock.acquire(60)
        save(store)
        lock.release()
        store.remember_spent("hash", for_good=True)
        return True

    def as_bob() -> bool:
        assert store.load().document == {"n": 1}
        assert store.was_spent("hash")
        lock = store.lock()
        assert lock.acquire(60)
        store.prepare()
        save(store, 2, expected="tag 1")
        return lock.confirm()

    assert as_user(ALICE, as_alice, [TEAM])
    assert as_user(MALLORY, as_bob, [TEAM])
    assert store.load().document == {"n": 2}
    assert {mode(entry) for entry in public.iterdir()} == {0o660}
    with pytest.raises(StoreError, match="others can write to"):
        FileStore(store.path).load()


def test_without_write_permission_of_the_group_files_are_for_their_owner_alone(
    store: FileStore, path: Path
) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o750)
    save(FileStore(path, private=False))
    assert {mode(entry) for entry in path.parent.iterdir()} == {0o600}
