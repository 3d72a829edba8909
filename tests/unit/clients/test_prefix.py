"""Which URLs may get a token: known tricks, then properties."""

from __future__ import annotations

import copy
import pickle
import re
import unicodedata
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
from hypothesis import event, example, given, reject, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3.util import parse_url

from tokenadapter.clients.prefix import Prefix
from tokenadapter.errors import TokenError, UnsafeTarget

HOST = Prefix("https://api.example.com")
V1 = Prefix("https://api.example.com/v1")
law = settings(max_examples=300, deadline=None)


def prepared(url: str) -> requests.PreparedRequest:
    return requests.Request("GET", url).prepare()


def as_it_is(url: str) -> requests.PreparedRequest:
    """A request whose URL was set by hand, as a redirect or a careless caller does."""
    request = prepared("https://elsewhere.invalid/")
    request.url = url
    return request


# --- the base URL ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_url", "canonical"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("HTTPS://API.Example.COM/V1", "https://api.example.com/V1"),
        ("https://api.example.com:443/v1", "https://api.example.com/v1"),
        ("https://api.example.com:0443/v1", "https://api.example.com/v1"),
        ("https://api.example.com:/v1", "https://api.example.com/v1"),
        ("https://api.example.com:8443/v1", "https://api.example.com:8443/v1"),
        ("https://api.example.com:80", "https://api.example.com:80"),
        ("https://api.example.com.", "https://api.example.com."),
        ("https://%61pi.example.com", "https://api.example.com"),
        ("https://Bücher.example/", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example"),
        ("https://XN--BCHER-KVA.example/", "https://xn--bcher-kva.example"),
        ("https://[2001:DB8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
        ("https://api.example.com/caf%c3%a9", "https://api.example.com/caf%C3%A9"),
        ("https://api.example.com/café", "https://api.example.com/caf%C3%A9"),
        ("https://api.example.com/%7Eme", "https://api.example.com/~me"),
        ("https://api.example.com/a%20b", "https://api.example.com/a%20b"),
        ("https://api.example.com/g%2Fn", "https://api.example.com/g%2Fn"),
        ("https://api.example.com/.api/v1.0", "https://api.example.com/.api/v1.0"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:80/x", "http://localhost/x"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("http://127.255.255.254", "http://127.255.255.254"),
        ("http://[::1]:5000/v1", "http://[::1]:5000/v1"),
    ],
)
def test_the_base_url_is_normalised_as_requests_prepares_it(given_url: str, canonical: str) -> None:
    prefix = Prefix(given_url)
    assert prefix.url == canonical
    assert Prefix(canonical).url == canonical
    assert prefix.covers(canonical)
    url = prepared(given_url).url
    assert url is not None
    assert prefix.covers(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with https://"),
        ("api.example.com/v1", "begins with https://"),
        ("//api.example.com/v1", "begins with https://"),
        ("/v1", "begins with https://"),
        ("https:/api.example.com", "begins with https://"),
        ("ftp://api.example.com", "begins with https://"),
        ("http\u017f://api.example.com", "begins with https://"),
        (" https://api.example.com", "begins with https://"),
        ("https://", "No host"),
        ("https:///v1", "No host"),
        ("https://:443/v1", "No host"),
        ("https://*.example.com/", "invalid label"),
        ("https://.example.com/", "invalid label"),
        ("https://api.example.com:port/", "port"),
        ("https://api.example.com:99999/", "99999"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://api%20x.example.com/", "percent-encoding"),
        ("https://user@api.example.com/", "user name or password"),
        ("https://api.example.com@evil.com/", "user name or password"),
        ("https://api.example.com/v1?key=1", "query or fragment"),
        ("https://api.example.com/v1?", "query or fragment"),
        ("https://api.example.com/v1#top", "query or fragment"),
        ("https://api.example.com/v1\n", "control character"),
        ("https://api.example.com/v1 ", "space"),
        ("https://api.\texample.com/", "control character"),
        ("https://api.example.com\\v1", "backslash"),
        ("https://api.example.com/v1\\x", "backslash"),
        ("https://api.example.com/v1/../v2", "'..' or empty segment"),
        ("https://api.example.com/v1/..", "'..' or empty segment"),
        ("https://api.example.com/./v1", "'..' or empty segment"),
        ("https://api.example.com/v1//x", "'..' or empty segment"),
        ("https://api.example.com//", "'..' or empty segment"),
        ("https://api.example.com/v1/%2e%2e/v2", "'..' or empty segment"),
        ("https://api.example.com/v1/%252E%252e", "'..' or empty segment"),
        ("https://api.example.com/v1/..;/v2", "'..' or empty segment"),
        ("https://api.example.com/v1/;x/v2", "'..' or empty segment"),
        ("https://api.example.com/v1/..%2Fv2", "'..' or empty segment"),
        ("https://api.example.com/v1/%5C..%5Cv2", "'..' or empty segment"),
        ("https://api.example.com/v1%00", "control character"),
        ("https://api.example.com/v1%250d", "control character"),
        ("https://api.example.com/%c0%ae%c0%ae", "overlong"),
        ("https://api.example.com/%" + "25" * 20 + "41", "too many times"),
        ("http://api.example.com/v1", "clear text"),
        ("http://localhost.evil.com", "clear text"),
        ("http://localhost.", "clear text"),
        ("http://127.0.0.1.evil.com", "clear text"),
        ("http://127.evil.com", "clear text"),
        ("http://evil127.0.0.1", "clear text"),
        ("http://0.0.0.0", "clear text"),
        ("http://[::2]", "clear text"),
    ],
)
def test_an_unsafe_base_url_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(UnsafeTarget, match=re.escape(reason)) as caught:
        Prefix(url)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TokenError)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@api.example.com/",
        "https://user:hunter2@api.example.com:bad/\\",
        "http://api.example.com/?key=hunter2",
        "https://api.example.com/v1#hunter2",
        "https://:99999/v1?hunter2",
    ],
)
def test_an_error_message_contains_no_secret(url: str) -> None:
    with pytest.raises(UnsafeTarget) as caught:
        Prefix(url)
    error: BaseException | None = caught.value
    while error:
        assert "hunter2" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__


