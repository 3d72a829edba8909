"""Proofs that the sender of a token has the key that the token is bound to (DPoP, RFC 9449).

A proof is a small JWT for one request.  A server may want its *nonce* in the proof, and may change
the nonce at any time: it names the new one in the header ``DPoP-Nonce`` of any answer.  A server
also compares the time of the proof with its own clock.  If the clock of this machine is wrong, the
server refuses the proof, and the ``Date`` of the refusal tells the right time.

So a process remembers, for each server, the latest nonce and the difference of the clocks.  A
server that issues tokens and an API have nonces of their own, even under one origin.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from tokenadapter.http.challenges import parse_challenges
from tokenadapter.keys.jws import b64
from tokenadapter.keys.key import Key

__all__ = ["Proof", "key_in", "needs_new_proof", "new_key"]

# What a nonce consists of (RFC 9449 section 8.1).  A longer one would make a header that servers
# refuse.
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,2048}")
# Seconds by which two clocks differ without harm: a Date has whole seconds, and takes its time.
_TOLERANCE: Final = 2.0
_SERVERS_KNOWN: Final = 256
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# The algorithms of new keys, in order of preference: most servers accept the first, and the last
# ones make the longest proofs.
_ALGORITHMS: Final = ("ES256", "EdDSA", "Ed25519", "ES384", "PS256", "RS256")


class _Server:
    """What this process knows about a server."""

    __slots__ = ("ahead", "nonce")

    def __init__(self) -> None:
        self.nonce: str | None = None
        # By how many seconds its clock is ahead of ours.
        self.ahead = 0.0


_servers: dict[tuple[str, bool], _Server] = {}


class Proof:
    """The proof for one request, and what the answer to the request says about the next one.

    :param method: the method of the request.
    :param url: its URL; query and fragment are not part of the proof (RFC 9449 section 4.2).
    :param access_token: the token that the request carries to an API; ``None`` for a request to the
        authorization server.
    :raises UnusableKey: if the key cannot be used.
    :ivar text: the value of the header ``DPoP``.
    """

    __slots__ = ("_server", "text")

    def __init__(self, key: Key, method: str, url: str, access_token: str | None = None) -> None:
        origin, htu = _target(url)
        self._server = server = _known(origin, is_api=access_token is not None)
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": htu,
            "iat": int(time.time() + server.ahead),
        }
        if access_token is not None:
            claims["ath"] = b64(hashlib.sha256(access_token.encode()).digest())
        if server.nonce is not None:
            claims["nonce"] = server.nonce
        jwk = key.public_jwk
        self.text: str = key.jwt(claims, typ="dpop+jwt", jwk=jwk)

    def learn(self, headers: Mapping[str, str], error: str | None = None) -> None:
        """Remember what an answer says about the server.

        The parameters are those of :func:`needs_new_proof`.
        """
        nonce = headers.get("DPoP-Nonce")
        if nonce is not None and _NONCE.fullmatch(nonce):
            self._server.nonce = nonce
        if "Date" in headers and (error or _challenge(headers)) in _PROOF_REFUSED:
            self._server.ahead = _clock_error(headers["Date"])

    def __repr__(self) -> str:
        return "<Proof>"


_PROOF_REFUSED = frozenset({"invalid_dpop_proof", "use_dpop_nonce"})


def needs_new_proof(headers: Mapping[str, str], error: str | None = None) -> bool:
    """Whether a request was refused for its proof, and may succeed with a new one.

    The server names its nonce now (RFC 9449 sections 8 and 9).  Or it refused something else about
    the proof: the clock of this machine may be wrong, and urllib3's retries send a request again
    as it is, with the same proof.

    :param headers: the headers of the answer; the case of their names does not matter.
    :param error: the error code in the body of the answer (RFC 6749 section 5.2); by default the
        one in its ``WWW-Authenticate``.
    """
    error = error or _challenge(headers)
    if error == "use_dpop_nonce":
        return bool(_NONCE.fullmatch(headers.get("DPoP-Nonce", "")))
    return error == "invalid_dpop_proof"


def new_key(accepted: Collection[str] = ()) -> str | None:
    """A new private key, as a JWK in JSON; ``None`` if it could make no proof that is accepted.

    :param accepted: the algorithms of proofs that are accepted; empty if that is not known.
    :raises ExtraMissing: if the package cryptography is not installed.
    """
    for alg in _ALGORITHMS:
        if not accepted or alg in accepted:
            return json.dumps(Key.generate(alg).private_jwk(), separators=(",", ":"))
    return None


@lru_cache(maxsize=16)
def key_in(text: str) -> Key:
    """The private key in a JWK in JSON, read once."""
    try:
        jwk = json.loads(text)
    except (ValueError, RecursionError):
        jwk = None
    # Of anything else, the key says that it is unusable.  A text would be the path of a file.
    return Key(jwk if isinstance(jwk, dict) else {})


def _target(url: str) -> tuple[str, str]:
    """The origin of *url*, and the URL without query and fragment, as servers normalize it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    port = parts.port
    if port is not None and port == _DEFAULT_PORTS.get(parts.scheme):
        host = host.rpartition(":")[0]
    origin = f"{parts.scheme}://{host}"
    return origin, f"{origin}{parts.path or '/'}"


def _known(origin: str, *, is_api: bool) -> _Server:
    server = _servers.get((origin, is_api))
    if server is None:
        if len(_servers) >= _SERVERS_KNOWN:
            _servers.clear()
        server = _servers.setdefault((origin, is_api), _Server())
    return server


def _challenge(headers: Mapping[str, str]) -> str | None:
    """The error code with which an API refused a proof, if it did (RFC 9449 section 7.1)."""
    for challenge in parse_challenges(headers.get("WWW-Authenticate", "")):
        error = challenge.params.get("error")
        if error in _PROOF_REFUSED:
            return error
    return None


def _clock_error(date: str) -> float:
    """By how many seconds the clock of a server is ahead of ours; 0 if they agree."""
    try:
        ahead = parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return ahead if abs(ahead) > _TOLERANCE else 0.0
