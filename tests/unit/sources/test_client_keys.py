"""Clients that authenticate by a key, a certificate, or an assertion of their platform."""

from __future__ import annotations

import json
import pickle
import ssl
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tokenadapter import (
    ClientAssertion,
    ClientCredentials,
    ClientSecretJWT,
    JWTBearer,
    Key,
    MemoryStore,
    PrivateKeyJWT,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenKeeper,
    login,
)
from tokenadapter.keys import certificates
from tokenadapter.keys.jws import ALGORITHMS, unb64
from tokenadapter.sources.client_auth import BY_NAME
from tokenadapter.testing import Browser, TokenServer

KEY = Key.generate()
SECRET = "a secret of more than 256 bits, as HS256 wants it"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(KEY.private_jwk()))
    path.chmod(0o600)
    return path


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(clients={"app": KEY.public_jwk, "old": SECRET}) as server:
        yield server


def parts(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims."""
    header, claims = (json.loads(unb64(part)) for part in assertion.split(".")[:2])
    return header, claims


def of(server: TokenServer, auth: Any, client: str = "app", **options: Any) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id=client, client_auth=auth, **options)


# Assertions by a private key


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_server_recognises_a_client_by_each_kind_of_key(alg: str) -> None:
    key = Key.generate(alg)
    with TokenServer(clients={"app": key.public_jwk}) as server:
        assert of(server, PrivateKeyJWT(key))().access_token


def test_an_assertion_is_short_lived_used_once_and_for_the_endpoint(
    server: TokenServer, key_file: Path
) -> None:
    before = time.time()
    source = of(server, PrivateKeyJWT(key_file, alg="ES256", kid="2026-01"))
    source()
    source()
    first, second = (request.form for request in server.requests)
    assert first["client_id"] == "app"
    assert first["client_assertion_type"].endswith(":jwt-bearer")
    header, claims = parts(first["client_assertion"])
    assert header == {"alg": "ES256", "typ": "JWT", "kid": "2026-01"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("app", "app", server.token_url)
    assert before - 1 <= claims["iat"] <= time.time()
    assert claims["exp"] - claims["iat"] == 60
    assert claims["jti"] != parts(second["client_assertion"])[1]["jti"]
    assert "authorization" not in server.requests[0].headers


def test_the_audience_may_be_the_issuer(server: TokenServer) -> None:
    of(server, PrivateKeyJWT(KEY, audience=server.issuer, lifetime=5))()
    _, claims = parts(server.requests[-1].form["client_assertion"])
    assert claims["aud"] == server.issuer
    assert claims["exp"] - claims["iat"] == 5
    with pytest.raises(RefreshConfigError, match=r"is for https://other\.example/"):
        of(server, PrivateKeyJWT(KEY, audience="https://other.example/"))()


def test_the_certificate_of_the_key_is_named_where_the_server_wants_it(
    server: TokenServer, client_cert: str
) -> None:
    of(server, PrivateKeyJWT(KEY, certificate=client_cert))()
    header, _ = parts(server.requests[-1].form["client_assertion"])
    assert header["x5t#S256"] == certificates.thumbprint(client_cert)


def test_revocation_is_authenticated_too(server: TokenServer) -> None:
    source = of(server, PrivateKeyJWT(KEY), revocation_url=server.revocation_url)
    token = source()
    source.revoke(token)
    _, claims = parts(server.requests[-1].form["client_assertion"])
    assert claims["aud"] == server.revocation_url


def test_the_wrong_key_is_refused_as_the_client(server: TokenServer) -> None:
    with pytest.raises(RefreshConfigError, match="not signed by its issuer") as caught:
        of(server, PrivateKeyJWT(Key.generate()))()
    assert caught.value.error == "invalid_client"
    assert "No client_secret was sent" not in str(caught.value)


def test_a_source_with_a_key_file_can_be_pickled(server: TokenServer, key_file: Path) -> None:
    source = of(server, PrivateKeyJWT(key_file))
    source()
    pickled = pickle.dumps(source)
    assert KEY.private_jwk()["d"].encode() not in pickled
    again = pickle.loads(pickled)
    assert again().access_token
    assert again.client_credential == source.client_credential


def test_clients_with_different_keys_are_distinguished(server: TokenServer) -> None:
    auths = [
        PrivateKeyJWT(key)
        for key in (KEY, Key(KEY.private_jwk()), Key(Key.generate().private_jwk()))
    ]
    assert len({of(server, auth).client_credential for auth in auths}) == 3


# Under a secret


@pytest.mark.parametrize("auth", ["client_secret_jwt", ClientSecretJWT(SECRET, alg="HS512")])
def test_a_secret_may_sign_instead_of_being_sent(server: TokenServer, auth: Any) -> None:
    secret = SECRET if isinstance(auth, str) else None
    of(server, auth, "old", client_secret=secret)()
    form = server.requests[-1].form
    assert SECRET not in form.values()
    header, claims = parts(form["client_assertion"])
    assert header["alg"] == ("HS256" if secret else "HS512")
    assert claims["sub"] == "old"


def test_metadata_may_want_the_secret_to_sign(server: TokenServer) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_jwt"]
    source = ClientCredentials(issuer=f"{server.url}/jwt", client_id="old", client_secret=SECRET)
    assert source().access_token
    assert "client_assertion" in server.requests[-1].form


def test_metadata_does_not_overrule_a_chosen_key(server: TokenServer) -> None:
    server.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    source = ClientCredentials(
        issuer=f"{server.url}/key", client_id="app", client_auth=PrivateKeyJWT(KEY)
    )
    assert source().access_token


# By certificate


class Client:
    """The certificate of a client, and whom a server trusts for it."""

    def __init__(self, directory: Path, *, self_signed: bool) -> None:
        self.cert = str(directory / "client.pem")
        self.ca = str(directory / "client-ca.pem")
        if self_signed:
            key = ec.generate_private_key(ec.SECP256R1())
            text = _self_signed(key)
            private = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            Path(self.cert).write_bytes(private + text)
            Path(self.ca).write_bytes(text)
        else:
            authority = trustme.CA()
            issued = authority.issue_cert("app.example")
            Path(self.cert).write_bytes(issued.private_key_and_cert_chain_pem.bytes())
            authority.cert_pem.write_to_path(self.ca)

    @property
    def proof(self) -> dict[str, str]:
        return {"x5t#S256": certificates.thumbprint(self.cert)}


def _self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    start = datetime(2020, 1, 1)  # noqa: DTZ001
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start)
    builder = builder.not_valid_after(datetime(2099, 1, 1))  # noqa: DTZ001
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(params=[False, True], ids=["pki", "self-signed"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    return Client(tmp_path, self_signed=request.param)


@pytest.fixture
def tls_server(client: Client, tls: ssl.SSLContext) -> Iterator[TokenServer]:
    with TokenServer(clients={"app": client.proof}, tls=tls, client_ca=client.ca) as server:
        yield server


@pytest.mark.parametrize("auth", ["tls_client_auth", "self_signed_tls_client_auth"])
def test_a_server_recognises_a_client_by_its_certificate(
    tls_server: TokenServer, client: Client, ca_file: str, auth: str
) -> None:
    source = of(tls_server, auth, cert=client.cert, verify=ca_file)
    assert source().access_token
    (request,) = tls_server.requests
    assert request.form == {"grant_type": "client_credentials", "client_id": "app"}
    assert request.certificate == client.proof["x5t#S256"]


def test_another_certificate_is_refused(
    tls_server: TokenServer, client: Client, ca_file: str, tmp_path: Path
) -> None:
    tls_server._clients["app"]["x5t#S256"] = "another"  # type: ignore[index]
    with pytest.raises(RefreshConfigError, match="Check client_id, client_secret") as caught:
        of(tls_server, "tls_client_auth", cert=client.cert, verify=ca_file)()
    assert "No client_secret was sent" not in str(caught.value)


def test_a_certificate_is_presented_at_the_endpoints_for_certificates(
    tls_server: TokenServer, client: Client, ca_file: str
) -> None:
    tls_server.metadata.update(
        {
            "token_endpoint": "https://no.certificate.example/token",
            "mtls_endpoint_aliases": {
                "token_endpoint": tls_server.token_url,
                "authorization_endpoint": "https://not.for.a.browser.example/",
                "issuer": "https://no.endpoint.example/",
            },
        }
    )
    options: dict[str, Any] = {"issuer": tls_server.url, "client_id": "app", "verify": ca_file}
    source = ClientCredentials(client_auth="tls_client_auth", cert=client.cert, **options)
    assert source().access_token
    metadata = source.discover()
    assert metadata is not None
    assert metadata.authorization_endpoint == tls_server.authorization_url
    plain = ClientCredentials(**options).discover()
    assert plain is not None
    assert plain.token_endpoint == "https://no.certificate.example/token"


def test_an_alias_must_be_as_safe_as_any_endpoint(
    tls_server: TokenServer, client: Client, ca_file: str
) -> None:
    tls_server.metadata["mtls_endpoint_aliases"] = {"token_endpoint": "http://elsewhere.example/"}
    source = ClientCredentials(
        issuer=f"{tls_server.url}/unsafe", client_id="app", cert=client.cert, verify=ca_file
    )
    with pytest.raises(RefreshConfigError, match="token_endpoint is plain http"):
        source()


# An assertion that the platform hands out


def test_an_assertion_is_read_for_each_request(server: TokenServer, tmp_path: Path) -> None:
    path = tmp_path / "token"

    def hand_out() -> str:
        audience = {"iss": "app", "sub": "app", "aud": server.issuer, "exp": time.time() + 60}
        path.write_text(KEY.jwt({**audience, "jti": str(time.monotonic_ns())}) + "\n")
        return path.read_text()

    for place in (path, str(path), hand_out):
        source = of(server, ClientAssertion(place))
        for _ in range(2):
            hand_out()
            assert source().access_token
    assert len({request.form["client_assertion"] for request in server.requests}) == 6


def test_the_assertion_of_another_keeper_authenticates(server: TokenServer) -> None:
    def platform() -> Token:
        claims = {"iss": "app", "sub": "app", "aud": server.issuer, "exp": int(time.time()) + 60}
        return Token(KEY.jwt({**claims, "jti": str(time.monotonic_ns())}))

    keeper = TokenKeeper(lambda previous: platform())
    assert of(server, ClientAssertion(keeper))().access_token


def test_a_keeper_without_an_assertion_is_the_cause_and_nothing_backs_off(
    server: TokenServer,
) -> None:
    def platform() -> Token:
        claims = {"iss": "app", "sub": "app", "aud": server.issuer, "exp": int(time.time()) + 60}
        return Token(KEY.jwt({**claims, "jti": str(time.monotonic_ns())}))

    kept = TokenKeeper(RefreshToken(server.token_url, client_id="app"), MemoryStore())
    store = MemoryStore()
    keeper = TokenKeeper(of(server, ClientAssertion(kept)), store)
    with pytest.raises(RefreshConfigError, match="there is no credential") as caught:
        keeper.current()
    assert isinstance(caught.value.__cause__, ReauthRequired)
    assert store.load().document is None
    kept.adopt(platform())
    assert keeper.current().access_token


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: No such file"), ("", "is empty"), ("é", "is not a token")],
)
def test_a_place_without_an_assertion_is_named(
    server: TokenServer, tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RefreshConfigError, match=f"assertion: {path} {problem}.* Correct client"):
        of(server, ClientAssertion(path))()
    assert not server.requests


@pytest.mark.parametrize("place", [5, None, dict])
def test_an_invalid_place_for_an_assertion_is_refused_at_once(place: Any) -> None:
    with pytest.raises(TypeError, match="assertion must be the path of a file, a function or"):
        ClientAssertion(place)


# What goes wrong before anything is sent


class Signer:
    """A key elsewhere that does not answer."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def sign(self, data: bytes) -> bytes:
        raise self._error


@pytest.mark.parametrize(
    ("auth", "kind", "message"),
    [
        (
            PrivateKeyJWT("/no/such/key.pem"),
            RefreshConfigError,
            "the key /no/such/key.pem cannot be",
        ),
        (
            PrivateKeyJWT(Signer(ConnectionError("s3cret")), alg="ES256"),
            RefreshTemporarilyFailed,
            "raised ConnectionError",
        ),
        (
            PrivateKeyJWT(Signer(TypeError("s3cret")), alg="ES256"),
            RefreshConfigError,
            "raised TypeError",
        ),
        (ClientAssertion(lambda: 5), RefreshConfigError, "returned no text"),  # type: ignore[arg-type]
        (
            ClientAssertion(TokenKeeper(RefreshToken("https://id.example/", client_id="a"))),
            RefreshConfigError,
            "There is no refresh token|credential",
        ),
    ],
)
def test_a_refresh_token_is_not_spent_if_the_client_cannot_prove_itself(
    server: TokenServer, auth: Any, kind: type[Exception], message: str
) -> None:
    first = server.issue(client="app")["refresh_token"]
    keeper = TokenKeeper(
        RefreshToken(server.token_url, first, client_id="app", client_auth=auth), MemoryStore()
    )
    with pytest.raises(kind, match=message) as caught:
        keeper.current()
    assert not isinstance(caught.value, ReauthRequired)
    assert "Nothing was spent" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert not server.requests
    # As after a repair: the same refresh token is presented without further ado.
    keeper.source._client._auth = PrivateKeyJWT(KEY)
    assert keeper.refresh().access_token


@pytest.mark.parametrize(("shift", "where"), [(-300, "behind"), (300, "ahead of")])
def test_the_error_for_a_refused_assertion_mentions_a_wrong_clock(
    server: TokenServer, shift: int, where: str
) -> None:
    body, date = {"error": "invalid_client"}, formatdate(time.time() - shift, usegmt=True)
    sources = [of(server, PrivateKeyJWT(KEY)), JWTBearer(server.token_url, KEY, client_id="app")]
    for source in sources:
        server.fail_next(401, body=body, headers={"Date": date})
        with pytest.raises(RefreshConfigError, match=f"clock is (299|30.) s {where} the server's"):
            source()
    server.fail_next(400, body={"error": "invalid_grant"}, headers={"Date": date})
    with pytest.raises(ReauthRequired, match="synchronize it with NTP"):
        sources[1]()
    # Nothing else that is sent depends on the clock.
    server.fail_next(401, body=body, headers={"Date": date})
    with pytest.raises(RefreshConfigError) as caught:
        of(server, None, "old", client_secret=SECRET)()
    assert "clock" not in str(caught.value)


@pytest.mark.parametrize("lifetime", [0, -1, float("nan"), "60"])
def test_an_assertion_lives_for_a_second_at_least(lifetime: Any) -> None:
    for make in (partial(PrivateKeyJWT, KEY), partial(ClientSecretJWT, SECRET)):
        with pytest.raises(ValueError, match="lifetime must be 1 s or more"):
            make(lifetime=lifetime)


def test_a_login_is_authenticated_by_a_key(server: TokenServer) -> None:
    browser = Browser()
    token = login(
        RefreshToken(server.token_url, client_id="app", client_auth=PrivateKeyJWT(KEY)),
        MemoryStore(),
        authorization_url=server.authorization_url,
        browser=browser,
        show=lambda text: None,
    )
    browser.join()
    assert token.refresh_token is not None
    assert "client_assertion" in server.requests[-1].form


def test_the_traceback_of_a_signer_is_kept_without_the_form(server: TokenServer) -> None:
    source = of(server, PrivateKeyJWT(Signer(ConnectionError()), alg="ES256"))
    with pytest.raises(RefreshTemporarilyFailed) as caught:
        source()
    cause = caught.value.__cause__
    assert isinstance(cause, ConnectionError)
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "authenticate"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_auth": "client_secret_jwt"}, "needs a client_secret"),
        ({"client_auth": "private_key_jwt"}, r"needs a key: pass PrivateKeyJWT\(key\)"),
        ({"client_auth": "tls_client_auth"}, "needs cert, the client certificate"),
        (
            {"client_auth": "tls_client_auth", "client_secret": "s", "cert": "c.pem"},
            "sends no client_secret: remove one of the two",
        ),
    ],
)
def test_missing_options_of_a_method_are_named_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClientCredentials("https://id.example/token", client_id="app", **options)


def test_an_unknown_algorithm_of_a_secret_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="alg must be one of HS256, HS384, HS512, not 'none'"):
        ClientSecretJWT(SECRET, alg="none")


def test_each_registered_way_but_that_of_a_key_has_a_name() -> None:
    assert "private_key_jwt" not in BY_NAME


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"]
)
def test_a_file_without_a_certificate_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cert.pem"
    with pytest.raises(ValueError, match="cannot be read"):
        certificates.thumbprint(path)
    path.write_text(content)
    with pytest.raises(ValueError, match="has no certificate in PEM"):
        certificates.thumbprint(path)


def test_a_key_in_place_of_the_path_of_a_certificate_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"the certificate .*… cannot be read") as caught:
        certificates.thumbprint("-----BEGIN PRIVATE KEY-----\nMIIEs3cret\n")
    assert "MIIEs3cret" not in str(caught.value)