def test_plain_http_to_another_host_needs_allow_http_and_covers_no_https() -> None:
    prefix = Prefix("http://api.example.com", allow_http=True)
    assert prefix.covers("http://api.example.com/x")
    assert prefix.covers("http://api.example.com:80/x")
    assert not prefix.covers("https://api.example.com/x")
    assert not prefix.covers("http://api.example.com:443/x")


def test_a_prefix_shows_its_url_and_survives_pickle_and_copy() -> None:
    assert repr(V1) == "Prefix('https://api.example.com/v1')"
    for twin in (pickle.loads(pickle.dumps(V1)), copy.copy(V1), copy.deepcopy(V1)):
        assert twin.url == V1.url
        assert twin.mounts() == V1.mounts()
        assert twin.covers("https://api.example.com/v1/x")
        assert twin.covers("https://api.example.com:443/v1/a%20b")
        assert not twin.covers("https://api.example.com/v10")


# --- the URLs of the requests --------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [V1, Prefix("https://api.example.com:443/v1/")])
@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "https://api.example.com/v1?page=2",
        "https://api.example.com/v1#top",
        "https://api.example.com/v1/",
        "https://api.example.com/v1/?a=..%2F..&b=/../\\;",
        "https://api.example.com/v1/invoices",
        "https://api.example.com/v1/invoices.json",
        "https://api.example.com/v1//invoices",
        "https://api.example.com:443/v1/x",
        "https://api.example.com:0443/v1/x",
        "https://api.example.com:/v1/x",
        "HTTPS://API.EXAMPLE.COM/v1/x",
        "https://api.example.com/v1/projects/group%2Fname",
        "https://api.example.com/v1/projects/group%2fname%2Fmore/files/a%2Fb.py",
        "https://api.example.com/v1/a%20b",
        "https://api.example.com/v1/a%25b",
        "https://api.example.com/v1/100%25",
        "https://api.example.com/v1/a%5Cb",
        "https://api.example.com/v1/x;y=1/z",
        "https://api.example.com/v1/caf%C3%A9",
        "https://api.example.com/v1/caf%E9",
        "https://api.example.com/v1/café/日本語",
        "https://api.example.com/v1/\uff21\uff22.\uff43\uff53\uff56",  # full-width letters
        "https://api.example.com/v1/1%E2%81%842",  # one half
        "https://api.example.com/v1/compare/main...dev",
        "https://api.example.com/v1/.well-known/x",
        "https://api.example.com/v1/..hidden",
        "https://api.example.com/v1/a/../b",
        "https://api.example.com/v1/a/%2e%2e/b",
        "https://api.example.com/v1/./a",
        "https://api.example.com/v1/fetch/https%3A%2F%2Fother.example%2Fx%3Fy",
        "https://api.example.com/v1/users/me@example.com",
        "https://api.example.com/v1/a|b{c}",
    ],
)
def test_urls_under_the_prefix_are_covered(prefix: Prefix, url: str) -> None:
    assert prefix.covers(url)
    ready = prepared(url).url
    assert ready is not None
    assert prefix.covers(ready)


