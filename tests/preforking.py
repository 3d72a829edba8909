"""A server that forks its workers while threads of its own make their first requests.

``preforking.py API TOKEN_URL FOLDER CHILDREN`` forks whenever one of its threads imports a module
of the library.  Each child sends the same requests, which need the same modules.  The program
prints how many children succeeded, of how many.

In rare cases, the interpreter hangs within os.fork() in the child, before it runs any Python code,
the library's included.  Such a child does not count.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

import tokenadapter
from tokenadapter.late_imports import _GUARD_TIMEOUT

# The additional seconds of an import, so that a fork happens during it.
_SLOW = 0.05
# Seconds after which a child counts as hung.
_LONGEST = 90.0

API, TOKEN_URL, FOLDER, CHILDREN = *sys.argv[1:4], int(sys.argv[4])
STACKS = Path(FOLDER, "stacks").open("w+")  # noqa: SIM115 - for the life of the process


def grant(secret: str = "secret") -> tokenadapter.ClientCredentials:
    return tokenadapter.ClientCredentials(TOKEN_URL, client_id="client", client_secret=secret)


def file(name: str) -> tokenadapter.FileStore:
    return tokenadapter.FileStore(Path(FOLDER, name))


def by_an_adapter() -> None:
    source = tokenadapter.RefreshToken(TOKEN_URL, client_id="client", client_secret="secret")
    with requests.Session() as session:
        tokenadapter.TokenAdapter(API, source, store=file("expired")).mount(session)
        assert session.post(API, data=iter([b"a", b"b"])).ok


def by_a_pool() -> None:
    with tokenadapter.TokenPoolManager(API, grant(), store=file("pool")) as pool:
        assert pool.request("GET", API).status == 200


def everywhere() -> None:
    adapter = tokenadapter.TokenAdapter(API + "all/", grant(), store=file("all"))
    with tokenadapter.installed(adapter):
        assert requests.get(API + "all/").ok


def with_a_refused_token() -> None:
    adapter = tokenadapter.TokenAdapter(API, lambda previous: "made up", store="memory:refused")
    with requests.Session() as session:
        assert adapter.mount(session)
        assert session.get(API).status_code == 401


def with_a_wrong_secret() -> None:
    keeper = tokenadapter.TokenKeeper(grant("wrong"), f"file:{FOLDER}/wrong")
    try:
        keeper.current()
    except tokenadapter.RefreshConfigError:
        return
    raise AssertionError("the server accepted the wrong secret")


REQUESTS: Sequence[Callable[[], None]] = (
    by_an_adapter,
    by_a_pool,
    everywhere,
    with_a_refused_token,
    with_a_wrong_secret,
)


class SlowImports:
    """Delays the imports of the library in other threads until a fork."""

    def __init__(self) -> None:
        self.under_way, self.forked = threading.Event(), threading.Event()
        self.process = os.getpid()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if name.startswith("tokenadapter.") and not is_main and os.getpid() == self.process:
            self.forked.clear()
            self.under_way.set()
            self.forked.wait(_SLOW)


def worker() -> int:
    began = time.monotonic()
    child = os.fork()
    if child != 0 and time.monotonic() - began > _GUARD_TIMEOUT:
        sys.stderr.write(f"the fork of {child} gave up waiting for imports\n")
    if child == 0:
        code = 1
        # A child that hangs prints its stack.
        faulthandler.dump_traceback_later(_LONGEST, exit=True)
        try:
            for request in REQUESTS:
                request()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not continue as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended_well(child: int, deadline: float) -> bool | None:
    """Whether *child* succeeded; ``None`` if os.fork() did not return there."""
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            return None if hangs_in_fork(child) else False
        time.sleep(0.01)
    if ended[1] != 0:
        sys.stderr.write(f"a child ended with the wait status {ended[1]}\n")
    return ended[1] == 0


def hangs_in_fork(child: int) -> bool:
    """Whether *child*, which is ended, was still within os.fork(): a function that is called after
    a fork would be on top of its stack."""
    before = STACKS.seek(0, os.SEEK_END)
    os.kill(child, signal.SIGUSR1)
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    STACKS.seek(before)
    stack = STACKS.read()
    sys.stderr.write(stack)
    top = next((line for line in stack.splitlines() if line.startswith("  File ")), "")
    return __file__ in top and top.endswith("in worker")


def main() -> None:
    faulthandler.register(signal.SIGUSR1, STACKS, all_threads=False)
    imports = SlowImports()
    sys.meta_path.insert(0, imports)
    threads = [threading.Thread(target=request) for request in REQUESTS]
    for thread in threads:
        thread.start()
    children: list[int] = []
    while len(children) < CHILDREN and any(thread.is_alive() for thread in threads):
        if imports.under_way.wait(0.01):
            imports.under_way.clear()
            children.append(worker())
            imports.forked.set()
    deadline = time.monotonic() + _LONGEST + 10
    ended = [ended_well(child, deadline) for child in children]
    sys.stdout.write(f"{ended.count(True)} of {len(ended) - ended.count(None)}\n")
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
