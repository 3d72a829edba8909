"""A keeper for the SDKs to ask, and the API that they ask for."""

from __future__ import annotations

import pytest

from tokenadapter import ClientCredentials, TokenKeeper
from tokenadapter.testing import TokenServer


@pytest.fixture
def keeper(server: TokenServer) -> TokenKeeper:
    return TokenKeeper(
        ClientCredentials(server.token_url, client_id="client", client_secret="secret")
    )
