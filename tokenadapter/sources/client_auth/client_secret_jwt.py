"""``client_secret_jwt``: an assertion under the client's secret (RFC 7523 section 2.2)."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tokenadapter.keys.jws import compact
from tokenadapter.late_imports import late
from tokenadapter.sources.assertions import (
    LIFETIME,
    checked_lifetime,
    claims,
    with_client_assertion,
)

if TYPE_CHECKING:
    import hmac
else:
    hmac = late("hmac")

__all__ = ["ClientSecretJWT"]

_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


class ClientSecretJWT:
    """Authenticates a client by an assertion under its secret, which is not sent.

    :param client_secret: the secret.
    :param alg: the algorithm: ``HS256``, ``HS384`` or ``HS512`` (RFC 7518 section 3.2).
    :param audience: as for :class:`~tokenadapter.PrivateKeyJWT`.
    :param lifetime: as there.
    :raises ValueError: if there is no such algorithm.
    """

    def __init__(
        self,
        client_secret: str,
        *,
        alg: str = "HS256",
        audience: str | None = None,
        lifetime: float = LIFETIME,
    ) -> None:
        if alg not in _HASHES:
            raise ValueError(f"alg must be one of {', '.join(_HASHES)}, not {alg!r}")
        self.credential: str = client_secret
        self._alg = alg
        self._audience = audience
        self._lifetime = checked_lifetime(lifetime)

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        statement = claims(client_id, client_id, self._audience or url, self._lifetime)
        assertion = compact(
            {"alg": self._alg, "typ": "JWT"}, json.dumps(statement).encode(), self._sign
        )
        return self.credential, *with_client_assertion(form, client_id, assertion)

    def _sign(self, data: bytes) -> bytes:
        return hmac.digest(self.credential.encode(), data, _HASHES[self._alg])