def test_a_percent_encoded_host_is_covered_once_requests_has_decoded_it() -> None:
    # Before that it depends on urllib3's version whether it would connect there at all.
    url = prepared("https://%61pi.example.com/v1/x").url
    assert url is not None
    assert V1.covers(url)


@pytest.mark.parametrize(
    "url",
    [
        # another place
        "http://api.example.com/v1",
        "http://api.example.com:443/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com:0/v1",
        "https://api.example.com:80/v1",
        "https://api.example.com.evil.com/v1",
        "https://api.example.com@evil.com/v1",
        "https://api.example.com:443@evil.com/v1",
        "https://evil.com/https://api.example.com/v1",
        "https://evil.com#@api.example.com/v1",
        "https://evil.com?@api.example.com/v1",
        "https://api.example.com./v1",
        "https://xapi.example.com/v1",
        "https://example.com/v1",
        "https://api.example.co/v1",
        "https://api_example.com/v1",
        "https://api%2Eexample%2Ecom%2Eevil.com/v1",
        "https://api.example.com%2Fv1",
        "https://api.example.com%40evil.com/v1",
        "https://api.example.com%00.evil.com/v1",
        "https://[::1]/v1",
        # read in two ways: urllib3's parser and the standard library's find different hosts
        "https://api.example.com\\@evil.com/v1",
        "https://evil.com\\@api.example.com/v1",
        "https://api.example.com\\.evil.com/v1",
        "https://api.example.com\t.evil.com/v1",
        "https://api.example.com\n@evil.com/v1",
        "https://ap\ti.example.com/v1",
        "https://api.example.com /v1",
        "https:\\\\api.example.com\\v1",
        # the right host, for another user
        "https://user:pw@api.example.com/v1",
        "https://user@api.example.com/v1",
        "https://@api.example.com/v1",
        # another path
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com/?/v1",
        "https://api.example.com/v10",
        "https://api.example.com/v1.1",
        "https://api.example.com/V1",
        "https://api.example.com/v1;x",
        "https://api.example.com//v1",
        "https://api.example.com/v1%2F",
        "https://api.example.com/v1%3Fx",
        "https://api.example.com/x/../v1",
        "https://api.example.com/v%2531/x",
        # out of the prefix
        "https://api.example.com/v1/..",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/./../admin",
        "https://api.example.com/v1/x/../../admin",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1/%2E./admin",
        "https://api.example.com/v1/.%2e/admin",
        "https://api.example.com/v1/..%2Fadmin",
        "https://api.example.com/v1/..%2fadmin",
        "https://api.example.com/v1/%2e%2e%2fadmin",
        "https://api.example.com/v1/a%2F..%2F..%2Fadmin",
        "https://api.example.com/v1/x/..%2F..%2Fadmin",
        "https://api.example.com/v1/..;/admin",
        "https://api.example.com/v1/..;x=y/admin",
        "https://api.example.com/v1/..%3B/admin",
        "https://api.example.com/v1/;/../admin",
        "https://api.example.com/v1/;%2Fa/../admin",
        "https://api.example.com/v1/%5C../admin",
        "https://api.example.com/v1/..%5Cadmin",
        "https://api.example.com/v1/%5C..%5Cadmin",
        "https://api.example.com/v1/x%5C..%5C..%5Cadmin",
        "https://api.example.com/v1/%252e%252e/admin",
        "https://api.example.com/v1/%252e%252e%252fadmin",
        "https://api.example.com/v1/%25252e%25252e/admin",
        "https://api.example.com/v1/%%32%65%%32%65/admin",
        "https://api.example.com/v1/..%255Cadmin",
        "https://api.example.com/v1/%c0%ae%c0%ae/admin",
        "https://api.example.com/v1/..%c0%afadmin",
        "https://api.example.com/v1/..%c1%9cadmin",
        "https://api.example.com/v1/%e0%80%ae%e0%80%ae/admin",
        "https://api.example.com/v1/%u002e%u002e/admin",
        # dots and separators that a server normalises (NFKC), or only takes for such
        "https://api.example.com/v1/\uff0e\uff0e/admin",
        "https://api.example.com/v1/%EF%BC%8E%EF%BC%8E/admin",
        "https://api.example.com/v1/%EF%BC%8E./admin",
        "https://api.example.com/v1/%25EF%25BC%258E%25EF%25BC%258E/admin",
        "https://api.example.com/v1/%E2%80%A4%E2%80%A4/admin",  # one dot leader
        "https://api.example.com/v1/%E2%80%A5/admin",  # two dot leader
        "https://api.example.com/v1/%E2%80%A6/admin",  # horizontal ellipsis
        "https://api.example.com/v1/%EF%B9%92%EF%B9%92/admin",  # small full stop
        "https://api.example.com/v1/%EF%BD%A1%EF%BD%A1/admin",  # half-width ideographic
        "https://api.example.com/v1/%E3%80%82%E3%80%82/admin",  # ideographic
        "https://api.example.com/v1/..%EF%BC%8Fadmin",  # full-width solidus
        "https://api.example.com/v1/..%EF%BC%BCadmin",  # full-width reverse solidus
        "https://api.example.com/v1/..%EF%B9%A8admin",  # small reverse solidus
        "https://api.example.com/v1/..%E2%88%95admin",  # division slash
        "https://api.example.com/v1/..%E2%81%84admin",  # fraction slash
        "https://api.example.com/v1/..%E2%88%96admin",  # set minus
        "https://api.example.com/v1/%EF%BC%852e%EF%BC%852e/admin",  # full-width percent sign
        "https://api.example.com/v1/%EF%BC%8E%EF%BC%8E%EF%BC%9Bx/admin",  # full-width semicolon
        "https://api.example.com/v1/x%EF%BC%8F%EF%BC%8E%EF%BC%8E%EF%BC%8F%EF%BC%8E%EF%BC%8E%FF",
        "https://api.example.com/v1/%20../admin",
        "https://api.example.com/v1/..%20/admin",
        "https://api.example.com/v1/.../admin",
        "https://api.example.com/v1/..%00/admin",
        "https://api.example.com/v1/..%0d%0a/admin",
        "https://api.example.com/v1/.%09./admin",
        "https://api.example.com/v1/a%00b",
        "https://api.example.com/v1/..%3Fx/admin",
        "https://api.example.com/v1/..%23x/admin",
        # the second step up is free for those who merge slashes, or decode dots but no slashes
        "https://api.example.com/v1/x//../../admin",
        "https://api.example.com/v1/x/%2F/../../admin",
        "https://api.example.com/v1/a%2Fb/%2e%2e/%2e%2e/admin",
        "https://api.example.com/v1/a%252Fb/%252e%252e/%252e%252e/admin",
        # characters that requests would never leave in a URL
        "https://api.example.com/v1\\..\\admin",
        "https://api.example.com/v1/..\\admin",
        "https://api.example.com/v1/a\\b",
        "https://api.example.com/v1/.\t./admin",
        "https://api.example.com/v1/\n../admin",
        "https://api.example.com/v1/a\r\nb",
        "https://api.example.com/v1\t/x",
        "https://api.example.com/v1/%" + "25" * 30 + "41",
        # no URL at all
        "",
        "v1",
        "/v1",
        "//api.example.com/v1",
        " https://api.example.com/v1",
        "\thttps://api.example.com/v1",
        "https://",
        "https:///v1",
        "https://[/v1",
        "https://[::1/v1",
        "https://api.example.com:port/v1",
        "https://api.example.com:99999/v1",
        "https://api.example.com:443:443/v1",
        "https://xn--.example/v1",
        "https://\udcff.example/v1",
        "http\u017f://api.example.com/v1",
        "mailto:api@example.com",
    ],
)
def test_urls_outside_the_prefix_are_not_covered(url: str) -> None:
    assert not V1.covers(url)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "?q",
        "#f",
        "/v1",
        "//v1",
        "/..",
        "/a/../..",
        "/%2e%2e/x",
        "/..;/x",
        "/a%00b",
        "/\\x",
    ],
)
@pytest.mark.parametrize("host", ["api.example.com", "API.example.com", "api.example.com:443"])
def test_a_prefix_without_path_covers_everything_on_its_host(host: str, path: str) -> None:
    assert HOST.covers(f"https://{host}{path}")


