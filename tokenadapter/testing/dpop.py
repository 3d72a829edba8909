"""DPoP as the test server wants it (RFC 9449): proofs that are whole, recent, and used once."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import b64, unb64

from .refusals import Refused
from .report import Request

__all__ = ["Proofs"]

# In seconds, before and after the server's time.
_WINDOW = 30
# For which a nonce is accepted.
_PERIODS = 3


class Proofs:
    """Verifies proofs, each of them once.

    A nonce is accepted for two periods after the one in which answers have it, so that a client has
    time to use it.

    :param nonces: whether proofs must have a nonce; a number: after so many seconds there is
        another one.
    :raises ExtraMissing: if the package cryptography is not installed.
    """

    def __init__(self, clock: Callable[[], float], nonces: bool | float) -> None:
        algorithms.check_installed()
        self._clock = clock
        self._wants_nonces = nonces is not False
        self._period = 0.0 if isinstance(nonces, bool) else nonces
        self._secret = secrets.token_bytes(16)
        self._seen: set[str] = set()
        self.refused: int = 0

    def change_nonce(self) -> None:
        """Accept no nonce of those that clients know."""
        self._secret = secrets.token_bytes(16)

    def headers(self, endpoint: str) -> dict[str, str]:
        """What an answer of *endpoint* tells about proofs: the time, and the nonce."""
        date = {"Date": formatdate(self._clock(), usegmt=True)}
        nonce = {"DPoP-Nonce": self._nonce(endpoint)} if self._wants_nonces else {}
        return date | nonce

    def verified(
        self, request: Request, url: str, endpoint: str, access_token: str | None = None
    ) -> str:
        """The thumbprint of the key that the proof of *request* was made with.

        :param url: that of the request, without its query.
        :param access_token: the token that came with it.
        """
        try:
            header, claims = self._read(request.headers.get("dpop", ""))
            why = self._problem(header, claims, request.method, url, access_token)
            thumbprint = algorithms.thumbprint(header["jwk"])
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            why = f"cannot be read: {problem!r}" if "dpop" in request.headers else "is missing"
        if why is not None:
            self.refused += 1
            raise Refused("invalid_dpop_proof", f"the proof {why}")
        if self._wants_nonces and claims.get("nonce") not in self._accepted(endpoint):
            self.refused += 1
            raise Refused("use_dpop_nonce", "the proof lacks the nonce of this server")
        self._seen.add(claims["jti"])
        request.thumbprint = thumbprint
        return thumbprint

    def _read(self, proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The header and the claims of *proof*, if its signature is right."""
        head, payload, signature = proof.split(".")
        header, claims = json.loads(unb64(head)), json.loads(unb64(payload))
        signed = f"{head}.{payload}".encode()
        if "d" in header["jwk"]:
            raise ValueError("the private key itself")
        if not algorithms.verifies(header["jwk"], header["alg"], signed, unb64(signature)):
            raise ValueError("its signature is wrong")
        return header, claims

    def _problem(
        self,
        header: Mapping[str, Any],
        claims: Mapping[str, Any],
        method: str,
        url: str,
        access_token: str | None,
    ) -> str | None:
        """What is wrong with a proof (RFC 9449 section 4.3)."""
        if header["typ"] != "dpop+jwt":
            return f"has the type {header['typ']}"
        if (claims["htm"], claims["htu"]) != (method, url):
            return f"is for {claims['htm']} {claims['htu']}, not for {method} {url}"
        if abs(claims["iat"] - self._clock()) > _WINDOW:
            return "is not of now"
        if claims["jti"] in self._seen:
            return "was used before"
        token = access_token and b64(hashlib.sha256(access_token.encode()).digest())
        if claims.get("ath") != token:
            return "is for another access token"
        return None

    def _nonce(self, endpoint: str, periods_ago: int = 0) -> str:
        period = int(self._clock() / self._period) - periods_ago if self._period else 0
        return hmac.new(self._secret, f"{endpoint} {period}".encode(), "sha256").hexdigest()

    def _accepted(self, endpoint: str) -> set[str]:
        return {self._nonce(endpoint, ago) for ago in range(_PERIODS)}
