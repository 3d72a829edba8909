"""The tests of requests itself, with a token adapter under every session.

They come from the source distribution of the version that is installed, are run with plain requests
and then with this very file as a plugin, and the two results are compared: what passed has to pass.

    python tests/behaviour/fidelity/requests_suite.py

The exit code is 0 if it does, but for what stands in ``KNOWN``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from tokenadapter import TokenAdapter, UnsafeTarget

_SIGNED = "it asserts that a request without credentials has no Authorization; ours has a token"
_POOLS = "it looks for connections in the adapter that ours stands in front of; they are in ours"
_TLS = "tests.test_requests.TestPreparingURLs::test_different_connection_pool_for_tls_settings_"

KNOWN: Mapping[str, str] = {
    "tests.test_lowlevel::test_digestauth_401_count_reset_on_redirect": _SIGNED,
    f"{_TLS}verify_True": _POOLS,
    f"{_TLS}verify_bundle_expired_cert": _POOLS,
    f"{_TLS}verify_bundle_unexpired_cert": _POOLS,
}
"""Tests that pass with plain requests only, and why."""


# --- the plugin --------------------------------------------------------------------------------


def pytest_configure() -> None:
    """Put a token adapter in front of each adapter that a session would use.

    The tests bring their own credentials, which win here: what is compared is all the rest.
    """
    kind = requests.Session
    plain_send, plain_get, plain_close = kind.send, kind.get_adapter, kind.close
    adapters: WeakKeyDictionary[requests.Session, dict[object, TokenAdapter]] = WeakKeyDictionary()
    sending: ContextVar[bool] = ContextVar("sending", default=False)

    def send(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        token = sending.set(True)
        try:
            return plain_send(self, *args, **kwargs)
        finally:
            sending.reset(token)

    def get_adapter(self: requests.Session, url: str) -> BaseAdapter:
        plain = plain_get(self, url)
        # Tests that ask which adapter is mounted where are given that one.
        if not sending.get() or not isinstance(plain, HTTPAdapter):
            return plain
        mine = adapters.setdefault(self, {})
        parts = urlsplit(url)
        key = (plain, parts.scheme, parts.netloc)
        if key not in mine:
            # One as it is where the session made its own, and one around those of the tests.
            is_own = type(plain) is HTTPAdapter and plain.max_retries.total == 0
            try:
                mine[key] = TokenAdapter(
                    f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                    lambda previous: "made-up",
                    inner=None if is_own else plain,
                    override_auth=False,
                    allow_http=True,
                )
            except UnsafeTarget:
                return plain
        return mine[key]

    def close(self: requests.Session) -> None:
        plain_close(self)
        for adapter in adapters.pop(self, {}).values():
            adapter.close()

    for replaced in (send, get_adapter, close):
        setattr(kind, replaced.__name__, replaced)


# --- the script --------------------------------------------------------------------------------


def main() -> int:
    name = f"requests-{version('requests')}"
    with tempfile.TemporaryDirectory() as folder:
        download = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder]
        wanted = name.replace("-", "==")
        subprocess.run([sys.executable, "-m", "pip", *download, wanted], check=True)
        with tarfile.open(Path(folder, f"{name}.tar.gz")) as archive:
            archive.extractall(folder, filter="data")
        plain = run(Path(folder, name))
        ours = run(Path(folder, name), "-p", Path(__file__).stem)
    broken = sorted(test for test in plain if plain[test] and not ours.get(test))
    unknown = [test for test in broken if test not in KNOWN]
    say(f"{name}: {len(plain)} tests")
    say(f"  pass with plain requests:     {sum(plain.values())}")
    say(f"  pass with a token adapter:    {sum(ours.values())}")
    say(f"  pass with plain requests only: {len(broken)}, of which {len(unknown)} unexplained")
    for test in broken:
        say(f"  {test}: {KNOWN.get(test, 'UNEXPLAINED')}")
    return 1 if unknown or not any(plain.values()) else 0


def run(folder: Path, *arguments: str) -> dict[str, bool]:
    """Run the tests in a folder: of each, whether it passed; those that were skipped left out."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short"]
    # A server of theirs whose thread has failed an assertion never answers.
    options += ["--timeout=20", "--timeout-method=signal", *sys.argv[1:]]
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, f"--junitxml={report}", "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        check=False,
    )
    return {
        f"{case.get('classname')}::{case.get('name')}": not case.findall("failure")
        and not case.findall("error")
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("skipped") is None
    }


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
