"""Assertions as the test server reads them (RFC 7523): signed, meant for it, short-lived, once."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from tokenadapter.keys import algorithms
from tokenadapter.keys.jws import unb64

from .refusals import Refused

__all__ = ["TYPE", "Assertions", "Proof"]

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Proof: TypeAlias = str | Mapping[str, str] | None
"""What a client has: a secret, or the members of its public JWK and ``x5t#S256``, or nothing."""

# In seconds.  A longer life makes an assertion a password.
_LONGEST_LIFE = 3600
_HMACS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


class Assertions:
    """Verifies assertions, each of them once.

    :param clients: what each issuer of assertions has.
    :param audiences: what the server calls itself, to be called late.
    """

    def __init__(
        self,
        clients: Mapping[str, Proof],
        clock: Callable[[], float],
        audiences: Callable[[], Collection[str]],
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._audiences = audiences
        self._seen: set[tuple[str, str]] = set()

    def verified(self, assertion: str, error: str, status: int = 400) -> dict[str, Any]:
        """The claims of *assertion*.

        :param error: the code of the refusal otherwise (RFC 7523 section 3.1 and 3.2).
        """
        try:
            claims = self._claims(assertion)
            why = self._problem(assertion, claims)
            if "jti" in claims and why is None:
                self._seen.add((claims["iss"], claims["jti"]))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as problem:
            why = f"cannot be read: {problem!r}"
        if why is not None:
            raise Refused(error, f"the assertion {why}", status)
        return claims

    @staticmethod
    def _claims(assertion: str) -> dict[str, Any]:
        header, payload, _ = assertion.split(".")
        claims: dict[str, Any] = json.loads(unb64(payload))
        claims["alg"] = json.loads(unb64(header))["alg"]
        for name in ("iss", "sub", "aud", "exp"):
            if name not in claims:
                raise ValueError(f"{name} is missing")
        return claims

    def _problem(self, assertion: str, claims: Mapping[str, Any]) -> str | None:
        now = self._clock()
        audience = claims["aud"]
        audiences = {audience} if isinstance(audience, str) else {*audience}
        if audiences.isdisjoint(self._audiences()):
            return f"is for {audience}"
        if not now < claims["exp"] <= now + _LONGEST_LIFE:
            return "has expired, or lives too long"
        if (claims["iss"], claims.get("jti")) in self._seen:
            return "was used before"
        signed, _, signature = assertion.rpartition(".")
        proof = self._clients.get(claims["iss"])
        if not _is_signed_by(proof, claims["alg"], signed.encode(), unb64(signature)):
            return "is not signed by its issuer"
        return None


def _is_signed_by(proof: Proof, alg: str, data: bytes, signature: bytes) -> bool:
    if isinstance(proof, str) and alg in _HMACS:
        return hmac.compare_digest(hmac.digest(proof.encode(), data, _HMACS[alg]), signature)
    if isinstance(proof, Mapping) and "kty" in proof:
        algorithms.check_installed()
        return algorithms.verifies(proof, alg, data, signature)
    return False
