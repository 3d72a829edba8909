"""``file``: a file with a token, which is kept fresh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter.testing import TokenServer

from .conftest import Command, start
from .test_tokens import aged, outlive

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes and signals")


@pytest.fixture
def target(place: Path) -> Path:
    return place / "tokens" / "billing"


@pytest.fixture
def watch(target: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command with ``--watch``."""
    started: list[subprocess.Popen[str]] = []

    def begin(*more: str) -> subprocess.Popen[str]:
        process = start("file", "billing", str(target), "--watch", "0.1", *more)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* is true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal.  Only Linux tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True
    (mask,) = [line[7:] for line in status.read_text().splitlines() if line[:7] == "SigIgn:"]
    return bool(int(mask, 16) >> number - 1 & 1)


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_the_file_contains_the_token_alone(
    command: Command, profile: Path, server: TokenServer, target: Path
) -> None:
    assert command("file", "billing", str(target)) == (0, "", "")
    assert f"{target.read_text()}\n" == command("token", "billing")[1]
    assert server.stats.renewals == 1
    assert [path.name for path in target.parent.iterdir()] == ["billing"]


@POSIX
def test_only_this_user_can_read_the_file(command: Command, profile: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700)
    target.write_text("an earlier one")
    target.chmod(0o644)
    before = target.stat().st_ino
    assert command("file", "billing", str(target))[0] == 0
    found = target.stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_ino != before  # a reader has the earlier file or the new one


@POSIX
def test_a_directory_that_others_can_write_to_is_refused(
    command: Command, profile: Path, target: Path
) -> None:
    target.parent.mkdir()
    target.parent.chmod(0o777)
    code, out, err = command("file", "billing", str(target))
    assert (code, out) == (3, "")
    assert "The token was not written: others can write to" in err
    assert list(target.parent.iterdir()) == []


@POSIX
def test_a_link_is_replaced_and_not_followed(
    command: Command, profile: Path, target: Path, place: Path
) -> None:
    target.parent.mkdir(mode=0o700)
    target.symlink_to(place / "elsewhere")
    assert command("file", "billing", str(target))[0] == 0
    assert not target.is_symlink()
    assert not (place / "elsewhere").exists()


def test_no_file_that_a_profile_needs_is_overwritten(
    command: Command, profile: Path, place: Path
) -> None:
    other = profile.read_text().replace("billing", "other").replace("token.json", "other.json")
    other = other.replace('"secret"', '{ file = "secret" }')
    broken = '[broken]\nprefix = "https://api.example.com/"\n'
    write(place, f"{profile.read_text()}\n{other}\n{broken}")
    (place / "secret").write_text("secret")
    for name in ("billing", "other"):
        assert command("token", name)[0] == 0
    state = place / "state"
    for path in (profile, place / "secret", *state.iterdir()):
        before = path.read_bytes()
        code, _, err = command("file", "billing", str(path))
        assert code == 3
        assert f"{path} is a file that a profile needs" in err
        assert path.read_bytes() == before
    assert {"token.json", "other.json", "other.json.lock"} <= {
        path.name for path in state.iterdir()
    }
    assert command("file", "billing", str(state / "token"))[0] == 0


def test_a_file_that_cannot_be_written_is_an_error(
    command: Command, profile: Path, target: Path
) -> None:
    target.parent.write_text("a file")
    code, _, err = command("file", "billing", str(target))
    assert code == 1
    assert f"{target} cannot be written: " in err


@POSIX
@pytest.mark.parametrize("kind", ["directory", "pipe", "link to a device"])
def test_only_a_regular_file_is_replaced(
    command: Command, profile: Path, target: Path, kind: str
) -> None:
    target.parent.mkdir(mode=0o700)
    if kind == "directory":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(os.devnull)
    before = target.lstat()
    code, _, err = command("file", "billing", str(target))
    assert code == 3
    assert f"{target} is not a regular file" in err
    assert os.path.samestat(before, target.lstat())
    assert list(target.parent.iterdir()) == [target]


# --- --watch -----------------------------------------------------------------------------


@POSIX
def test_the_file_is_replaced_before_the_token_expires(
    command: Command,
    profile: Path,
    server: TokenServer,
    place: Path,
    target: Path,
    watch: Callable[..., subprocess.Popen[str]],
) -> None:
    command("file", "billing", str(target))
    first = content(target)
    aged(place, left=300, lifetime=3600)
    process = watch()
    until(lambda: content(target) != first)
    assert server.stats.renewals == 2
    process.terminate()
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@POSIX
def test_the_file_follows_a_renewal_by_another_process(
    command: Command,
    profile: Path,
    server: TokenServer,
    target: Path,
    watch: Callable[..., subprocess.Popen[str]],
) -> None:
    process = watch()
    until(lambda: content(target))
    server.expire_now()
    assert command("refresh", "billing", "--quiet")[0] == 0
    token = command("token", "billing")[1].strip()
    until(lambda: content(target) == token)
    assert server.stats.renewals == 2
    target.unlink()
    until(lambda: content(target) == token)
    process.terminate()
    assert process.wait(30) == 0


@POSIX
def test_an_outage_is_reported_once_and_leaves_the_last_token(
    place: Path, target: Path, watch: Callable[..., subprocess.Popen[str]]
) -> None:
    with TokenServer(lifetime=1) as server:
        write(place, billing(server, place))
        process = watch()
        until(lambda: content(target))
        server.fail_next(503, count=3, retry_after=1)
        before = server.stats
        until(lambda: server.stats.token_requests >= before.token_requests + 3)
        last = content(target)
        assert last
        until(lambda: content(target) != last)
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    # At most once while the token lived, and once when it had expired.
    assert 1 <= len(err.splitlines()) <= 2, err


@POSIX
def test_without_a_first_token_the_command_ends(
    profile: Path, server: TokenServer, target: Path, watch: Callable[..., subprocess.Popen[str]]
) -> None:
    server.fail_next(503)
    process = watch()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 5
    assert len(err.splitlines()) == 1
    assert not target.exists()


@POSIX
def test_a_stop_waits_for_a_refresh_token_that_is_being_presented(
    rotating: TokenServer,
    place: Path,
    target: Path,
    command: Command,
    watch: Callable[..., subprocess.Popen[str]],
) -> None:
    command("token", "billing")
    outlive(place)
    with rotating.hold(endpoint="token"):
        process = watch()
        rotating.wait_for(lambda stats: stats.token_requests > 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: ignores(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert command("token", "billing")[0] == 0
    assert rotating.stats.renewals == 2
    assert rotating.stats.reuse_detections == 0


def test_a_valid_token_needs_no_requests_and_no_errors(profile: Path, target: Path) -> None:
    program = (
        "import sys; from tokenadapter.cli.main import main; "
        f"code = main(['file', 'billing', {str(target)!r}]); "
        "print('requests' in sys.modules, 'tokenadapter.errors' in sys.modules); sys.exit(code)"
    )
    for loaded in ("True True", "False False"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout.strip()) == (0, loaded), done.stderr
