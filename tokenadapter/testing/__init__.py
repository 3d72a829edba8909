"""A token server to test your own code against: an OAuth token endpoint and the API it protects.

It listens on loopback, in threads of the test's own process, and needs nothing but the standard
library.  A test of your own expiry handling takes five lines::

    from tokenadapter.testing import TokenServer

    def test_my_client_survives_an_expired_token():
        with TokenServer(lifetime=3600) as server:
            client = MyClient(server.api_url, server.token_url, "client", "secret")
            assert client.get("invoices").ok
            server.expire_now()
            assert client.get("invoices").ok
            assert server.stats.renewals == 2

What the server was asked is in :attr:`TokenServer.requests` and :attr:`TokenServer.stats`; what
it shall do wrong is told by :meth:`TokenServer.fail_next`, :meth:`TokenServer.outage` and
:meth:`TokenServer.hold`.  Client processes are given its URLs, never the object.
"""

from __future__ import annotations

from .report import Request, Stats
from .script import Hold
from .server import TokenServer

__all__ = ["Hold", "Request", "Stats", "TokenServer"]
