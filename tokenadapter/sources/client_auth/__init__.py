"""Client authentication: how a client proves its identity (RFC 6749 section 2.3), one way a file.

A program can pass an object of its own: see :class:`~tokenadapter.protocols.ClientAuth`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.sources.client_auth.basic import ClientSecretBasic
from tokenadapter.sources.client_auth.none import PublicClient
from tokenadapter.sources.client_auth.post import ClientSecretPost
from tokenadapter.sources.client_auth.tls import TLSClientAuth

if TYPE_CHECKING:
    from tokenadapter.protocols import ClientAuth
    from tokenadapter.sources.client_auth import client_secret_jwt
else:
    client_secret_jwt = late("tokenadapter.sources.client_auth.client_secret_jwt")

__all__ = ["BY_NAME", "ClientSecretBasic", "ClientSecretPost", "PublicClient", "TLSClientAuth"]

BY_NAME: Mapping[str, Callable[[Any], ClientAuth]] = {
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
    # Imported when it is called.
    "client_secret_jwt": lambda secret: client_secret_jwt.ClientSecretJWT(secret),  # noqa: PLW0108
    "none": lambda client_secret: PublicClient(),
    "tls_client_auth": lambda client_secret: TLSClientAuth(),
    "self_signed_tls_client_auth": lambda client_secret: TLSClientAuth(),
}
"""What makes each of them from a client secret, by its registered name (RFC 7591 section 2)."""
