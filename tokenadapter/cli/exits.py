"""Which error ends a command with which exit code, and what is said then."""

from __future__ import annotations

import sys

from tokenadapter.cli.journal import named
from tokenadapter.config.trouble import ProfileError
from tokenadapter.errors import (
    LockTimeout,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    StoreError,
    TokenError,
    UnsafeTarget,
)

__all__ = ["explained"]

# The first that fits.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (ProfileError, 3),
    (RefreshConfigError, 3),
    (UnsafeTarget, 3),
    (ReauthRequired, 4),
    (RefreshTemporarilyFailed, 5),
    (LockTimeout, 5),
    (StoreError, 6),
    (TokenError, 1),
)


def explained(error: Exception, name: str | None) -> int:
    """Say what *error* means, and return the exit code; 0 for an error that means a bug.

    :param name: the profile that the command was about.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            sys.stderr.write(f"tokenadapter: {named(str(error), name)}\n")
            return code
    return 0
