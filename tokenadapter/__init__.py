"""Access tokens that renew themselves, underneath any :class:`requests.Session`.

Every public name stands here and is loaded when it is first used (PEP 562): ``import
tokenadapter`` itself imports nothing, and a program pays only for what it uses.
"""

__version__ = "0.1.0"

__all__ = [
    "ClientCredentials",
    "FileStore",
    "LockTimeout",
    "Login",
    "MemoryStore",
    "Password",
    "ReauthRequired",
    "RefreshConfigError",
    "RefreshTemporarilyFailed",
    "RefreshToken",
    "StoreError",
    "Token",
    "TokenAdapter",
    "TokenError",
    "TokenKeeper",
    "TokenNotPersisted",
    "UnsafeTarget",
    "default_verdict",
    "expired_on",
]

_HOMES = {
    "ClientCredentials": "tokenadapter.sources.client_credentials",
    "FileStore": "tokenadapter.stores.file",
    "LockTimeout": "tokenadapter.errors",
    "Login": "tokenadapter.sources.login",
    "MemoryStore": "tokenadapter.stores.memory",
    "Password": "tokenadapter.sources.password",
    "ReauthRequired": "tokenadapter.errors",
    "RefreshConfigError": "tokenadapter.errors",
    "RefreshTemporarilyFailed": "tokenadapter.errors",
    "RefreshToken": "tokenadapter.sources.refresh_token",
    "StoreError": "tokenadapter.errors",
    "Token": "tokenadapter.token",
    "TokenAdapter": "tokenadapter.adapter",
    "TokenError": "tokenadapter.errors",
    "TokenKeeper": "tokenadapter.keeper",
    "TokenNotPersisted": "tokenadapter.errors",
    "UnsafeTarget": "tokenadapter.errors",
    "default_verdict": "tokenadapter.verdicts",
    "expired_on": "tokenadapter.verdicts",
}

# Type checkers take a variable of this name to be true; importing it would load ``typing``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tokenadapter.adapter import TokenAdapter
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
    from tokenadapter.keeper import TokenKeeper
    from tokenadapter.sources.client_credentials import ClientCredentials
    from tokenadapter.sources.login import Login
    from tokenadapter.sources.password import Password
    from tokenadapter.sources.refresh_token import RefreshToken
    from tokenadapter.stores.file import FileStore
    from tokenadapter.stores.memory import MemoryStore
    from tokenadapter.token import Token
    from tokenadapter.verdicts import default_verdict, expired_on
else:
    # Hidden from type checkers, which would take any misspelt name for one that exists.

    def __getattr__(name: str) -> object:
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        from importlib import import_module

        # Kept, so that the next use finds it without coming here.
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
