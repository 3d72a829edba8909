"""Assertions: short-lived signed statements that a client or a user is who it says (RFC 7523)."""

from __future__ import annotations

import time
from math import isfinite
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import secrets
else:
    secrets = late("secrets")

__all__ = ["LIFETIME", "checked_lifetime", "claims", "with_client_assertion"]

LIFETIME = 60.0
"""Seconds for which an assertion is valid: it is used at once, and once."""

_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def checked_lifetime(lifetime: Any) -> float:
    """*lifetime* itself.

    :raises ValueError: unless it is a number of seconds of 1 or more.
    """
    if not (isinstance(lifetime, (int, float)) and isfinite(lifetime) and lifetime >= 1):
        raise ValueError(f"lifetime must be 1 s or more, not {lifetime!r}")
    return float(lifetime)


def claims(
    issuer: str, subject: str, audience: str, lifetime: float = LIFETIME, **more: Any
) -> dict[str, Any]:
    """The claims of an assertion (RFC 7523 section 3), with an identifier that no other has.

    :param lifetime: in seconds, from now on.
    :param more: further claims.
    """
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "iat": now,
        "exp": now + int(lifetime),
        "jti": secrets.token_urlsafe(16),
        **more,
    }


def with_client_assertion(form: dict[str, Any], client_id: str, assertion: str) -> tuple[str]:
    """Add the parameters by which an assertion authenticates a client (RFC 7521 section 4.2).

    :returns: what messages must mask.
    """
    # Some servers look the client up by its identifier before they read the assertion.
    form["client_id"] = client_id
    form["client_assertion_type"], form["client_assertion"] = _TYPE, assertion
    return (assertion,)
