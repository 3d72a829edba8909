"""Masking secrets in texts that servers and libraries wrote."""

from __future__ import annotations

import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.http.masking import WITHHELD, masked, query_secrets, reveals, secrets_in

SECRET = 'p4ss:%+ /é"<&>\\n\U0001f511?~'
LONG = st.text(st.characters(exclude_categories=["Cs"]), min_size=16)
ANY = st.text(st.characters(exclude_categories=["Cs"]))


@given(LONG, ANY, ANY)
def test_a_text_with_a_secret_is_withheld_whatever_surrounds_the_secret(
    secret: str, before: str, after: str
) -> None:
    shown = masked(secret, [], limit=10_000)
    if len(shown.replace(" ", "").replace("+", "")) >= 16:
        assert masked(f"{before}{secret}{after}", [secret]) == WITHHELD


def spelled(template: str, base: int) -> Callable[[str], str]:
    return lambda text: "".join(template % (ord(char) if base else char) for char in text)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "none": str,
    "percent": quote,
    "percent, slashes too": lambda text: quote(text, safe=""),
    "a form": quote_plus,
    "percent, in lower case": lambda text: quote(text, safe="").lower(),
    "percent, each byte": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent, twice": lambda text: quote(quote(text)),
    "HTML": html.escape,
    "HTML, without quotes": lambda text: html.escape(text, quote=False),
    "HTML, by numbers": spelled("&#%d;", 10),
    "HTML, by hexadecimal numbers": spelled("&#x%X;", 16),
    "HTML, twice": lambda text: html.escape(html.escape(text)),
    "JSON": json.dumps,
    "JSON, beyond ASCII": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON, slashes too": lambda text: json.dumps(text).replace("/", r"\/"),
    "JSON for HTML": lambda text: json.dumps(text).replace("<", r"\u003c").replace("&", r"\u0026"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON in HTML": lambda text: html.escape(json.dumps(text)),
    "bytes": lambda text: repr(text.encode()),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, in capitals": lambda text: text.encode().hex().upper(),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of more, 1": lambda text: b64encode(f"u:{text}:x".encode()).decode(),
    "base64 of more, 2": lambda text: b64encode(f"us:{text}:xy".encode()).decode(),
    "base64 of more, 3": lambda text: b64encode(f"use:{text}:xyz".encode()).decode(),
    "capitals": str.upper,
    "small letters": str.lower,
    "line ends": "\n".join,
}


@pytest.mark.parametrize("password", ["p4ss", "p4/ss", "p/4?s#s", "p@4/ss"])
def test_the_user_and_the_password_of_a_url_are_hidden(password: str) -> None:
    shown = f"Failed to parse: http://me:{password}@proxy.example:3128/, proxy"
    assert masked(shown, []) == "Failed to parse: http://***@proxy.example:3128/, proxy"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_found_in_every_encoding(encoding: str) -> None:
    # A backslash and a line end are an escape themselves, and so is a byte beyond ASCII.
    secret = "p4ss w/rd & more" if encoding in ("bytes", "line ends") else SECRET
    echo = ENCODINGS[encoding](secret)
    assert masked(f"You sent {echo}, did you not?", ["other-secret", secret]) == WITHHELD
    assert reveals(echo, [secret])


def test_a_secret_at_the_cut_is_found() -> None:
    secret = "h1dden-secret"
    for echo in (secret, html.escape(json.dumps(secret)), spelled("&#x%04X;", 16)(secret)):
        for start in range(180, 202):
            shown = masked("x" * start + echo, [secret])
            assert shown == (WITHHELD if start < 200 else "x" * 199 + "…") or start >= 200


@pytest.mark.parametrize("secret", ["1234", "s3c", "Ada", "a-b?c", "hunter", "correct"])
def test_a_short_secret_is_masked_only_as_a_whole_word(secret: str) -> None:
    text = f"no user {secret} or x{secret} or {secret}5, {secret}!"
    assert masked(text, [secret]) == f"no user *** or x{secret} or {secret}5, ***!"
    assert masked(f"<{secret.swapcase()}>", [secret]) == "<***>"


@pytest.mark.parametrize(
    "echo",
    ["%31234", "&#49;234", r"\u0031234", b"1234".hex(), b64encode(b"1234").decode().rstrip("=")],
)
def test_a_short_secret_that_is_echoed_in_an_encoding_withholds_the_text(echo: str) -> None:
    assert masked(f"no user {echo} here", ["1234"]) == WITHHELD


def test_a_short_secret_within_a_longer_word_is_no_echo() -> None:
    assert masked("The mountains are forbidden.", ["forbid", "mountain"]) == (
        "The mountains are forbidden."
    )


@pytest.mark.parametrize("secret", ["wrong", "Wrong", "client", "secret", "password", "", " + "])
def test_a_secret_that_is_a_usual_word_of_refusals_is_not_hidden(secret: str) -> None:
    text = "wrong client credentials: invalid_client, no such client secret or password"
    assert masked(text, [secret]) == text


def test_a_secret_of_several_usual_words_is_masked() -> None:
    assert masked("no such client: the-client-secret", ["the-client-secret"]) == WITHHELD


def test_a_long_text_without_a_secret_is_shown() -> None:
    text = "The request is missing a required parameter, includes an invalid parameter value."
    assert masked(text, ["client-secret-of-this-test", "r3fresh", "ada", "1"]) == text


@given(st.text())
def test_a_masked_text_is_one_short_printable_line(text: str) -> None:
    line = masked(text, [])
    assert line.isprintable()
    assert line == line.strip()
    assert len(line) <= 200


def test_a_query_and_each_of_its_values_are_masked() -> None:
    assert query_secrets("key=a%2Fb&user=ada") == {"key=a%2Fb&user=ada", "a/b", "ada"}
    assert query_secrets("") == {""}


def test_each_text_and_number_of_a_body_or_header_may_be_secret() -> None:
    body = {"user": {"pin": 1234, "name": "ada", "new": True}, "keys": ["k-1", b"k=2"], "x": None}
    assert {*secrets_in(body), *secrets_in({"X-Key": "Key k-3"})} == {
        *("1234", "ada", "k-1", "k=2", "2", "Key k-3", "k-3")
    }
