"""Challenges: the grammar, invalid fields of real servers, and properties."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tokenadapter.http.challenges import Challenge, parse_challenges

TCHARS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def bearer(**params: str) -> Challenge:
    return Challenge("bearer", params)


def basic(**params: str) -> Challenge:
    return Challenge("basic", params)


# --- the grammar -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("", []),
        (" \t", []),
        (",", []),
        (" , ,\t,", []),
        ("Bearer", [bearer()]),
        ("Bearer ", [bearer()]),
        ("  Bearer", [bearer()]),
        ("bEARER", [bearer()]),
        ('Bearer realm="api"', [bearer(realm="api")]),
        ("Bearer realm=api", [bearer(realm="api")]),
        ('Bearer REALM="API"', [bearer(realm="API")]),
        ('Bearer\trealm \t=  "api"  ', [bearer(realm="api")]),
        ('Bearer  realm = api , error\t="e"', [bearer(realm="api", error="e")]),
        ('Bearer realm="",error=e', [bearer(realm="", error="e")]),
        ('Bearer ,, realm="api",, ,error="e",', [bearer(realm="api", error="e")]),
        ('Bearer realm="a, b", error="e"', [bearer(realm="a, b", error="e")]),
        ('Bearer realm="a, Basic x=y"', [bearer(realm="a, Basic x=y")]),
        (r'Bearer realm="say \"hi\", \\o/ \!"', [bearer(realm='say "hi", \\o/ !')]),
        ('Bearer realm="tab\tand é"', [bearer(realm="tab\tand é")]),
        ("Bearer x!#$%&'*+-.^_`|~0=v", [Challenge("bearer", {"x!#$%&'*+-.^_`|~0": "v"})]),
        ("X-Api.Token_1 a=b", [Challenge("x-api.token_1", {"a": "b"})]),
    ],
)
def test_one_challenge_is_parsed(value: str, challenges: list[Challenge]) -> None:
    assert parse_challenges(value) == challenges


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("Negotiate, NTLM", [Challenge("negotiate", {}), Challenge("ntlm", {})]),
        ("Negotiate,NTLM", [Challenge("negotiate", {}), Challenge("ntlm", {})]),
        ('Basic realm="a", Bearer', [basic(realm="a"), bearer()]),
        ('Bearer, Basic realm="a"', [bearer(), basic(realm="a")]),
        (
            'Basic realm="a, b", charset="UTF-8",, ,Bearer realm=c,error="invalid_token"',
            [basic(realm="a, b", charset="UTF-8"), bearer(realm="c", error="invalid_token")],
        ),
        (
            'Bearer error="invalid_token", Bearer realm="other"',
            [bearer(error="invalid_token"), bearer(realm="other")],
        ),
        (
            'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
            [
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
                basic(realm="simple"),
            ],
        ),
        (
            'Digest qop="auth, auth-int", stale=TRUE, DPoP algs="ES256 PS256"',
            [
                Challenge("digest", {"qop": "auth, auth-int", "stale": "TRUE"}),
                Challenge("dpop", {"algs": "ES256 PS256"}),
            ],
        ),
    ],
)
def test_several_challenges_are_parsed(value: str, challenges: list[Challenge]) -> None:
    assert parse_challenges(value) == challenges


@pytest.mark.parametrize("token68", ["abc", "abc=", "YII+/w==", "a-._~+/0====", "realm", "realm="])
def test_a_token68_replaces_the_parameters(token68: str) -> None:
    alone = Challenge("negotiate", {}, token68)
    assert parse_challenges(f"Negotiate {token68}") == [alone]
    assert parse_challenges(f"Negotiate \t{token68} \t") == [alone]
    assert parse_challenges(f"Negotiate {token68}, Basic realm=a") == [alone, basic(realm="a")]
    assert parse_challenges(f"Basic realm=a,Negotiate {token68},") == [basic(realm="a"), alone]


def test_a_folded_line_is_white_space() -> None:
    assert parse_challenges('Bearer realm="a",\r\n error="e"') == [bearer(realm="a", error="e")]


# --- invalid fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        pytest.param(
            'Bearer realm="a" error="e" scope=s',
            [bearer(realm="a", error="e", scope="s")],
            id="no commas between parameters",
        ),
        pytest.param(
            "Bearer uri=https://id.example.com/a?b=c&d=(e), error=e",
            [bearer(uri="https://id.example.com/a?b=c&d=(e)", error="e")],
            id="a value that needed quotes",
        ),
        pytest.param(
            "Bearer realm=My API, error=e",
            [bearer(realm="My", error="e")],
            id="a value with a space that needed quotes",
        ),
        pytest.param('Bearer error="e', [bearer(error="e")], id="a quote that is not closed"),
        pytest.param('Bearer error="e\\', [bearer(error="e")], id="a backslash before nothing"),
        pytest.param("Bearer error=e, realm=", [bearer(error="e", realm="")], id="no value"),
        pytest.param(
            "Bearer error=e, error=f", [bearer(error="e")], id="a parameter twice: the first counts"
        ),
        pytest.param(
            'error="e", Bearer realm=a', [bearer(realm="a")], id="a parameter before any scheme"
        ),
        pytest.param(
            'OAuth "Platform" "invalid, token=x" realm=a',
            [Challenge("oauth", {"realm": "a"})],
            id="values without names",
        ),
        pytest.param(
            "Negotiate abc==, realm=a, error=e",
            [Challenge("negotiate", {"realm": "a", "error": "e"}, "abc==")],
            id="token68 and parameters",
        ),
        pytest.param(
            "Bearer foo:error=x, error=e, <b>, Basic",
            [bearer(error="e"), basic()],
            id="words that are none",
        ),
        pytest.param(
            'Bearer: error=x, Basic"a", b/c, Bearer é=x, ×, é, "Basic"',
            [bearer()],
            id="schemes that are none",
        ),
        pytest.param("Bearer realm\xa0=a, x=y", [bearer(x="y")], id="a space of another alphabet"),
    ],
)
def test_invalid_fields_are_parsed_as_far_as_possible(
    value: str, challenges: list[Challenge]
) -> None:
    assert parse_challenges(value) == challenges


# --- properties----------------------------------------------------------------------------------

names = st.text(TCHARS, min_size=1, max_size=8)
spaces = st.text(" \t", max_size=3)
commas = st.tuples(spaces, st.sampled_from([",", ",,", ", ,", ",\t, ,"]), spaces).map("".join)
texts = st.text(st.characters(max_codepoint=255), max_size=12) | st.text(' ",=\\a', max_size=12)
booleans = st.booleans()
token68s = st.from_regex(r"[A-Za-z0-9._~+/-]+=*", fullmatch=True)


def quoted(text: str, escape_all: bool) -> str:
    return '"' + "".join(f"\\{c}" if escape_all or c in '\\"' else c for c in text) + '"'


@st.composite
def params(draw: st.DrawFn) -> tuple[str, str, str]:
    """A parameter as text, its name and its value."""
    name = draw(names)
    equals = f"{draw(spaces)}={draw(spaces)}"
    if draw(booleans):
        value = draw(names)
        return f"{name}{equals}{value}", name, value
    value = draw(texts)
    return f"{name}{equals}{quoted(value, draw(booleans))}", name, value


@st.composite
def written_challenges(draw: st.DrawFn) -> tuple[str, Challenge]:
    scheme = draw(names)
    gap = " " + draw(spaces)
    if draw(booleans):
        token68 = draw(token68s)
        return scheme + gap + token68, Challenge(scheme.lower(), {}, token68)
    written = draw(st.lists(params(), max_size=4, unique_by=lambda param: param[1].lower()))
    pieces: list[str] = [scheme, gap]
    for text, _, _ in written:
        pieces += [text, draw(commas)]
    # The last comma is optional.
    if draw(booleans) and written:
        pieces.pop()
    return "".join(pieces), Challenge(scheme.lower(), {n.lower(): v for _, n, v in written})


@given(st.lists(st.tuples(written_challenges(), commas), max_size=4))
def test_valid_fields_are_parsed_exactly(
    written: list[tuple[tuple[str, Challenge], str]],
) -> None:
    value = "".join(text + comma for (text, _), comma in written)
    assert parse_challenges(value) == [challenge for (_, challenge), _ in written]
    assert parse_challenges(f", {value}") == [challenge for (_, challenge), _ in written]


@given(
    st.text()
    | st.lists(
        st.sampled_from(["Bearer", "Basic", " ", ",", "=", '"', "\\", "a", "\n", "é", "error", "/"])
    ).map("".join)
)
def test_any_text_is_accepted(value: str) -> None:
    for scheme, params, token68 in parse_challenges(value):
        assert scheme
        assert set(scheme) <= set(TCHARS.lower())
        assert all(name and set(name) <= set(TCHARS.lower()) for name in params)
        assert token68 is None or token68


@given(st.text(), written_challenges())
def test_leading_challenges_are_parsed_whatever_follows(
    rest: str, written: tuple[str, Challenge]
) -> None:
    assume(not rest.lstrip().startswith("="))  # that would be a parameter called Basic
    text, challenge = written
    assert parse_challenges(f"{text}, Basic {rest}")[0] == challenge


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("start", "pattern"),
    [
        *(("", pattern) for pattern in (",", " ", '"', "\\", "=", "a", '"\\', "a,", ",a ", "a / ")),
        *(("Bearer ", pattern) for pattern in (" ", "a", "=", "a =", 'a="\\', "a/")),
        *(('Bearer a="', pattern) for pattern in ("a", "\\", ",")),
    ],
)
def test_a_million_characters_meant_to_stall_the_parser_do_not(start: str, pattern: str) -> None:
    # Were the time quadratic, this would take an hour.
    parse_challenges(start + pattern * (1_000_000 // len(pattern)))
