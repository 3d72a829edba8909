"""``tls_client_auth`` and ``self_signed_tls_client_auth``: a client certificate (RFC 8705)."""

from __future__ import annotations

from tokenadapter.sources.client_auth.none import PublicClient

__all__ = ["TLSClientAuth"]


class TLSClientAuth(PublicClient):
    """The certificate of the connection authenticates the client (RFC 8705 section 2).

    The form says only which client it is.  Whether an authority issued the certificate or its key
    signed it makes a difference to the server alone.
    """
