"""A token server to test your own code against: an OAuth token endpoint and the API it protects.

It listens on loopback, in threads of the test's own process, and needs nothing but the standard
library.  A test of your own expiry handling takes five lines::

    def test_my_client_survives_an_expired_token(token_server):
        client = MyClient(token_server.api_url, token_server.token_url, "client", "secret")
        assert client.get("invoices").ok
        token_server.expire_now()
        assert client.get("invoices").ok

``token_server`` is a fixture that pytest finds wherever tokenadapter is installed; anywhere else,
:class:`TokenServer` is a context manager.  :attr:`TokenServer.requests` and
:attr:`TokenServer.stats` show which requests the server got.  :meth:`TokenServer.fail_next`,
:meth:`TokenServer.outage` and :meth:`TokenServer.hold` make it fail.  :class:`FrozenClock` controls
the time.  Pass client processes the URLs of the server, never the object.

To test a token store of your own, inherit from :class:`StoreContract` or
:class:`SharedStoreContract`, which need pytest.
"""

from __future__ import annotations

import sys

__all__ = [
    "Browser",
    "FrozenClock",
    "Hold",
    "Request",
    "SharedStoreContract",
    "Stats",
    "StoreContract",
    "TokenServer",
    "empty_memory_stores",
]

# Loaded when first used (PEP 562): pytest loads the plugin of this package at each start, even if
# no test uses it.
_HOMES = {
    "Browser": "browser",
    "FrozenClock": "clock",
    "Hold": "script",
    "Request": "report",
    "SharedStoreContract": "contract",
    "Stats": "report",
    "StoreContract": "contract",
    "TokenServer": "server",
    "empty_memory_stores": "memory",
}

if "pytest" in sys.modules:
    import pytest

    # Before the contract is imported, so that pytest explains its failed assertions.
    pytest.register_assert_rewrite("tokenadapter.testing.contract")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .browser import Browser
    from .clock import FrozenClock
    from .contract import SharedStoreContract, StoreContract
    from .memory import empty_memory_stores
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
