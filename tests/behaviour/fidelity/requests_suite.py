"""The tests of requests itself, with a token adapter under every session.

    tox -e requests-suite

The exit code is 0 if what passes with plain requests passes with this file as a plugin, but for
what stands in ``KNOWN``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from their_suite import compare

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


if __name__ == "__main__":
    sys.exit(compare("requests", Path(__file__).stem, KNOWN))
