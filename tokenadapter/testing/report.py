"""What a token server has seen: its counters, and each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Stats(NamedTuple):
    """How often each thing has happened since the server was created.

    :ivar token_requests: requests that reached the token endpoint or the login, scripted failures
        included.
    :ivar renewals: grants and logins that gave a token, of whatever type.
    :ivar refreshes: those of them that spent a refresh token.
    :ivar refusals: token requests that were answered with an error of their own making.
    :ivar failures: scripted failures that were played, at any endpoint.
    :ivar reuse_detections: spent refresh tokens that were shown again and ended their family.
    :ivar families_revoked: grants revoked, for whatever reason.
    :ivar api_requests: requests that reached the API.
    :ivar api_refused: those of them that carried no good token.
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


@dataclass(slots=True, eq=False)
class Request:
    """A request that reached the server, logged when its body has been read.

    Its repr shows no headers, query or form, because they hold secrets.

    :ivar path: the path as it was sent, percent-encoding included, without the query.
    :ivar query: the text after the ``?``.
    :ivar headers: the headers by lower-case name; repeated ones joined by a comma.
    :ivar length: the size of the body in bytes.
    :ivar sha256: its SHA-256 in hex.
    :ivar body: the body itself at the token endpoint, the login and the revocation endpoint; empty
        elsewhere.
    :ivar form: its parameters, if it is a form; of a repeated one (``resource``) the last.
    :ivar time: when the request came in, by the server's clock.
    :ivar peer: the client's address, ``host:port``: one per connection.
    :ivar status: the status of the answer; ``None`` while there is none, and for good if the
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
