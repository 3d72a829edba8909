"""The token type decides how a token is sent: only a Bearer token is sent as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import (
    FileStore,
    RefreshConfigError,
    RefreshToken,
    TokenAdapter,
    TokenKeeper,
    TokenPoolManager,
)
from tokenadapter.testing import TokenServer


@pytest.fixture
def keeper(server: TokenServer, tmp_path: Path) -> TokenKeeper:
    first = server.issue()["refresh_token"]
    source = RefreshToken(server.token_url, first, client_id="client", client_secret="secret")
    return TokenKeeper(source, FileStore(tmp_path / "token.json"))


def answer_with(server: TokenServer, **fields: Any) -> None:
    body = {"access_token": "made-up", "refresh_token": "next-one", "expires_in": 3600, **fields}
    server.fail_next(200, body=body)


@pytest.mark.parametrize("kind", ["mac", "N_A", "Bearer\nforged", "made-up"])
def test_a_token_of_another_type_is_kept_and_not_sent(
    server: TokenServer, keeper: TokenKeeper, tmp_path: Path, kind: str
) -> None:
    answer_with(server, token_type=kind)
    with requests.Session() as session, TokenPoolManager(server.api_url, keeper) as http:
        TokenAdapter(server.api_url, keeper).mount(session)
        for ask in (
            lambda: session.get(server.api_url),
            lambda: session.get(server.api_url),
            lambda: http.request("GET", server.api_url),
        ):
            with pytest.raises(RefreshConfigError, match="must not be sent as a Bearer") as caught:
                ask()
            assert "\n" not in str(caught.value)
    assert server.stats.api_requests == 0
    assert server.stats.token_requests == 1
    # What was obtained is not lost: a renewal goes on from it.
    stored = TokenKeeper(keeper.source, FileStore(tmp_path / "token.json")).current()
    assert (stored.access_token, stored.refresh_token) == ("made-up", "next-one")


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "", None])
def test_a_bearer_token_is_sent_however_its_type_is_spelled(
    server: TokenServer, keeper: TokenKeeper, kind: str | None
) -> None:
    answer_with(server, token_type=kind)
    with requests.Session() as session:
        TokenAdapter(server.public_url, keeper).mount(session)
        session.get(server.public_url)
    assert server.requests[-1].headers["authorization"] == "Bearer made-up"


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"scheme": "mac"}, "mac made-up"),
        ({"scheme": ""}, "made-up"),
        (
            {"attach": lambda request, token: request.headers.update(Authorization="by hand")},
            "by hand",
        ),
    ],
)
def test_if_the_program_sets_how_a_token_is_sent_any_type_is_accepted(
    server: TokenServer, keeper: TokenKeeper, settings: dict[str, Any], sent: str
) -> None:
    answer_with(server, token_type="mac")
    with requests.Session() as session:
        TokenAdapter(server.public_url, keeper, **settings).mount(session)
        session.get(server.public_url)
    assert server.requests[-1].headers["authorization"] == sent
