"""Which of several adapters signs a request; none signs a token request."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tokenadapter import ClientCredentials, Token, TokenAdapter
from tokenadapter.clients.signers import Signer, choose, split_settings


def over(prefix: str, source: Any = lambda previous: "made-up") -> Signer:
    return Signer(TokenAdapter(prefix, source))


WIDE, NARROW, AGAIN, BESIDE = (
    over(f"https://api.example.com{path}") for path in ("", "/v1", "/v1/", "/v10")
)


@pytest.mark.parametrize(
    ("url", "chosen"),
    [
        ("https://api.example.com/v1/x", AGAIN),
        ("https://api.example.com/v10/x", BESIDE),
        ("https://api.example.com/v2/x", WIDE),
        ("https://api.example.com/v1/../x", WIDE),
        ("https://other.example.com/v1", None),
        ("http://api.example.com/v1", None),
    ],
)
def test_the_longest_prefix_signs_and_the_last_among_equals(
    url: str, chosen: Signer | None
) -> None:
    signers = (WIDE, NARROW, AGAIN, BESIDE)
    expected = None if chosen is None else chosen.adapter
    assert choose(signers, url) is expected
    assert choose((), url) is None


def test_a_removed_signer_does_not_sign() -> None:
    signer = over("https://api.example.com")
    assert choose((signer,), "https://api.example.com/x") is signer.adapter
    signer.is_off = True
    assert choose((signer,), "https://api.example.com/x") is None


@pytest.mark.parametrize("token_url", ["https://api.example.com/token", "https://id.example.com/t"])
def test_urls_of_token_sources_get_no_token(token_url: str) -> None:
    source = ClientCredentials(token_url, client_id="a", client_secret="b")
    signers = (over("https://id.example.com"), over("https://api.example.com", source), WIDE)
    assert choose(signers, token_url) is None
    assert choose(signers, f"{token_url}?a=b") is None
    assert choose(signers, f"{token_url}/below") is not None


def test_an_adapter_covers_the_requests_that_it_would_sign() -> None:
    source = ClientCredentials("https://api.example.com/token", client_id="a", client_secret="b")
    adapter = over("https://api.example.com", source).adapter
    assert adapter.covers("https://api.example.com/x")
    assert not adapter.covers("https://api.example.com/token?a=b")
    assert not adapter.covers("https://other.example.com/x")


def test_requests_of_a_token_function_get_no_token() -> None:
    chosen: list[TokenAdapter | None] = []

    def source(previous: Token | None) -> str:
        chosen.append(choose((requested, WIDE), "https://api.example.com/v1/login"))
        chosen.append(choose((requested, WIDE), "https://api.example.com/v2"))
        return "made-up"

    requested = over("https://api.example.com/v1", source)
    requested.adapter.keeper.current()
    assert chosen == [None, WIDE.adapter]
    assert choose((requested, WIDE), "https://api.example.com/v1/login") is requested.adapter


def test_settings_are_split_into_adapter_and_transport() -> None:
    ours = {"store": None, "verdict": None, "header": "X", "on_refresh": None, "allow_http": True}
    others = {"inner": requests.adapters.HTTPAdapter(), "max_retries": 3, "retries": 1, "prefix": 1}
    assert split_settings({**ours, **others}) == (ours, others)