@pytest.mark.parametrize(
    "authority",
    ["api.example.com.evil.com", "api.example.com@evil.com", "api.example.com:8443",
     "api.example.com\\@evil.com", "user:pw@api.example.com", "api.example.com\t", "evil.com"],
)  # fmt: skip
def test_a_prefix_without_path_covers_nothing_on_another_host(authority: str) -> None:
    assert not HOST.covers(f"https://{authority}/")


@pytest.mark.parametrize(
    ("prefix", "url", "covered"),
    [
        ("https://[2001:db8::1]", "https://[2001:DB8::1]:443/x", True),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:8443/x", False),
        ("https://[2001:db8::1]", "https://[2001:db8::1%25eth0]/x", False),
        ("https://[2001:db8::1]", "https://[2001:db8::2]/x", False),
        ("https://bücher.example", "https://BÜCHER.example/x", True),
        ("https://bücher.example", "https://xn--bcher-kva.example/x", True),
        ("https://bücher.example", "https://bucher.example/x", False),
        ("https://api.example.com", "https://\u0430pi.example.com/x", False),  # a Cyrillic letter
        ("https://api.example.com", "https://api。example.com/x", False),
        ("https://api.example.com.", "https://api.example.com./x", True),
        ("https://api.example.com.", "https://api.example.com/x", False),
        ("https://api.example.com/caf%C3%A9", "https://api.example.com/caf%C3%A9/x", True),
        ("https://api.example.com/caf%C3%A9", "https://api.example.com/caf%C3%A9/%2e%2e", False),
        ("https://api.example.com/v1.0", "https://api.example.com/v1x0", False),
    ],
)
def test_hosts_and_paths_are_compared_in_their_normal_form(
    prefix: str, url: str, covered: bool
) -> None:
    assert Prefix(prefix).covers(url) is covered


