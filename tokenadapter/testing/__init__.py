"""A token server to test your own code against: an OAuth token endpoint and the API it protects.

It listens on loopback, in threads of the test's own process, and needs nothing but the standard
library.  A test of your own expiry handling takes five lines::

    def test_my_client_survives_an_expired_token(token_server):
        client = MyClient(token_server.api_url, token_server.token_url, "client", "secret")
        assert client.get("invoices").ok
        token_server.expire_now()
        assert client.get("invoices").ok

``token_server`` is a fixture that pytest finds wherever tokenadapter is installed; anywhere else,
:class:`TokenServer` is a context manager.  What the server was asked is in
:attr:`TokenServer.requests` and :attr:`TokenServer.stats`; what it shall do wrong is told by
:meth:`TokenServer.fail_next`, :meth:`TokenServer.outage` and :meth:`TokenServer.hold`.  Time
passes when :class:`FrozenClock` says so.  Client processes are given its URLs, never the object.

A token store of your own is tested by inheriting :class:`StoreContract` or
:class:`SharedStoreContract`, which need pytest.
"""

from __future__ import annotations

import sys

__all__ = [
    "FrozenClock",
    "Hold",
    "Request",
    "SharedStoreContract",
    "Stats",
    "StoreContract",
    "TokenServer",
]

# Loaded when they are first used (PEP 562): pytest loads the plugin in this package at
# each of its starts, for those too who use none of it.
_HOMES = {
    "FrozenClock": "clock",
    "Hold": "script",
    "Request": "report",
    "SharedStoreContract": "contract",
    "Stats": "report",
    "StoreContract": "contract",
    "TokenServer": "server",
}

if "pytest" in sys.modules:
    import pytest

    # Before the contract is imported: what its assertions found is told as that of any test.
    pytest.register_assert_rewrite("tokenadapter.testing.contract")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .clock import FrozenClock
    from .contract import SharedStoreContract, StoreContract
    from .report import Request, Stats
    from .script import Hold
    from .server import TokenServer
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        except ImportError as error:
            return import_module("tokenadapter.extras").stand_in(name, error)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
