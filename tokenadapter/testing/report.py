"""What a token server has seen: its counters, and each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Stats(NamedTuple):
    """How often each thing has happened since the server was created.

    :ivar token_requests: requests that reached the token endpoint or the login, scripted failures
        included.
    :ivar renewals: token requests and logins that returned a token.
    :ivar refreshes: renewals that spent a refresh token.
    :ivar refusals: token requests that got an unscripted error.
    :ivar failures: scripted failures that happened, at any endpoint.
    :ivar reuse_detections: spent refresh tokens that were presented again and revoked their family.
    :ivar families_revoked: revoked grants, for any reason.
    :ivar api_requests: requests that reached the API.
    :ivar api_refused: API requests without a valid token.
    :ivar proofs_refused: requests whose DPoP proof was refused, such as for lack of a nonce.
    """

    token_requests: int
    renewals: int
    refreshes: int
    refusals: int
    failures: int
    reuse_detections: int
    families_revoked: int
    api_requests: int
    api_refused: int
    proofs_refused: int


@dataclass(slots=True, eq=False)
class Request:
    """A request that reached the server, logged when its body has been read.

    Its repr shows no headers, query or form, because they contain secrets.

    :ivar path: the path as it was sent, percent-encoding included, without the query.
    :ivar query: the text after the ``?``.
    :ivar headers: the headers by lower-case name; repeated headers are joined by commas.
    :ivar length: the size of the body in bytes.
    :ivar sha256: the SHA-256 of the body in hex.
    :ivar body: the body, at the token endpoint, the login and the revocation endpoint; empty
        elsewhere.
    :ivar form: the parameters of a form body; the last one of a repeated parameter (``resource``).
    :ivar time: when the request arrived, by the server's clock.
    :ivar peer: the client's address, ``host:port``, which differs for each connection.
    :ivar certificate: the thumbprint of the client certificate (``x5t#S256``), if there is one.
    :ivar thumbprint: that of the key of its DPoP proof, if there is a valid one.
    :ivar status: the status of the answer; ``None`` before the answer, and permanently if the
        request was dropped, reset or left hanging.
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    length: int
    sha256: str
    body: bytes = field(repr=False)
    form: Mapping[str, str] = field(repr=False)
    time: float
    peer: str
    status: int | None = None
    certificate: str | None = None
    thumbprint: str | None = None
