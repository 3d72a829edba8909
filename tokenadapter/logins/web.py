"""A login in a web application: one request redirects the browser, another gets the answer.

The two requests may reach different processes.  What the second request needs is kept in the
user's session.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter import errors
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.logins import id_token
from tokenadapter.logins.authorization import Authorization, Pending, single_values
from tokenadapter.logins.login import endpoints, keeper_of, login_source, own_settings
from tokenadapter.sources import or_raise
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token

if TYPE_CHECKING:
    from tokenadapter.protocols import Grant, TokenStore

__all__ = ["begin_login", "finish_login"]


def begin_login(
    source: Grant | TokenKeeper,
    redirect_uri: str,
    *,
    authorization_url: str | None = None,
    iss: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Begin a login in a web application: redirect the user's browser to the returned URL.

    The browser comes back to *redirect_uri*, whose view calls :func:`finish_login`.  The login is
    an authorization code request (RFC 6749 section 4.1) with PKCE (RFC 7636).

    :param source: what the token is for: a :class:`~tokenadapter.RefreshToken`, or the
        :class:`~tokenadapter.TokenKeeper` of one.
    :param redirect_uri: the URL of the view that finishes the login, as it is registered at the
        server: ``https``, unless it is on this machine.
    :param authorization_url: the authorization endpoint; by default the one in the metadata of the
        source's ``issuer``, or that of its ``provider``.
    :param iss: the issuer that the answer must name (RFC 9207), as for :func:`login`.
    :returns: the URL, and what :func:`finish_login` needs as *pending*: a dictionary for JSON.
        Keep it in the user's session, on the server or encrypted: it contains secrets.
    :raises TypeError: if *source* cannot use a refresh token.
    :raises ValueError: if a URL is invalid, or the ``authorization_url`` is missing.
    :raises UnsafeTarget: if the answer would be sent without encryption.
    :raises TokenError: if the metadata or a pushed request is needed first, and the server does not
        answer or refuses.
    """
    grant = _grant_of(source)
    oauth = _oauth2_source(grant)
    oauth.oauth2_client.endpoint("redirect_uri", redirect_uri)
    given = {"authorization_url": authorization_url, "iss": iss}
    settings = {**endpoints(oauth.discover()), **own_settings(grant, given)}
    if "authorization_url" not in settings:
        raise ValueError(
            "authorization_url is missing: pass it, or an issuer that publishes its metadata"
        )
    request = Authorization(oauth, settings, redirect_uri)
    return request.url, request.pending._asdict()


def finish_login(
    source: Grant | TokenKeeper,
    store: TokenStore | str | os.PathLike[str] | None = None,
    *,
    pending: Mapping[str, Any] | None,
    answer: str,
    switch: bool = False,
) -> Token:
    """Finish a login that :func:`begin_login` began, and store the token.

    :param source: the source, or the keeper, that the login began with.
    :param store: where the token is stored, as for :class:`~tokenadapter.TokenKeeper`: the slot of
        the user whose session this is.
    :param pending: what :func:`begin_login` returned.  Remove it from the user's session: it is
        valid for one answer.
    :param answer: the URL at which the browser came back, with its query.  Its path must be that of
        the *redirect_uri*.
    :param switch: replace the stored token even if it is that of another account.  The accounts are
        known if both logins requested the scope ``openid``.
    :returns: the token as it is stored.
    :raises TypeError: if *source* cannot use a refresh token, or if *store* is given twice.
    :raises ReauthRequired: if the user or the server refused; if the answer belongs to another
        login than *pending*, or there is none; if that began for another client or server; or if
        another account logged in, without *switch*.
    :raises RefreshConfigError: if the server refused the request, or if the answer is not from this
        login's server.
    :raises RefreshTemporarilyFailed: if the server did not answer.
    :raises TokenNotPersisted: if the token cannot be saved.
    """
    keeper = keeper_of(source, store)
    outcome = _outcome(keeper, _oauth2_source(keeper.grant), pending, answer, switch)
    del pending, answer  # no frame of the error shall have their secrets
    return or_raise(keeper.tell(outcome))


def _outcome(
    keeper: TokenKeeper,
    source: OAuth2Source,
    kept: Mapping[str, Any] | None,
    answer: str,
    switch: bool,
) -> Token | errors.TokenError:
    """The stored token, or why there is none."""
    try:
        pending = Pending(**(kept or {}))
        values = _values(answer, pending.redirect_uri)
    except (TypeError, ValueError):
        return _not_pending("no login is pending in this session")
    if not pending.is_answered_by(values):
        return _not_pending("its state differs, or it came to another page than redirect_uri")
    if pending.owner != dict(source.owner):
        return _not_pending("that login was begun for another client or server")
    try:
        token = pending.token(source, values)
        account = or_raise(id_token.account_of(token, source, pending.issuer, pending.nonce))
        return keeper.adopt(token, account=account, switch=switch)
    except errors.TokenError as error:
        return error.with_traceback(None)


def _values(answer: str, redirect_uri: str) -> Mapping[str, str]:
    """The parameters of *answer*; none if it came to another page.

    That page may be the one of another server (RFC 9700 section 4.4).  Only the paths are compared:
    before a proxy, scheme and host may be others.

    :raises ValueError: if one of the two is no URL.
    """
    parts = urlsplit(answer)
    return single_values(parts.query) if parts.path == urlsplit(redirect_uri).path else {}


def _not_pending(why: str) -> errors.ReauthRequired:
    return errors.ReauthRequired(
        f"The answer belongs to another login: {why}. Nothing was sent, and the stored token "
        "is kept. Have the user start the login again.",
        reason="login_failed",
    )


def _grant_of(source: Grant | TokenKeeper) -> Any:
    return source.grant if isinstance(source, TokenKeeper) else source


def _oauth2_source(grant: Any) -> OAuth2Source:
    """The source behind *grant*."""
    source = login_source(grant)
    if not isinstance(source, OAuth2Source):
        raise TypeError(
            f"{source!r} may have to register a client: register your web application at the "
            "server, and use RefreshToken(issuer=..., client_id=..., resource=...)"
        )
    return source
