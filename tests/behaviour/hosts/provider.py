"""The authorization server of the hosts: a token server on the server's address.

Each line of standard input is a command, which the server answers with a line of JSON.  The server
ends when its standard input ends.

    python provider.py FOLDER LIFETIME GRACE

``FOLDER`` has ``server.pem`` and ``server.key`` for HTTPS.
"""

from __future__ import annotations

import json
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from behaviour.hosts.network import ADDRESS, PATIENCE
from tokenadapter.testing import TokenServer, listener, server

# By default, the server is on loopback, which other hosts cannot reach.
server.HOST = listener.HOST = ADDRESS


class Provider:
    def __init__(self, server: TokenServer) -> None:
        self._server = server
        self._holding = ExitStack()

    def issue(self) -> dict[str, Any]:
        """The token response to a new login."""
        return self._server.issue()

    def hold(self) -> None:
        """Process token requests from now on, but delay their answers."""
        self._hold = self._holding.enter_context(self._server.hold(processed=True))

    def arrived(self) -> str:
        """Wait for a token request, and return the address of its host."""
        assert self._hold.arrived.wait(PATIENCE)
        return self.presented()[-1]["host"]

    def release(self) -> None:
        """Send the delayed answers."""
        self._holding.close()

    def presented(self) -> list[dict[str, Any]]:
        """Each presentation of a refresh token: its time, its host, and the number of earlier
        ones."""
        found: list[dict[str, Any]] = []
        seen: list[str] = []
        for request in self._server.requests:
            secret = request.form.get("refresh_token")
            if secret is not None:
                host = request.peer.partition(":")[0]
                found.append({"time": request.time, "host": host, "before": seen.count(secret)})
                seen.append(secret)
        return found

    def stats(self) -> dict[str, int]:
        return self._server.stats._asdict()


def main() -> None:
    folder, lifetime, grace = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    with TokenServer(lifetime=lifetime, grace=grace, tls=tls) as token_server:
        provider = Provider(token_server)
        sys.stdout.write(f"{token_server.url}\n")
        sys.stdout.flush()
        for command in sys.stdin:
            answer = getattr(provider, command.strip())()
            sys.stdout.write(f"{json.dumps(answer)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
