"""Access tokens that renew themselves, underneath any :class:`requests.Session`.

Every public name stands here and is loaded when it is first used (PEP 562): ``import
tokenadapter`` itself imports only what that takes, and a program pays only for what it uses.
"""

from tokenadapter.late_imports import imported as _imported

__version__ = "0.1.0"

__all__ = [
    "ApiUser",
    "CallbackStore",
    "ClientAssertion",
    "ClientCredentials",
    "ClientSecretJWT",
    "Command",
    "DjangoCacheStore",
    "EncryptedStore",
    "FileStore",
    "GitHubApp",
    "JWTBearer",
    "Key",
    "KeyringStore",
    "LockTimeout",
    "Login",
    "MemoryStore",
    "Password",
    "PrivateKeyJWT",
    "ProfileError",
    "ReauthRequired",
    "RedisStore",
    "RefreshConfigError",
    "RefreshTemporarilyFailed",
    "RefreshToken",
    "RequestsAuth",
    "SQLStore",
    "ServiceAccount",
    "StoreError",
    "Token",
    "TokenAdapter",
    "TokenAuth",
    "TokenError",
    "TokenExchange",
    "TokenKeeper",
    "TokenMiddleware",
    "TokenNotPersisted",
    "TokenPoolManager",
    "UnsafeTarget",
    "alogin",
    "begin_login",
    "default_verdict",
    "expired_on",
    "finish_login",
    "from_profile",
    "install",
    "installed",
    "login",
    "logout",
    "retrofit",
    "session",
    "store_from_url",
    "uninstall",
]

_HOMES = {
    "ApiUser": "tokenadapter.sources.api_user",
    "CallbackStore": "tokenadapter.stores.callback",
    "ClientAssertion": "tokenadapter.sources.client_auth.client_assertion",
    "ClientCredentials": "tokenadapter.sources.client_credentials",
    "ClientSecretJWT": "tokenadapter.sources.client_auth.client_secret_jwt",
    "Command": "tokenadapter.sources.command",
    "DjangoCacheStore": "tokenadapter.stores.django",
    "EncryptedStore": "tokenadapter.stores.encrypted",
    "FileStore": "tokenadapter.stores.file",
    "GitHubApp": "tokenadapter.sources.github_app",
    "JWTBearer": "tokenadapter.sources.jwt_bearer",
    "Key": "tokenadapter.keys.key",
    "KeyringStore": "tokenadapter.stores.keyring",
    "LockTimeout": "tokenadapter.errors",
    "Login": "tokenadapter.sources.login",
    "MemoryStore": "tokenadapter.stores.memory",
    "Password": "tokenadapter.sources.password",
    "PrivateKeyJWT": "tokenadapter.sources.client_auth.private_key_jwt",
    "ProfileError": "tokenadapter.config.problems",
    "ReauthRequired": "tokenadapter.errors",
    "RedisStore": "tokenadapter.stores.redis",
    "RefreshConfigError": "tokenadapter.errors",
    "RefreshTemporarilyFailed": "tokenadapter.errors",
    "RefreshToken": "tokenadapter.sources.refresh_token",
    "RequestsAuth": "tokenadapter.clients.requests_auth",
    "SQLStore": "tokenadapter.stores.sql",
    "ServiceAccount": "tokenadapter.sources.jwt_bearer",
    "StoreError": "tokenadapter.errors",
    "Token": "tokenadapter.token",
    "TokenAdapter": "tokenadapter.clients.requests",
    "TokenAuth": "tokenadapter.clients.httpx",
    "TokenError": "tokenadapter.errors",
    "TokenExchange": "tokenadapter.sources.token_exchange",
    "TokenKeeper": "tokenadapter.core.keeper",
    "TokenMiddleware": "tokenadapter.clients.aiohttp",
    "TokenNotPersisted": "tokenadapter.errors",
    "TokenPoolManager": "tokenadapter.clients.urllib3_pools",
    "UnsafeTarget": "tokenadapter.errors",
    "alogin": "tokenadapter.logins.login",
    "begin_login": "tokenadapter.logins.web",
    "default_verdict": "tokenadapter.http.verdicts",
    "expired_on": "tokenadapter.http.verdicts",
    "finish_login": "tokenadapter.logins.web",
    "from_profile": "tokenadapter.config.sessions",
    "install": "tokenadapter.clients.install",
    "installed": "tokenadapter.clients.install",
    "login": "tokenadapter.logins.login",
    "logout": "tokenadapter.logins.logout",
    "retrofit": "tokenadapter.clients.retrofit",
    "session": "tokenadapter.config.sessions",
    "store_from_url": "tokenadapter.stores.urls",
    "uninstall": "tokenadapter.clients.install",
}

# Type checkers take a variable of this name to be true; importing it would load ``typing``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tokenadapter.clients.aiohttp import TokenMiddleware
    from tokenadapter.clients.httpx import TokenAuth
    from tokenadapter.clients.install import install, installed, uninstall
    from tokenadapter.clients.requests import TokenAdapter
    from tokenadapter.clients.requests_auth import RequestsAuth
    from tokenadapter.clients.retrofit import retrofit
    from tokenadapter.clients.urllib3_pools import TokenPoolManager
    from tokenadapter.config.problems import ProfileError
    from tokenadapter.config.sessions import from_profile, session
    from tokenadapter.core.keeper import TokenKeeper
    from tokenadapter.errors import (
        LockTimeout,
        ReauthRequired,
        RefreshConfigError,
        RefreshTemporarilyFailed,
        StoreError,
        TokenError,
        TokenNotPersisted,
        UnsafeTarget,
    )
    from tokenadapter.http.verdicts import default_verdict, expired_on
    from tokenadapter.keys.key import Key
    from tokenadapter.logins.login import alogin, login
    from tokenadapter.logins.logout import logout
    from tokenadapter.logins.web import begin_login, finish_login
    from tokenadapter.sources.api_user import ApiUser
    from tokenadapter.sources.client_auth.client_assertion import ClientAssertion
    from tokenadapter.sources.client_auth.client_secret_jwt import ClientSecretJWT
    from tokenadapter.sources.client_auth.private_key_jwt import PrivateKeyJWT
    from tokenadapter.sources.client_credentials import ClientCredentials
    from tokenadapter.sources.command import Command
    from tokenadapter.sources.github_app import GitHubApp
    from tokenadapter.sources.jwt_bearer import JWTBearer, ServiceAccount
    from tokenadapter.sources.login import Login
    from tokenadapter.sources.password import Password
    from tokenadapter.sources.refresh_token import RefreshToken
    from tokenadapter.sources.token_exchange import TokenExchange
    from tokenadapter.stores.callback import CallbackStore
    from tokenadapter.stores.django import DjangoCacheStore
    from tokenadapter.stores.encrypted import EncryptedStore
    from tokenadapter.stores.file import FileStore
    from tokenadapter.stores.keyring import KeyringStore
    from tokenadapter.stores.memory import MemoryStore
    from tokenadapter.stores.redis import RedisStore
    from tokenadapter.stores.sql import SQLStore
    from tokenadapter.stores.urls import store_from_url
    from tokenadapter.token import Token
else:
    # Hidden from type checkers, which would take any misspelt name for one that exists.

    def __getattr__(name: str) -> object:
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        try:
            # Kept, so that the next use finds it without coming here.
            value = globals()[name] = getattr(_imported(home), name)
        except ImportError as error:
            return _imported("tokenadapter.extras").stand_in(name, error)
        return value

    def __dir__() -> list[str]:
        return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
