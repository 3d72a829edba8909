"""The function ``login()``: it chooses a flow, and stores the token that the flow obtains."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, Unpack

from tokenadapter import spelling
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.core.runtime import RUNTIME
from tokenadapter.core.slot import Slot
from tokenadapter.late_imports import late
from tokenadapter.sources import or_raise
from tokenadapter.sources.oauth2 import OAuth2Source
from tokenadapter.token import Token

if TYPE_CHECKING:
    from typing import TypedDict

    from tokenadapter import errors
    from tokenadapter.logins import authorization, browser, device, id_token, paste
    from tokenadapter.protocols import Grant, TokenSource, TokenStore
    from tokenadapter.sources import api_user
    from tokenadapter.sources.api_user import ApiUser
    from tokenadapter.sources.discovery import ServerMetadata
    from tokenadapter.stores import lockfile
    from tokenadapter.stores.lockfile import LockFile

    class LoginOptions(TypedDict, total=False):
        """The other arguments of :func:`login`."""

        flow: str | None
        authorization_url: str | None
        device_authorization_url: str | None
        redirect_uri: str | None
        iss: str | None
        show: Callable[[str], object] | None
        browser: Callable[[str], object] | None
        timeout: float
        switch: bool

else:
    api_user = late("tokenadapter.sources.api_user")
    authorization = late("tokenadapter.logins.authorization")
    browser = late("tokenadapter.logins.browser")
    device = late("tokenadapter.logins.device")
    errors = late("tokenadapter.errors")
    id_token = late("tokenadapter.logins.id_token")
    lockfile = late("tokenadapter.stores.lockfile")
    paste = late("tokenadapter.logins.paste")

__all__ = ["alogin", "endpoints", "keeper_of", "login", "login_source", "own_settings"]

_NEEDS = {
    "browser": "authorization_url",
    "device": "device_authorization_url",
    "paste": "authorization_url",
}
"""The flows, and the setting that each needs."""
# How often a login looks whether another one has ended, in seconds.
_LOOK_EVERY = 0.1
# The token of a login that was about to end when another began is this old at most, in seconds.
_JUST_NOW = 10.0
# The logins under way in this process: what says that one was given up, and what it is for.
_UNDER_WAY: dict[threading.Event, object] = {}


def login(
    source: Grant | TokenKeeper,
    store: TokenStore | str | os.PathLike[str] | None = None,
    *,
    flow: str | None = None,
    authorization_url: str | None = None,
    device_authorization_url: str | None = None,
    redirect_uri: str | None = None,
    iss: str | None = None,
    show: Callable[[str], object] | None = None,
    browser: Callable[[str], object] | None = None,
    timeout: float = 600.0,
    switch: bool = False,
) -> Token:
    """Log in a user, and store the token for all processes that share the store.

    While the user types, the store is not locked: other processes continue with the token that they
    have.  If another process is logging in for the same file already, this one says so, waits, and
    returns the token of that process.

    :param source: what the token is for: a :class:`~tokenadapter.RefreshToken` or an
        :class:`~tokenadapter.ApiUser`; or the :class:`~tokenadapter.TokenKeeper` of one, without
        *store*.
    :param store: where the token is stored, as for :class:`~tokenadapter.TokenKeeper`.
    :param flow: ``browser`` (RFC 8252), ``device`` (RFC 8628), or ``paste``, for a shell without a
        browser.  By default ``browser`` where there is a display, else ``device`` where its URL is
        given, else ``paste``.
    :param authorization_url: the authorization endpoint (RFC 6749 section 3.1).  Its query is
        kept: add parameters that your server needs, such as ``?access_type=offline``.  By default
        the one in the metadata of the source's ``issuer``, or that of its ``provider``; so are
        *device_authorization_url* and *iss*.
    :param device_authorization_url: the device authorization endpoint (RFC 8628 section 3.1).
    :param redirect_uri: the address to which the browser returns, as the server knows it.  On
        loopback without a port, a free port is used.  By default the one that the ``provider`` of
        the source or an ``ApiUser`` has registered, or ``http://127.0.0.1/``.
    :param iss: the issuer that the answer in the browser must name (RFC 9207).  Without it, and
        if the metadata does not say that answers name one, the answer need not do so.
    :param show: called with each text for the user; by default the texts are written to standard
        error.
    :param browser: opens a URL, in another thread; by default :func:`webbrowser.open`.
    :param timeout: seconds to wait at most for the user, or for another login.  Reading a pasted
        text has no limit.
    :param switch: replace the stored token even if another user logs in.  The users are known if
        both logins requested the scope ``openid``.
    :returns: the token as it is stored.
    :raises TypeError: if *source* cannot use a refresh token, if *store* is given twice, or if
        *show* or *browser* is not a plain function.
    :raises ValueError: if an argument makes no sense, or a URL that the flow needs is missing.
    :raises ReauthRequired: if the user or the server refused, or the time is over, here or in the
        login that this one waited for; or if another user logged in, without *switch*.
    :raises RefreshConfigError: if the server refused the request, or if an answer is not from this
        login's server.
    :raises RefreshTemporarilyFailed: if the server did not answer.
    :raises StoreError: if the store cannot be used.
    :raises LockTimeout: if another login took longer than *timeout*.
    """
    return _log_in(
        keeper_of(source, store),
        threading.Event(),
        flow=flow,
        authorization_url=authorization_url,
        device_authorization_url=device_authorization_url,
        redirect_uri=redirect_uri,
        iss=iss,
        show=show,
        browser=browser,
        timeout=timeout,
        switch=switch,
    )


async def alogin(
    source: Grant | TokenKeeper,
    store: TokenStore | str | os.PathLike[str] | None = None,
    **options: Unpack[LoginOptions],
) -> Token:
    """:func:`login`, without blocking an event loop of asyncio or trio.

    A task that is cancelled leaves at once, and the login is given up: it accepts no answer of the
    user any more, and a token that the server is sending is not stored.  If the token is being
    stored already, it stays.  The next login of this process for the same store begins when the
    one that was given up has ended, after a request that is under way.  The flow ``paste`` cannot
    be ended, and is not available.

    :param source: as for :func:`login`, like *store* and *options*.  *show* and *browser* are plain
        functions, and are called in other threads.
    :raises TypeError: as :func:`login` does, like all other errors.
    :raises ValueError: also for a keeper that is *inline*.
    """
    defaults: dict[str, Any] = login.__kwdefaults__ or {}
    spelling.check_names("alogin", options, defaults)
    settings = {**defaults, **options}
    keeper = keeper_of(source, store)
    if keeper.inline:
        raise ValueError(
            "alogin() needs a helper thread, and this TokenKeeper has inline=True: leave inline "
            "out, or call login(), for which the event loop waits"
        )
    given_up = threading.Event()
    try:
        return await keeper.arun(lambda: _log_in(keeper, given_up, can_paste=False, **settings))
    finally:
        given_up.set()


def _log_in(
    keeper: TokenKeeper,
    given_up: threading.Event,
    *,
    flow: str | None,
    authorization_url: str | None,
    device_authorization_url: str | None,
    redirect_uri: str | None,
    iss: str | None,
    show: Callable[[str], object] | None,
    browser: Callable[[str], object] | None,
    timeout: float,
    switch: bool,
    can_paste: bool = True,
) -> Token:
    """The token of a login, which ends without one if it is *given_up*."""
    given = {
        "authorization_url": authorization_url,
        "device_authorization_url": device_authorization_url,
        "redirect_uri": redirect_uri,
        "iss": iss,
    }
    own = own_settings(keeper.grant, given)
    if not isfinite(timeout) or timeout <= 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    for name, function in (("show", show), ("browser", browser)):
        if function is not None:
            spelling.check_function(name, function)
    source = login_source(keeper.grant)
    show = show or _to_stderr
    with _registered(keeper, timeout, given_up), _turn(keeper, show, timeout, given_up) as others:
        if others is not None:
            return others
        settings = {**endpoints(source.discover()), **own}
        chosen = _chosen(flow, settings, browser is not None)
        oauth = source
        if not isinstance(oauth, OAuth2Source):
            grant_type = device.GRANT_TYPE if chosen == "device" else "authorization_code"
            oauth = oauth.for_login(_stored(keeper), grant_type, settings.get("redirect_uri"))
            # Not those of before: by now, the API may name another server.
            settings = {**endpoints(oauth.discover()), **oauth.login_settings, **own}
            chosen = _chosen(chosen, settings, browser is not None)
        if chosen == "paste" and not can_paste:
            raise ValueError(
                "a login by paste waits for standard input, and cannot be cancelled: use flow "
                "'browser' or 'device', or call login() in a thread"
            )
        issuer = settings.get("iss", settings.get("issuer"))

        def adopt(token: Token, nonce: str | None) -> Token:
            account = or_raise(id_token.account_of(token, oauth, issuer, nonce))
            authorization.check_wanted(given_up)
            return keeper.adopt(token, account=account, switch=switch)

        authorization.check_wanted(given_up)
        return _flow(chosen, oauth, settings, show, browser, timeout, adopt, given_up)


def keeper_of(
    source: Grant | TokenSource | TokenKeeper, store: TokenStore | str | os.PathLike[str] | None
) -> TokenKeeper:
    """The keeper of *source*, which may be one.

    :raises TypeError: if there are two stores.
    """
    if not isinstance(source, TokenKeeper):
        return TokenKeeper(source, store)
    if store is not None:
        raise TypeError("store is given twice: a TokenKeeper has its own")
    return source


def own_settings(grant: Any, given: Mapping[str, str | None]) -> dict[str, str]:
    """What is *given* for a login, and otherwise what the grant says of logins."""
    own = {name: value for name, value in given.items() if value is not None}
    return {**getattr(grant, "login_settings", {}), **own}


def endpoints(server: ServerMetadata | None) -> dict[str, str]:
    """What the metadata of the source's issuer says of logins, if it has one (RFC 8414)."""
    if server is None:
        return {}
    found = {
        "authorization_url": server.authorization_endpoint,
        "device_authorization_url": server.device_authorization_endpoint,
        "issuer": server.issuer,
        "iss": server.issuer if server.authorization_response_iss_parameter_supported else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _flow(
    chosen: str,
    source: OAuth2Source,
    settings: Mapping[str, str],
    show: Callable[[str], object],
    open_url: Callable[[str], object] | None,
    timeout: float,
    adopt: Callable[[Token, str | None], Token],
    given_up: threading.Event,
) -> Token:
    if chosen == "device":
        return device.log_in(source, settings[_NEEDS[chosen]], show, timeout, adopt, given_up)
    if chosen == "paste":
        return paste.log_in(source, settings, show, adopt)
    return browser.log_in(source, settings, show, open_url, timeout, adopt, given_up)


def _chosen(flow: str | None, settings: Mapping[str, str], has_browser: bool) -> str:
    """The flow to use."""
    if flow is None:
        with_display = ["browser"] if has_browser or _has_display() else []
        for candidate in [*with_display, "device", "paste"]:
            if _NEEDS[candidate] in settings:
                return candidate
        raise ValueError(
            "authorization_url and device_authorization_url are missing: a login needs one of "
            "them. Pass issuer if the server publishes its metadata. Otherwise, the documentation "
            "of the server has their values"
        )
    if flow not in _NEEDS:
        raise ValueError(f"flow must be one of {', '.join(_NEEDS)}, not {flow!r}")
    if _NEEDS[flow] not in settings:
        raise ValueError(f"{_NEEDS[flow]} is missing: a login by {flow} needs it")
    return flow


def _has_display() -> bool:
    """Whether a browser that is opened here appears before the person."""
    if os.environ.get("BROWSER"):
        return True
    if os.name == "nt" or sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def login_source(grant: Any) -> OAuth2Source | ApiUser:
    """The source behind *grant*, with its secrets."""
    look_up = getattr(grant, "looked_up", None)
    source = grant if look_up is None else look_up()
    probe = Token("none", refresh_token="none")
    kinds = OAuth2Source, api_user.ApiUser
    if not isinstance(source, kinds) or "refresh_token" not in {
        credential.kind for credential in source.credentials(probe)
    }:
        raise TypeError(
            f"no user logs in for {source!r}: to log in, use RefreshToken, or "
            'type = "refresh_token" in a profile'
        )
    return source


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


# --- one login at a time -----------------------------------------------------------------


@contextmanager
def _registered(keeper: TokenKeeper, timeout: float, given_up: threading.Event) -> Iterator[None]:
    """Let the logins of this process that were given up end before the block runs.

    They are still using the lock, and the port to which the browser returns.
    """
    end = time.monotonic() + timeout
    slot = getattr(keeper.store, "path", keeper.store)
    _UNDER_WAY[given_up] = slot
    try:
        authorization.check_wanted(given_up)
        while any(other.is_set() and of == slot for other, of in list(_UNDER_WAY.items())):
            if given_up.wait(_LOOK_EVERY) or time.monotonic() >= end:
                raise _too_long(keeper.store, timeout)
        yield
    except errors.TokenError as error:
        keeper.tell(error)
        raise
    finally:
        _UNDER_WAY.pop(given_up, None)  # a forked child has none


@contextmanager
def _turn(
    keeper: TokenKeeper, show: Callable[[str], object], timeout: float, given_up: threading.Event
) -> Iterator[Token | None]:
    """Exclude other logins for the same file while the block runs.

    The lock is not that of the slot, which stays free for renewals.  Stores that are no file have
    none: of two logins, the later one counts.

    :returns: the token of another login for which this call waited; ``None`` if there was none.
    """
    # Before the person logs in: the store must be able to take the token.
    before = _stored(keeper)
    path = getattr(keeper.store, "path", None)
    if path is None:
        yield None
        return
    lock = lockfile.LockFile(f"{path}.login", keeper.store)
    others = None if lock.acquire(0.0) else _awaited(keeper, lock, before, show, timeout, given_up)
    try:
        yield others
    finally:
        lock.release()


def _awaited(
    keeper: TokenKeeper,
    lock: LockFile,
    before: Token | None,
    show: Callable[[str], object],
    timeout: float,
    given_up: threading.Event,
) -> Token:
    """The token of the login that holds *lock*.

    A login that comes to nothing ends those that wait for it, too: otherwise a person who denies
    would be asked once for each waiting process.
    """
    store, began = keeper.store, time.time()
    end = time.monotonic() + timeout
    show(
        f"Another process is logging in for {store!r}. Waiting for its token; Ctrl-C stops waiting."
    )
    while not lock.acquire(0.0):
        if given_up.wait(_LOOK_EVERY) or time.monotonic() >= end:
            raise _too_long(store, timeout)
    lock.release()
    token = _stored(keeper)
    if token is None or (token.is_same(before) and token.issued_at < began - _JUST_NOW):
        raise errors.ReauthRequired(
            f"The login of another process for {store!r} ended without a token. The stored token, "
            "if there is one, is kept. Start the login again.",
            reason="login_failed",
        )
    return token


def _too_long(store: TokenStore, timeout: float) -> errors.LockTimeout:
    return errors.LockTimeout(
        f"Another login for {store!r} has been under way for {timeout:.0f} s. Nothing was sent and "
        "nothing changed. Finish or end that login, and try again."
    )


def _stored(keeper: TokenKeeper) -> Token | None:
    """The stored token.

    :raises TokenError: if the store cannot be used, or has the token of another owner.
    """
    return Slot(keeper.store, keeper.grant, RUNTIME).look().record.token


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_UNDER_WAY.clear)
