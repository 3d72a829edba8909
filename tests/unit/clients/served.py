"""What the tests of the clients share: sources at the test server, and what the server saw."""

from __future__ import annotations

from tokenadapter import ClientCredentials, RefreshToken
from tokenadapter.testing import TokenServer

SECRET = "s3cret-of-the-api"


def source(server: TokenServer) -> RefreshToken:
    first = server.issue()["refresh_token"]
    return RefreshToken(server.token_url, first, client_id="client", client_secret="secret")


def client_credentials(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def fixed(previous: object) -> str:
    return SECRET


def tokens_sent(server: TokenServer, header: str = "authorization") -> list[str | None]:
    return [r.headers.get(header) for r in server.requests if r.path.startswith("/api/")]


def told(server: TokenServer, since: int = 0) -> list[tuple[str, bool]]:
    """The paths that were asked for, and whether the token came along."""
    return [(one.path, SECRET in str(one.headers)) for one in server.requests[since:]]
