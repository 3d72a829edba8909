"""The ID token of a login says who logged in (OpenID Connect Core section 2).

It comes straight from the token endpoint, whose certificate was verified, so its signature need not
be (section 3.1.3.7, point 6).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from tokenadapter import errors
from tokenadapter.http.masking import masked, reveals
from tokenadapter.keys.jws import claims_of
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token
from tokenadapter.values import Account

__all__ = ["account_of", "is_asked_for"]

# Seconds by which the clocks of server and client may differ.
_LEEWAY = 300.0
# Section 2: a subject has at most so many ASCII characters.
_LONGEST_SUBJECT = 255
_LONGEST_ISSUER = 2048
# What people call themselves by, the clearest first (section 5.1).
_NAMES = ("email", "preferred_username", "name")


def is_asked_for(source: OAuth2Source) -> bool:
    """Whether *source* asks for an ID token (section 3.1.2.1)."""
    return "openid" in str(source.asked.get("scope", "")).split()


def account_of(
    token: Token, source: OAuth2Source, issuer: str | None, nonce: str | None
) -> Account | errors.RefreshConfigError | None:
    """The user who logged in; ``None`` if no ID token was asked for, or none came.

    :param issuer: the issuer that the ID token must name, if it is known.
    :param nonce: the nonce of the authorization request, if it had one.
    :returns: the error if there is an ID token that is not for this login.  It is returned, not
        raised, for the same reason as those of :mod:`tokenadapter.sources.outcome`.
    """
    given = token.extras.get("id_token")
    if given is None or not is_asked_for(source):
        return None
    client = source.oauth2_client
    secrets = [token.access_token, token.refresh_token or "", *client.secrets_in({})]
    claims = claims_of(str(given))
    if claims is None:
        return _refused("it cannot be read")
    subject, theirs = claims.get("sub"), claims.get("iss")
    if not _is_subject(subject) or reveals(subject, secrets):
        return _refused("it names no user")
    if not isinstance(theirs, str) or len(theirs) > _LONGEST_ISSUER or reveals(theirs, secrets):
        return _refused("it names no issuer")
    if theirs != (issuer or theirs):
        return _refused("it is of another issuer")
    audience = claims.get("aud")
    if client.client_id not in (audience if isinstance(audience, list) else [audience]):
        return _refused("it is for another client")
    if nonce is not None and claims.get("nonce") != nonce:
        return _refused("its nonce differs, so it belongs to another login")
    end = claims.get("exp")
    if isinstance(end, bool) or not isinstance(end, (int, float)):
        return _refused("it does not say when it expires")
    if not time.time() - _LEEWAY < end:
        return _refused("it has expired, according to this machine's clock")
    return Account(theirs, subject, _name(claims, secrets))


def _is_subject(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value.isascii() and 0 < len(value) <= _LONGEST_SUBJECT


def _name(claims: Mapping[str, Any], secrets: Iterable[str]) -> str | None:
    for claim in _NAMES:
        name = claims.get(claim)
        if isinstance(name, str) and name.strip():
            return masked(name, secrets)
    return None


def _refused(why: str) -> errors.RefreshConfigError:
    return errors.RefreshConfigError(
        f"The ID token of the login is refused: {why} (OpenID Connect Core section 3.1.3.7). The "
        "new token is not used, and the stored one is kept. Check issuer or iss, client_id and the "
        "clock. Then start the login again, in a browser that you trust."
    )