# --- Session.adapters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "mounts"),
    [
        (
            "https://api.example.com/",
            ("https://api.example.com/", "https://api.example.com:443/"),
        ),
        (
            "https://api.example.com:443/v1/",
            (
                "https://api.example.com/v1/",
                "https://api.example.com/v1",
                "https://api.example.com:443/v1/",
                "https://api.example.com:443/v1",
            ),
        ),
        ("http://localhost:5000", ("http://localhost:5000/",)),
        ("http://localhost:5000/a", ("http://localhost:5000/a/", "http://localhost:5000/a")),
    ],
)
def test_mounts_have_both_spellings_of_a_default_port(url: str, mounts: tuple[str, ...]) -> None:
    assert Prefix(url).mounts() == mounts


def session_with(prefix: Prefix) -> tuple[requests.Session, HTTPAdapter]:
    session, ours = requests.Session(), HTTPAdapter()
    for mount in prefix.mounts():
        session.mount(mount, ours)
    return session, ours


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com.evil.com/",
        "https://api.example.com@evil.com/",
        "https://api.example.com:443@evil.com/",
        "https://api.example.com:4430/",
        "https://api.example.computer/",
        "https://api.example.com-evil.com/",
    ],
)
def test_a_host_that_begins_with_the_prefix_is_left_to_the_sessions_own_adapter(url: str) -> None:
    session, ours = session_with(HOST)
    own = HTTPAdapter()
    session.mount("https://", own)
    assert session.get_adapter(url) is own
    assert session.get_adapter("https://api.example.com/x") is ours


