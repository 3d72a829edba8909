"""Proofs of possession: what they contain, and what is learnt from answers."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey
from requests.structures import CaseInsensitiveDict

from tokenadapter import Key
from tokenadapter.http import dpop
from tokenadapter.http.dpop import Proof, key_in, needs_new_proof, new_key
from tokenadapter.keys.jws import unb64
from tokenadapter.keys.key import UnusableKey
from tokenadapter.testing.dpop import Proofs
from tokenadapter.testing.report import Request

KEY = Key.generate()
TOKEN_URL = "https://server.example.com/token"
API_URL = "https://resource.example.org/protectedresource"
# RFC 9449, figures 2 and 12, and the thumbprint and the access token that belong to them.
_HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNo"
    "UklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERW"
    "clUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
RFC_TOKEN_PROOF = (
    f"{_HEADER}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVy"
    "LmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMU"
    "vwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_API_PROOF = (
    f"{_HEADER}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJj"
    "ZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0Ra"
    "NTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6"
    "pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_ACCESS_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"


def request(proof: str, method: str) -> Request:
    return Request(method, "/", "", {"dpop": proof}, 0, "", b"", {}, 0.0, "")


def parts(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = proof.split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims))


def claims(proof: Proof) -> dict[str, Any]:
    return parts(proof.text)[1]


@pytest.mark.parametrize(
    ("proof", "method", "url", "at", "access_token"),
    [
        (RFC_TOKEN_PROOF, "POST", TOKEN_URL, 1562262616, None),
        (RFC_API_PROOF, "GET", API_URL, 1562262618, RFC_ACCESS_TOKEN),
    ],
)
def test_the_proofs_of_the_rfc_are_accepted_and_ours_have_the_same_parts(
    monkeypatch: pytest.MonkeyPatch,
    proof: str,
    method: str,
    url: str,
    at: int,
    access_token: str | None,
) -> None:
    server = Proofs(lambda: at, nonces=False)
    assert server.verified(request(proof, method), url, "x", access_token) == RFC_THUMBPRINT
    theirs = parts(proof)
    monkeypatch.setattr(time, "time", lambda: float(at))
    monkeypatch.setattr(dpop.secrets, "token_urlsafe", lambda length: theirs[1]["jti"])
    ours = parts(Proof(KEY, method, url, access_token).text)
    assert ours[1] == theirs[1]
    assert ours[0] == {**theirs[0], "jwk": KEY.public_jwk}


def test_another_library_verifies_a_proof() -> None:
    proof = Proof(KEY, "GET", API_URL, "token")
    verified = jwt.decode(proof.text, ECKey.import_key(KEY.public_jwk), algorithms=["ES256"])
    assert verified.header["typ"] == "dpop+jwt"
    assert "d" not in verified.header["jwk"]


def test_each_proof_has_an_identifier_of_its_own() -> None:
    assert len({claims(Proof(KEY, "GET", API_URL))["jti"] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("url", "htu"),
    [
        ("https://api.example/v1/a?b=1#c", "https://api.example/v1/a"),
        ("https://api.example:443/v1", "https://api.example/v1"),
        ("http://127.0.0.1:80/", "http://127.0.0.1/"),
        ("https://API.example:8443/A%20b", "https://api.example:8443/A%20b"),
        ("https://api.example", "https://api.example/"),
        ("https://user:pw@api.example/x", "https://api.example/x"),
        ("https://[::1]:443/x", "https://[::1]/x"),
    ],
)
def test_the_url_of_a_proof_is_the_one_that_servers_compare(url: str, htu: str) -> None:
    assert claims(Proof(KEY, "GET", url))["htu"] == htu


# --- nonces ------------------------------------------------------------------------------


def test_a_nonce_is_learnt_from_any_answer_and_belongs_to_its_server() -> None:
    Proof(KEY, "GET", API_URL, "token").learn({"DPoP-Nonce": "n-1"})
    assert claims(Proof(KEY, "POST", f"{API_URL}/more", "other"))["nonce"] == "n-1"
    assert "nonce" not in claims(Proof(KEY, "POST", API_URL))  # the same origin issues tokens
    assert "nonce" not in claims(Proof(KEY, "GET", "https://other.example/", "token"))
    assert "nonce" not in claims(Proof(KEY, "GET", "https://resource.example.org:1/", "token"))
    Proof(KEY, "GET", API_URL, "token").learn({})
    assert claims(Proof(KEY, "GET", API_URL, "token"))["nonce"] == "n-1"


@given(st.one_of(st.text(), st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F))))
def test_whatever_a_server_calls_its_nonce_the_next_proof_can_be_sent(nonce: str) -> None:
    dpop._servers.clear()
    Proof(KEY, "GET", API_URL, "token").learn({"DPoP-Nonce": "before"})
    proof = Proof(KEY, "GET", API_URL, "token")
    proof.learn({"DPoP-Nonce": nonce})
    text = Proof(KEY, "GET", API_URL, "token").text
    assert text.isascii()
    assert text.isprintable()
    used = parts(text)[1]["nonce"]
    is_nonce = 0 < len(nonce) <= 2048 and all(
        0x21 <= ord(char) <= 0x7E and char not in '"\\' for char in nonce
    )
    assert used == (nonce if is_nonce else "before")
    challenge = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": nonce}
    assert needs_new_proof(challenge) == is_nonce


@pytest.mark.parametrize("nonce", ["", "a b", "a, b", 'a"b', "é", "x" * 2049, None])
def test_a_refusal_without_a_usable_nonce_is_not_answered_by_another_proof(
    nonce: str | None,
) -> None:
    headers = {} if nonce is None else {"DPoP-Nonce": nonce}
    assert not needs_new_proof(headers, "use_dpop_nonce")


@given(st.dictionaries(st.sampled_from(["Date", "WWW-Authenticate", "DPoP-Nonce"]), st.text()))
def test_no_answer_breaks_the_proofs(headers: dict[str, str]) -> None:
    proof = Proof(KEY, "GET", API_URL, "token")
    for error in ("invalid_dpop_proof", "use_dpop_nonce", None):
        proof.learn(headers, error)
        needs_new_proof(headers, error)
    assert Proof(KEY, "GET", API_URL, "token").text.isascii()


def test_the_memory_for_servers_is_bounded() -> None:
    for number in range(600):
        Proof(KEY, "GET", f"https://api-{number}.example/", "token").learn({"DPoP-Nonce": "n"})
    assert len(dpop._servers) <= 256


# --- time --------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-3600, 900])
def test_after_a_refused_proof_the_clock_of_the_server_counts(ahead: float) -> None:
    date = formatdate(time.time() + ahead, usegmt=True)
    headers = CaseInsensitiveDict({"date": date})
    proof = Proof(KEY, "POST", TOKEN_URL)
    proof.learn(headers)  # no refusal: the answer may come from a cache
    assert abs(claims(Proof(KEY, "POST", TOKEN_URL))["iat"] - time.time()) < 5
    proof.learn(headers, "invalid_dpop_proof")
    assert needs_new_proof(headers, "invalid_dpop_proof")
    assert abs(claims(Proof(KEY, "POST", TOKEN_URL))["iat"] - time.time() - ahead) < 5
    # Our clock has been put right.
    proof.learn({"Date": formatdate(usegmt=True)}, "invalid_dpop_proof")
    assert abs(claims(Proof(KEY, "POST", TOKEN_URL))["iat"] - time.time()) < 5


def test_a_refusal_without_a_date_tells_nothing_about_clocks() -> None:
    ahead = formatdate(time.time() + 3600, usegmt=True)
    Proof(KEY, "POST", TOKEN_URL).learn({"Date": ahead}, "invalid_dpop_proof")
    Proof(KEY, "POST", TOKEN_URL).learn({"DPoP-Nonce": "n"}, "use_dpop_nonce")
    assert abs(claims(Proof(KEY, "POST", TOKEN_URL))["iat"] - time.time() - 3600) < 5


@pytest.mark.parametrize("error", ["invalid_token", "invalid_grant", "insufficient_scope", None])
def test_another_refusal_is_none_of_the_proof(error: str | None) -> None:
    challenge = {} if error is None else {"WWW-Authenticate": f'DPoP error="{error}"'}
    headers = {"Date": formatdate(usegmt=True), "DPoP-Nonce": "n"}
    assert not needs_new_proof(headers, error)
    assert not needs_new_proof(headers | challenge)


def test_an_invalid_proof_is_replaced_since_a_retry_may_have_repeated_it() -> None:
    assert needs_new_proof({"WWW-Authenticate": 'DPoP error="invalid_dpop_proof"'})
    assert needs_new_proof({}, "invalid_dpop_proof")


# --- keys --------------------------------------------------------------------------------


def test_a_new_key_is_text_that_makes_the_same_proofs_elsewhere() -> None:
    text = new_key()
    assert json.loads(text)["crv"] == "P-256"
    assert key_in(text).thumbprint == Key(text).thumbprint
    assert new_key() != text


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '"x"', "{", '{"kty": "oct"}', "[" * 9999])
def test_text_that_is_no_key_is_never_taken_for_the_path_of_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (text, str(tmp_path / "key.json")):
        with pytest.raises(UnusableKey, match="the key in memory"):
            Proof(key_in(name), "GET", API_URL)


class Elsewhere:
    """A key management service."""

    def sign(self, data: bytes) -> bytes:
        return KEY.sign(data)


def test_a_key_that_is_elsewhere_proves_if_its_public_key_is_known() -> None:
    key = Key(Elsewhere(), alg="ES256", public=KEY.public_jwk)
    proof = Proof(key, "GET", API_URL, "token").text
    server = Proofs(time.time, nonces=False)
    assert server.verified(request(proof, "GET"), API_URL, "x", "token") == KEY.thumbprint
    with pytest.raises(UnusableKey, match="pass public="):
        Proof(Key(Elsewhere(), alg="ES256"), "GET", API_URL, "token")


def test_a_proof_shows_nothing_of_itself() -> None:
    proof = Proof(KEY, "GET", API_URL, "token")
    assert repr(proof) == "<Proof>"
