"""Names of processes, and whether a process has certainly died."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tokenadapter import process_names
from tokenadapter.testing.workers import succeeds_in_child

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells what it takes"
)
TELL = "from tokenadapter import process_names; print(process_names.this_process(), flush=True)"


def with_part(name: str, part: int, text: str) -> str:
    parts = name.split(":")
    parts[part] = text
    return ":".join(parts)


@pytest.fixture
def other() -> subprocess.Popen[str]:
    """Another process that has printed its name, and waits until the test ends it."""
    program = f"{TELL}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process  # type: ignore[misc]
        process.kill()


def test_a_process_has_one_name_and_a_forked_child_another() -> None:
    name = process_names.this_process()
    assert process_names.this_process() == name
    assert succeeds_in_child(lambda: process_names.this_process() != name)


def test_a_name_fits_into_the_column_of_a_database() -> None:
    # A host has 64 characters at most; a lease adds a nonce.
    _, rest = process_names.this_process().split(":", 1)
    assert 64 + len(":") + len(rest) + len(":0123456789abcdef") < 320


def test_a_running_process_has_not_died() -> None:
    assert not process_names.has_died(process_names.this_process())


@on_linux
def test_a_running_process_is_known_to_live(other: subprocess.Popen[str]) -> None:
    assert other.stdout is not None
    assert process_names.lives(other.stdout.readline().strip()) is True


@on_linux
def test_a_process_has_died_as_a_zombie_and_after_it_was_reaped(
    other: subprocess.Popen[str],
) -> None:
    assert other.stdout is not None
    name = other.stdout.readline().strip()
    assert not process_names.has_died(name)
    assert not process_names.has_died(f"{name}:nonce")
    other.kill()
    # Its parent has not asked for its exit status yet: it is a zombie.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert process_names.has_died(name)
    other.wait()
    assert process_names.has_died(f"{name}:nonce")


@on_linux
def test_a_process_with_only_its_main_thread_ended_is_alive() -> None:
    program = f"""
import ctypes, os, threading, time

def work():
    main = os.getpid()
    while open(f"/proc/{{main}}/task/{{main}}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    print("alone", flush=True)
    input()

{TELL}
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert process.stdout.readline() == "alone\n"
        assert not process_names.has_died(name)
        process.kill()
    assert process_names.has_died(name)


@on_linux
def test_a_reused_process_id_does_not_revive_the_old_process() -> None:
    assert process_names.has_died(with_part(process_names.this_process(), 2, "1"))


@pytest.mark.parametrize("part", [1, 2, 3, 4], ids=["process", "start", "namespace", "boot"])
def test_with_any_unknown_part_no_process_counts_as_dead(part: int) -> None:
    assert process_names.lives(with_part(process_names.this_process(), part, "")) is None
    assert not process_names.has_died(with_part(process_names.this_process(), part, ""))


@pytest.mark.parametrize("part", [3, 4], ids=["namespace", "boot"])
def test_a_process_of_another_namespace_or_boot_does_not_count_as_dead(part: int) -> None:
    gone = with_part(process_names.this_process(), 2, "1")
    assert process_names.lives(with_part(gone, part, "other")) is None
    assert not process_names.has_died(with_part(gone, part, "other"))


@pytest.mark.parametrize("name", ["", "host:12:nonce", "::::"])
def test_an_invalid_name_does_not_count_as_dead(name: str) -> None:
    assert not process_names.has_died(name)
    assert not process_names.is_elsewhere(name)


@on_linux
@pytest.mark.parametrize(
    ("options", "is_known"),
    [
        (["--pid", "--fork", "--kill-child"], False),
        (["--pid", "--fork", "--kill-child", "--mount-proc"], True),
        (["--time", "--boottime", "1000", "--fork", "--kill-child"], True),
    ],
    ids=["processes, and the /proc of another", "processes", "times"],
)
def test_process_ids_of_another_namespace_are_not_compared(
    options: list[str], is_known: bool
) -> None:
    alone = ["unshare", *options]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces of its own here")
    done = subprocess.run([*alone, sys.executable, "-c", TELL], check=True, stdout=subprocess.PIPE)
    host, _, _, namespace, boot = done.stdout.decode().strip().split(":")
    assert bool(namespace) is is_known
    ours = process_names.this_process().split(":")
    assert namespace != ours[3]
    assert (host, boot) == (ours[0], ours[4])


@on_linux
def test_a_process_that_proc_hides_is_found_by_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = process_names.this_process()
    monkeypatch.setattr(process_names, "_start_of", lambda pid: None)
    assert not process_names.has_died(name)
    assert process_names.has_died(with_part(name, 1, str(2**22 - 1)))


@on_linux
def test_a_process_is_elsewhere_if_host_and_boot_differ() -> None:
    name = process_names.this_process()
    rebooted = with_part(name, 4, "fedcba9876543210")
    assert not process_names.is_elsewhere(name)
    assert not process_names.is_elsewhere(rebooted)
    assert not process_names.is_elsewhere(with_part(name, 0, "container"))
    assert process_names.is_elsewhere(with_part(rebooted, 0, "web-2"))


def test_the_display_name_has_process_id_and_host() -> None:
    assert process_names.display_name("web-2:4711:1:2:3:nonce") == "process 4711 on web-2"
    assert process_names.display_name("somebody") == "somebody"
