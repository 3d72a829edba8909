"""The client credentials grant."""

from __future__ import annotations

import pytest

from tokenadapter import ClientCredentials, RefreshConfigError, Token
from tokenadapter.testing import TokenServer


def source(url: str, secret: str = "secret") -> ClientCredentials:
    return ClientCredentials(url, client_id="client", client_secret=secret)


def test_each_call_obtains_a_token(server: TokenServer) -> None:
    grant = source(server.token_url)
    first = grant()
    assert grant(first) != first
    assert [request.form["grant_type"] for request in server.requests] == ["client_credentials"] * 2


def test_the_client_is_presented_whatever_the_previous_token_and_spends_nothing() -> None:
    grant = source("https://id.example/token")
    (credential,) = grant.credentials(Token("a", refresh_token="b"))
    assert credential.kind == "client"
    assert not credential.single_use
    # An administrator of the server may allow the client at any time.
    assert not credential.refusal_is_final
    assert [credential] == grant.credentials(None)


@pytest.mark.parametrize("secret", [None, ""])
def test_a_refusal_says_that_no_secret_was_sent(server: TokenServer, secret: str | None) -> None:
    grant = ClientCredentials(server.token_url, client_id="client", client_secret=secret)
    with pytest.raises(RefreshConfigError, match="No client_secret was sent: it is missing or em"):
        grant()
    grant = ClientCredentials(server.token_url, client_id="client", client_secret="wrong")
    with pytest.raises(RefreshConfigError) as caught:
        grant()
    assert "was sent:" not in str(caught.value)


def test_a_changed_client_is_another_credential_than_the_refused_one() -> None:
    url = "https://id.example/token"
    assert source(url).credentials(None) != source(url, "corrected").credentials(None)
