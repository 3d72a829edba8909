"""Texts of others, made fit for our messages."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.sources.wording import plain, query_secrets

# No stars: a star in place of a star hides nothing.
SECRETS = st.text(st.characters(exclude_characters="*…", exclude_categories=["Cs"])).filter(
    lambda secret: plain(secret, [])
)


@given(SECRETS, st.text(st.characters(exclude_categories=["Cs"])), st.text("xyz"))
def test_no_secret_is_left(secret: str, before: str, after: str) -> None:
    hidden = plain(f"{before}{secret}{after}", [secret], limit=10_000)
    shown = plain(secret, [], limit=10_000)
    assert shown not in hidden


@pytest.mark.parametrize("encode", [str, quote, quote_plus, lambda secret: quote(secret, safe="")])
def test_no_encoded_secret_is_left(encode: type[str]) -> None:
    assert plain(f"<{encode('p:%+ /é')}>", ["p:%+ /é"]) == "<***>"


@pytest.mark.parametrize("password", ["p4ss", "p4/ss", "p/4?s#s", "p@4/ss"])
def test_the_user_and_the_password_of_a_url_are_hidden(password: str) -> None:
    told = f"Failed to parse: http://me:{password}@proxy.example:3128/, proxy"
    assert plain(told, []) == "Failed to parse: http://***@proxy.example:3128/, proxy"


def test_a_secret_in_a_secret_does_not_save_the_rest_of_it() -> None:
    assert plain("abcdef", ["cd", "abcdef"]) == "***"


def test_a_secret_at_the_cut_is_hidden_before_it_is_cut() -> None:
    assert plain("x" * 195 + "h1dden-secret", ["h1dden-secret"]) == "x" * 195 + "***"


def test_an_empty_secret_is_none() -> None:
    assert plain("abc", [""]) == "abc"


@given(st.text())
def test_the_text_is_one_short_printable_line(text: str) -> None:
    line = plain(text, [])
    assert line.isprintable()
    assert line == line.strip()
    assert len(line) <= 200


def test_user_and_password_of_a_url_are_hidden() -> None:
    assert plain("see https://me:pass@proxy.example/", []) == "see https://***@proxy.example/"


def test_a_query_is_secret_as_a_whole_and_in_its_values() -> None:
    assert query_secrets("key=a%2Fb&user=ada") == {"key=a%2Fb&user=ada", "a/b", "ada"}
    assert query_secrets("") == {""}
