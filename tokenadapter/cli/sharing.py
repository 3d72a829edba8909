"""Find the profiles of a configuration file that share a store, without reading the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile
from tokenadapter.stores.encrypted import innermost

if TYPE_CHECKING:
    from tokenadapter.config.config_file import ConfigFile
    from tokenadapter.protocols import TokenStore

__all__ = ["owner_among", "profiles_by_store"]


def profiles_by_store(config: ConfigFile) -> dict[str, list[Profile]]:
    """The valid profiles of *config*, by the identity of their store."""
    found: dict[str, list[Profile]] = {}
    for name in config.tables:
        with suppress(ProfileError, ImportError):
            profile = Profile(config, name)
            found.setdefault(_identity(profile.store()), []).append(profile)
    return found


def owner_among(profile: Profile, owner: Mapping[str, str]) -> str | None:
    """The name of another profile of the file that uses the store of *profile*, and is the *owner*
    of the record in it."""
    for other in profiles_by_store(profile.config).get(_identity(profile.store()), []):
        if other.name != profile.name and dict(other.grant.owner) == dict(owner):
            return other.name
    return None


def _identity(store: TokenStore) -> str:
    store = innermost(store)
    path = getattr(store, "path", None)
    if not isinstance(path, str):
        return repr(store)
    # A database file has several slots.
    return f"{os.path.realpath(path)}#{getattr(store, 'slot', '')}"