def test_mounts_replace_an_adapter_mounted_with_a_slash() -> None:
    session = requests.Session()
    session.mount("https://api.example.com/v1/", HTTPAdapter())
    ours = HTTPAdapter()
    for mount in V1.mounts():
        session.mount(mount, ours)
    assert session.get_adapter("https://api.example.com/v1/x") is ours


# --- properties ----------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["/", "/", "/", "..", "..", ".", "a", "a", "b", "v1", "V1", ";", ";x=1", "\\", "?", "#", "@",
     ":", "%2e", "%2E", "%2F", "%2f", "%5C", "%5c", "%25", "%252e", "%252F", "%3B", "%3F", "%23",
     "%00", "%0a", "%20", "%", "%2", "%zz", "%41", "%C3%A9", "%E9", "%c0%ae", "%u002e", "%%32%65",
     " ", "\t", "\n", "\x00", "é", "\uff0e", "\uff0f", "+", "&", "*", "|", "~"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=10).map("".join)
NASTY_PATHS = st.one_of(PATHS, PATHS.map("/v1".__add__), PATHS.map("/v1/".__add__))

AUTHORITY_PIECES = st.sampled_from(
    ["api.example.com", "api.example.com", "API.example.com", "evil.com", "api", ".", "example",
     "com", "@", "\\", ":", ":443", ":0443", ":80", ":8443", ":0", ":99999", "%61pi", "%2e", "%40",
     "%00", "user:pw@", "[", "]", "[::1]", "\t", "\n", " ", "é", "\u017f", "\u212a",
     "\uff41", "。", "\udcff", ";", "/", "?", "#"]
)  # fmt: skip
NASTY_AUTHORITIES = st.one_of(
    st.just("api.example.com"), st.lists(AUTHORITY_PIECES, max_size=4).map("".join)
)
NASTY_URLS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://"] * 6 + ["HTTPS://", "http://", "//", "https:/", ""]),
    NASTY_AUTHORITIES,
    NASTY_PATHS,
) | NASTY_PATHS.map("https://api.example.com".__add__)
PREFIXES = st.sampled_from([HOST, V1, Prefix("https://api.example.com/v1/a")])


def prepared_if_possible(url: str) -> requests.PreparedRequest:
    try:
        return prepared(url)
    except ValueError:
        reject()


def connection(request: requests.PreparedRequest) -> tuple[str, str, int | None]:
    """Where requests would connect to, by its own adapter, which opens no socket yet."""
    adapter = HTTPAdapter()
    pool = adapter.get_connection_with_tls_context(request, verify=False)
    adapter.close()
    return str(pool.scheme), pool.host, pool.port


def without_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, as a stack."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


READINGS = (
    lambda path: unquote(path, "latin-1"),
    lambda path: normalised(unquote(path, errors="replace")),
    lambda path: re.sub("%2[Ee]", ".", path),
    lambda path: re.sub("%2[Ff]", "/", path),
    lambda path: re.sub("%5[Cc]", "/", path),
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: re.sub(";.*", "", path, flags=re.DOTALL),
    lambda path: re.sub("[?#\x00].*", "", path, flags=re.DOTALL),
    lambda path: re.sub("[\x00-\x1f]", "", path),
    lambda path: re.sub("[ .]+(?=/|$)", lambda dots: dots[0].replace(" ", ""), path),
    lambda path: re.sub("//+", "/", path),
    without_dot_segments,
)


