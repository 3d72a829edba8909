"""A token equals the server's response, survives every conversion, and shows no secret."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenadapter.token import Token, fingerprint

NOW = 1_700_000_000.0
YEAR = 365 * 86_400.0

ascii_texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
access_tokens = ascii_texts.filter(lambda text: text == text.strip())
numbers = st.integers() | st.floats() | st.sampled_from([10**400, "1e400", "3600", "-1", "nan"])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["token_type", "expires_in", "refresh_token", "scope", "expires_at", "issued_at"]
responses = st.builds(
    lambda access_token, fields: {"access_token": access_token, **fields},
    ascii_texts | json_values,
    st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values),
)
# Values that JSON keeps exactly.
plain_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


def jwt(claims: Any) -> str:
    """An access token that is a JWT with *claims*: an object, or the text that stands for one."""
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    parts = (urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b'{"alg":"none"}', text))
    return ".".join([*parts, "signature"])


times = st.floats(-1e10, 1e10)
tokens = st.builds(
    Token,
    access_tokens
    | st.builds(lambda exp: jwt({"exp": exp, "iat": exp // 2}), st.integers(0, 10**10)),
    token_type=st.text(),
    issued_at=times,
    expires_at=st.none() | times,
    refresh_token=st.none() | st.just("") | ascii_texts,
    scope=st.none() | st.text(),
    extras=st.dictionaries(st.sampled_from(FIELDS) | st.text(), plain_values),
)


def fields_of(token: Token) -> dict[str, Any]:
    return {name: getattr(token, name) for name in Token.__slots__}


def read(requested_at: float = NOW, **response: Any) -> Token:
    return Token.from_response({"access_token": "abc"} | response, requested_at=requested_at)


# --- from a token response -------------------------------------------------------------------


@given(responses)
@example({"access_token": "abc", "expires_in": 1e-188})
def test_any_response_gives_a_token_or_a_value_error(response: dict[str, Any]) -> None:
    try:
        token = Token.from_response(response, requested_at=NOW)
    except ValueError:
        return
    assert token.issued_at == NOW
    # A lifetime may be below the resolution of a timestamp.
    assert token.expires_at is None or NOW <= token.expires_at <= NOW + 10 * YEAR


def test_a_response_is_read_field_by_field() -> None:
    token = read(
        token_type="bearer", expires_in=3600, refresh_token="def", scope="a b", id_token="ghi"
    )
    assert fields_of(token) == {
        "access_token": "abc",
        "token_type": "bearer",
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "refresh_token": "def",
        "scope": "a b",
        "extras": {"id_token": "ghi"},
        "key": None,
    }


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (3600, 3600),
        (3600.5, 3600.5),
        (0.5, 0.5),
        ("3600", 3600),
        (" 3600 ", 3600),
        ("3600.5", 3600.5),
        (10 * YEAR, 10 * YEAR),
        # A value that says nothing about the expiry counts as missing.
        (10 * YEAR + 1, None),
        (NOW + 3600, None),  # a date
        (3_600_000_000_000, None),
        (0, None),
        (-1, None),
        ("-30", None),
        (None, None),
        (True, None),
        ("abc", None),
        ("", None),
        ([3600], None),
        ({}, None),
        (1e999, None),
        (float("nan"), None),
        ("1e400", None),
        (10**400, None),
        pytest.param("9" * 5000, None, id="5000 digits"),
    ],
)
def test_expires_in_is_a_plausible_number_of_seconds_or_missing(
    expires_in: object, lifetime: float | None
) -> None:
    token = read(expires_in=expires_in)
    assert token.lifetime == lifetime
    assert token.expires_at == (None if lifetime is None else NOW + lifetime)


def test_without_expires_in_the_expiry_is_unknown() -> None:
    assert read().expires_at is None
    assert read().lifetime is None


@pytest.mark.parametrize("wrong", [None, 0, 1, True, 1.5, ["a"], {"a": 1}])
def test_an_optional_field_of_another_type_counts_as_missing(wrong: object) -> None:
    token = read(token_type=wrong, refresh_token=wrong)
    assert token.token_type == Token("abc", token_type="").token_type == "Bearer"
    assert token.refresh_token is None


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("read write", "read write"),
        ("", ""),
        (["read", "write"], "read write"),
        (["read", 1, None, ["deep"]], "read"),
        (None, None),
        (5, None),
        ({"read": True}, None),
    ],
)
def test_scope_is_a_text_or_a_list_of_texts(scope: object, expected: str | None) -> None:
    assert read(scope=scope).scope == expected


@pytest.mark.parametrize(
    "response", [{}, {"access_token": None}, {"access_token": 5, "error": "s3cr3t"}]
)
def test_the_error_for_a_response_without_a_token_lists_its_keys(response: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no text as access_token; it holds: ") as caught:
        Token.from_response(response, requested_at=NOW)
    assert str(caught.value).endswith(", ".join(response) or "nothing")
    assert "s3cr3t" not in str(caught.value)


# --- what may be in it -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize(
    "secret", ["s3cr3t\n", "s3cr3t\x7f", "s3cr3t\r\nX: y", "s3cr3té", "\ud800"]
)
def test_secrets_must_be_printable_ascii_and_errors_do_not_contain_them(
    name: str, secret: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} contains characters other than") as caught:
        Token.from_response({"access_token": "abc"} | {name: secret}, requested_at=NOW)
    assert "s3cr3t" not in str(caught.value)


def test_an_access_token_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="access_token is empty"):
        Token("")


def test_spaces_around_the_access_token_of_a_response_cost_no_refresh_token() -> None:
    fields = {"access_token": " abc ", "refresh_token": "next"}
    token = Token.from_response(fields, requested_at=NOW)
    assert (token.access_token, token.refresh_token) == ("abc", "next")
    with pytest.raises(ValueError, match="access_token is empty"):
        Token.from_response({"access_token": " "}, requested_at=NOW)


@pytest.mark.parametrize("secret", [" ", " s3cr3t", "s3cr3t "])
def test_an_access_token_must_not_begin_or_end_with_a_space(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^access_token begins or ends with a space$"):
        Token(secret)
    assert Token("a b", refresh_token=" b ").refresh_token == " b "


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_token": b"abc"},
        {"token_type": 5},
        {"refresh_token": b"def"},
        {"scope": ["a"]},
        {"issued_at": "now"},
        {"expires_at": True},
    ],
)
def test_a_field_of_the_wrong_type_is_named(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(TypeError, match=f"^{name} must be a "):
        Token(**{"access_token": "abc"} | wrong)


@pytest.mark.parametrize("name", ["issued_at", "expires_at"])
@pytest.mark.parametrize("moment", [float("nan"), float("inf"), -float("inf"), NOW * 1000, 10**400])
def test_times_must_be_timestamps_in_seconds(name: str, moment: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is not a POSIX timestamp in seconds"):
        Token("abc", **{name: moment})


def test_issued_at_defaults_to_now() -> None:
    before = time.time()
    assert before <= Token("abc").issued_at <= time.time()


def test_an_extra_cannot_replace_a_field() -> None:
    token = Token("abc", extras={"refresh_token": "def", "expires_in": 5, "id_token": "ghi"})
    assert token.extras == {"id_token": "ghi"}
    assert token.refresh_token is None


# --- JWT -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exp", [NOW + 600, int(NOW) + 600, str(NOW + 600)])
def test_the_exp_of_a_jwt_is_used_if_the_response_has_no_expiry(exp: object) -> None:
    token = jwt({"exp": exp})
    assert read(access_token=token).expires_at == NOW + 600
    assert read(access_token=token, expires_in=0).expires_at == NOW + 600
    assert read(access_token=token, expires_in=60).expires_at == NOW + 60
    assert Token(token, issued_at=NOW).expires_at == NOW + 600
    assert Token(token, issued_at=NOW, expires_at=NOW + 60).expires_at == NOW + 60


@pytest.mark.parametrize("length", range(4))
def test_a_jwt_is_read_with_any_missing_padding(length: int) -> None:
    token = jwt({"exp": NOW + 600, "sub": "?" * length})
    assert "=" not in token
    assert read(access_token=token).lifetime == 600


def test_a_jwt_is_decoded_with_the_url_safe_alphabet() -> None:
    token = jwt('{"sub": "~~~???>>>ÿ", "exp": 1700000600}'.encode())
    assert {"-", "_"} <= set(token)
    assert read(access_token=token).lifetime == 600


@pytest.mark.parametrize("claims", [{}, {"iat": NOW}, {"iat": NOW - 600}, {"iat": "x"}])
def test_a_jwt_that_seems_expired_on_arrival_has_an_unknown_expiry(claims: dict[str, Any]) -> None:
    assert read(access_token=jwt({"exp": NOW - 600} | claims)).expires_at is None


def test_a_clock_that_is_ahead_does_not_shorten_the_lifetime_of_a_jwt() -> None:
    for behind in (0, 600):
        token = jwt({"iat": NOW - 3600 - behind, "exp": NOW - behind})
        assert read(access_token=token).expires_at == NOW + 3600


@pytest.mark.parametrize(
    "exp", [NOW + 11 * YEAR, NOW * 1000, 1e999, 10**400, "abc", "1e400", None, True, [], {}]
)
def test_an_absurd_exp_is_ignored(exp: object) -> None:
    assert read(access_token=jwt({"exp": exp})).expires_at is None
    assert read(access_token=jwt({"exp": 5, "iat": -11 * YEAR})).expires_at is None


@pytest.mark.parametrize(
    "token",
    [
        jwt(b"not JSON"),
        jwt(b'{"exp": 1700000600'),
        jwt(b"\xff\xfe"),
        pytest.param(jwt(b"[" * 100_000), id="deep"),
        pytest.param(jwt(b'{"exp": ' + b"9" * 5000 + b"}"), id="5000 digits"),
        jwt([1700000600]),
        jwt("exp"),
        jwt({"exp": NOW + 600}).rpartition(".")[0],
        jwt({"exp": NOW + 600}) + ".more",
        "a.b.c",
        "..",
        "a.!!!.c",
    ],
)
def test_a_text_that_only_resembles_a_jwt_is_an_opaque_token(token: str) -> None:
    assert read(access_token=token).expires_at is None


# --- there and back --------------------------------------------------------------------------


@given(tokens)
@example(Token("abc", issued_at=0.0))
@example(Token("abc", token_type="", issued_at=NOW))
@example(Token(jwt({"exp": NOW + 600}), issued_at=NOW))
def test_a_token_survives_json_pickle_and_copying(token: Token) -> None:
    for twin in (
        Token.from_dict(json.loads(json.dumps(token.to_dict()))),
        pickle.loads(pickle.dumps(token)),
        copy.copy(token),
        copy.deepcopy(token),
        token.replace(),
    ):
        assert fields_of(twin) == fields_of(token)
        assert twin == token
        assert hash(twin) == hash(token)
        assert twin.is_same(token)


def test_tokens_are_hashable() -> None:
    one = Token("abc", issued_at=NOW)
    others = {Token("abc", issued_at=NOW + 1), Token("def", issued_at=NOW)}
    assert len({hash(token) for token in (one, *others)}) == 3


@given(responses)
def test_from_dict_and_to_dict_are_inverse(data: dict[str, Any]) -> None:
    try:
        token = Token.from_dict(data)
    except ValueError:
        return
    text = json.dumps(token.to_dict())
    assert json.dumps(Token.from_dict(json.loads(text)).to_dict()) == text


def test_a_dict_has_the_keys_of_a_token_response_and_the_times() -> None:
    token = read(expires_in=3600, refresh_token="def", scope="a", id_token="ghi")
    assert token.to_dict() == {
        "access_token": "abc",
        "token_type": "Bearer",
        "expires_in": 3600,
        "expires_at": NOW + 3600,
        "issued_at": NOW,
        "refresh_token": "def",
        "scope": "a",
        "id_token": "ghi",
    }
    assert read().to_dict() == {"access_token": "abc", "token_type": "Bearer", "issued_at": NOW}


@pytest.mark.parametrize(
    "saved",
    [
        # requests-oauthlib
        {
            "access_token": "abc",
            "token_type": "Bearer",
            "expires_in": 3600,
            "refresh_token": "def",
            "scope": ["read", "write"],
            "expires_at": NOW + 3600,
        },
        # Authlib
        {
            "token_type": "Bearer",
            "access_token": "abc",
            "refresh_token": "def",
            "expires_in": "3600",
            "expires_at": int(NOW) + 3600,
            "scope": "read write",
        },
    ],
)
def test_a_token_saved_by_another_library_keeps_its_true_age(saved: dict[str, Any]) -> None:
    assert Token.from_dict(saved) == Token(
        "abc",
        issued_at=NOW,
        expires_at=NOW + 3600,
        refresh_token="def",
        scope="read write",
    )


def test_the_age_of_a_token_follows_from_its_expiry_and_lifetime() -> None:
    token = Token.from_dict({"access_token": "abc", "expires_at": NOW, "expires_in": 0.5})
    assert (token.issued_at, token.expires_at) == (NOW - 0.5, NOW)


@pytest.mark.parametrize("stale", [None, 0, -30, "-30", "abc"])
@pytest.mark.parametrize("ahead", [-600, 600])
def test_with_only_an_expiry_a_token_is_issued_at_most_at_its_expiry(
    stale: object, ahead: float
) -> None:
    before = time.time()
    expires_at = before + ahead
    token = Token.from_dict({"access_token": "abc", "expires_at": expires_at, "expires_in": stale})
    assert token.expires_at == expires_at
    assert min(before, expires_at) <= token.issued_at <= min(time.time(), expires_at)


@pytest.mark.parametrize("times", [{}, {"issued_at": str(int(NOW * 1000))}, {"issued_at": None}])
def test_a_dict_without_times_counts_as_received_now(times: dict[str, Any]) -> None:
    before = time.time()
    token = Token.from_dict({"access_token": "abc", "expires_in": 60} | times)
    assert before <= token.issued_at <= time.time()
    assert token.lifetime == pytest.approx(60)


@pytest.mark.parametrize(
    ("times", "issued_at", "expires_at"),
    [
        ({}, NOW, None),
        ({"expires_in": 60}, NOW, NOW + 60),
        ({"expires_at": NOW + 60}, NOW, NOW + 60),
        ({"expires_at": NOW - 60}, NOW - 60, NOW - 60),
        # The times in the mapping take precedence.
        ({"issued_at": NOW - 10, "expires_in": 60}, NOW - 10, NOW + 50),
        ({"expires_at": NOW + 30, "expires_in": 60}, NOW - 30, NOW + 30),
        ({"issued_at": NOW - 10, "expires_at": NOW + 30}, NOW - 10, NOW + 30),
    ],
)
def test_the_time_of_receipt_can_be_passed(
    times: dict[str, Any], issued_at: float, expires_at: float | None
) -> None:
    token = Token.from_dict({"access_token": "abc"} | times, now=NOW)
    assert (token.issued_at, token.expires_at) == (issued_at, expires_at)


# --- a value ---------------------------------------------------------------------------------


def test_a_token_cannot_be_changed() -> None:
    given_extras = {"id_token": "ghi"}
    token = Token("abc", extras=given_extras)
    for name in [*Token.__slots__, "anything"]:
        with pytest.raises(AttributeError, match="frozen"):
            setattr(token, name, "x")
        with pytest.raises(AttributeError, match="frozen"):
            delattr(token, name)
    with pytest.raises(TypeError):
        token.extras["id_token"] = "x"  # type: ignore[index]
    given_extras["id_token"] = "x"
    token.to_dict()["id_token"] = "x"
    assert token.extras == {"id_token": "ghi"}
    assert not hasattr(token, "__dict__")


def test_replace_changes_what_is_named_and_nothing_else() -> None:
    token = read(expires_in=60, refresh_token="def", scope="a", id_token="ghi")
    changed = token.replace(refresh_token=None, expires_at=NOW + 5)
    assert fields_of(changed) == fields_of(token) | {"refresh_token": None, "expires_at": NOW + 5}


def test_tokens_are_equal_if_every_field_is() -> None:
    token = read(expires_in=60)
    assert token == read(expires_in=60)
    assert len({token, read(expires_in=60)}) == 1
    assert token != read(expires_in=60, id_token="ghi")
    assert token != token.to_dict()


def test_is_same_compares_access_token_and_issue_time() -> None:
    token = read(expires_in=60)
    assert token.is_same(token.replace(expires_at=None, scope="b"))
    assert not token.is_same(read(requested_at=NOW + 1))
    assert not token.is_same(read(access_token="abd"))
    assert not token.is_same(None)


def test_a_fingerprint_is_the_beginning_of_the_sha256() -> None:
    assert fingerprint("abc") == Token("abc").fingerprint == "ba7816bf"
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")


def test_no_secret_is_shown() -> None:
    token = read(
        access_token="s3cr3t-access",
        refresh_token="s3cr3t-refresh",
        id_token="s3cr3t-id",
        scope="read",
        expires_in=60,
    )
    shown = f"{token} {token!r} {token!s} {[token]}" + "%s %r" % (token, token)  # noqa: UP031
    assert "s3cr3t" not in shown
    assert repr(token) == (
        f"<Token Bearer {token.fingerprint} expires_at=1700000060 scope='read' refreshable>"
    )
    assert repr(Token("abc")) == "<Token Bearer ba7816bf>"


def test_server_text_in_a_repr_is_cut_to_one_line_without_secrets() -> None:
    secret = "made-up-access-token"
    odd = Token(secret, token_type="x\ny" + "z" * 1000, scope="a\nb" + " c" * 1000)
    assert "\n" not in repr(odd)
    assert len(repr(odd)) < 400
    for echo in (secret, f"Bearer {secret.upper()}", "made-up-refresh-token"):
        token = Token(
            secret, token_type=echo, scope=f"a {echo}", refresh_token="made-up-refresh-token"
        )
        assert echo not in repr(token)
        assert repr(token).count("withheld") == 2


def test_the_listed_keys_of_a_response_are_cut_to_one_line() -> None:
    with pytest.raises(ValueError, match="it holds: a b") as caught:
        read(access_token=None, **{"a\nb": 1, "c" * 10_000: 2})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("kind", "is_bearer"), [("Bearer", True), ("bEARER", True), ("", True), ("DPoP", False)]
)
def test_the_token_type_is_case_insensitive(kind: str, is_bearer: bool) -> None:
    assert Token("abc", token_type=kind).is_bearer is is_bearer
