"""``private_key_jwt``: an assertion signed with the client's private key (RFC 7523 section 2.2)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tokenadapter.keys.key import Key
from tokenadapter.late_imports import late
from tokenadapter.sources.assertions import (
    LIFETIME,
    checked_lifetime,
    claims,
    with_client_assertion,
)

if TYPE_CHECKING:
    import os

    from tokenadapter.keys import certificates
    from tokenadapter.keys.key import KeyLike
else:
    certificates = late("tokenadapter.keys.certificates")

__all__ = ["PrivateKeyJWT"]


class PrivateKeyJWT:
    """Authenticates a client by its private key: no secret leaves the program.

    ::

        ClientCredentials("https://id.example.com/token", client_id="billing",
                          client_auth=PrivateKeyJWT("billing-key.pem", kid="2026-01"))

    :param key: the path of a file with PEM or a JWK; PEM or a JWK itself; an object that signs,
        such as one of a key management service; or a :class:`~tokenadapter.Key`.
    :param alg: the algorithm, as for :class:`~tokenadapter.Key`.
    :param kid: the identifier of the key at the server.
    :param audience: the ``aud`` of the assertion: what the server wants there, mostly its token
        endpoint or its issuer.  By default the endpoint that the assertion is sent to.
    :param lifetime: seconds for which an assertion is valid.  Each request has an assertion of its
        own.
    :param certificate: the path of the certificate of the key, if the server finds the key by
        the thumbprint of its certificate (``x5t#S256``, RFC 7515 section 4.1.8), as that of
        Microsoft does.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if there is no such algorithm, or the certificate cannot be read.
    """

    def __init__(
        self,
        key: KeyLike,
        *,
        alg: str | None = None,
        kid: str | None = None,
        audience: str | None = None,
        lifetime: float = LIFETIME,
        certificate: str | os.PathLike[str] | None = None,
    ) -> None:
        self.key: Key = Key.of(key, alg, kid)
        self._audience = audience
        self._lifetime = checked_lifetime(lifetime)
        self._certificate = certificate

    @property
    def credential(self) -> str:
        """A text that changes with the key."""
        return self.key.identity

    def authenticate(
        self, client_id: str, url: str, form: dict[str, Any], headers: dict[str, str]
    ) -> Collection[str]:
        """Add a new assertion to the form.

        :raises UnusableKey: if the key cannot be used.
        """
        header: dict[str, str] = {}
        if self._certificate is not None:
            header["x5t#S256"] = certificates.thumbprint(self._certificate)
        statement = claims(client_id, client_id, self._audience or url, self._lifetime)
        return with_client_assertion(form, client_id, self.key.jwt(statement, **header))