def readings(path: str, most: int = 3000) -> set[str]:
    """The paths that servers may derive from a path by any of these transformations."""
    found, new = {path}, {path}
    while new and len(found) < most:
        new = {read(form) for form in new for read in READINGS} - found
        found |= new
    return {without_dot_segments(form) for form in found}


def lies_under(path: str, base: str) -> bool:
    return f"{path}/".startswith(f"{base}/")


def check_that_nothing_leads_out(prefix: Prefix, request: requests.PreparedRequest) -> None:
    url = request.url
    assert url is not None
    if not prefix.covers(url):
        event("not covered")
        return
    event("covered")
    assert connection(request) == ("https", "api.example.com", 443)
    scheme, auth, host, port, *_ = parse_url(url)
    assert (scheme, auth, host, port or 443) == ("https", None, "api.example.com", 443)
    base = parse_url(prefix.url).path or ""
    path = request.path_url.partition("?")[0]
    if base:
        assert [form for form in readings(path) if not lies_under(form, base)] == []


@law
@given(PREFIXES, NASTY_URLS)
@example(V1, "https://api.example.com/v1/%2e%2e/admin")
def test_no_prepared_url_that_is_covered_leads_outside(prefix: Prefix, url: str) -> None:
    request = prepared_if_possible(url)
    check_that_nothing_leads_out(prefix, request)


@law
@given(PREFIXES, NASTY_URLS)
@example(HOST, "https://api.example.com\\@evil.com/")
@example(V1, "https://api.example.com/v1/a%2Fb/%2e%2e/%2e%2e/admin")
def test_no_raw_url_that_is_covered_leads_outside(prefix: Prefix, url: str) -> None:
    check_that_nothing_leads_out(prefix, as_it_is(url))


@law
@given(PREFIXES, st.text())
def test_no_text_makes_covers_raise(prefix: Prefix, text: str) -> None:
    assert prefix.covers(text) in (True, False)
    for url in (f"https://{text}/v1", f"https://api.example.com{text}", f"{prefix.url}/{text}"):
        assert prefix.covers(url) in (True, False)


def normalised(text: str) -> str:
    """A text with the ASCII that a lenient server may read in it."""
    return unicodedata.normalize("NFKC", text).replace("\u3002", ".")


ORDINARY_SEGMENTS = st.text(
    st.characters(exclude_characters="/\\;?#%", exclude_categories=["Cc", "Cs"]), min_size=1
).filter(lambda text: normalised(text).strip(". ") and not set(normalised(text)) & set("/\\;?#%"))


@law
@given(
    PREFIXES,
    st.lists(ORDINARY_SEGMENTS.map(lambda text: quote(text, safe=""))),
    st.dictionaries(st.sampled_from(["a", "q/..", "é;"]), st.text(max_size=5), max_size=3),
)
def test_ordinary_segments_and_any_query_stay_covered(
    prefix: Prefix, segments: list[str], query: dict[str, str]
) -> None:
    url = "/".join([prefix.url, *segments])
    request = requests.Request("GET", url, params=query).prepare()
    assert request.url is not None
    assert prefix.covers(request.url)


@law
@given(PREFIXES, NASTY_URLS)
def test_the_fast_check_never_covers_more_than_the_parser(prefix: Prefix, url: str) -> None:
    for text in (url, f"{prefix.url}{url}", f"{prefix.url}/{url}"):
        if prefix.matches(text):
            event("quick yes")
            assert prefix.covers_when_parsed(text)


@law
@given(PREFIXES, NASTY_URLS)
def test_a_session_finds_the_adapter_for_every_prepared_url_that_is_covered(
    prefix: Prefix, url: str
) -> None:
    ready = prepared_if_possible(url).url
    assert ready is not None
    if prefix.covers(ready):
        event("covered")
        session, ours = session_with(prefix)
        assert session.get_adapter(ready) is ours


@pytest.mark.parametrize("url", [None, b"https://u:s3cr3t@api.example.com/", 5])
def test_the_error_for_a_prefix_of_another_type_does_not_show_it(url: Any) -> None:
    with pytest.raises(TypeError, match="prefix must be a str, not") as caught:
        Prefix(url)
    assert "s3cr3t" not in str(caught.value)
