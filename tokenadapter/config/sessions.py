"""How programs use profiles: as an adapter to mount, or as a session with adapters mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import requests

    from tokenadapter.clients.requests import TokenAdapter
else:
    requests = late("requests")

__all__ = ["from_profile", "session"]


def from_profile(
    name: str, prefix: str | None = None, *, config: str | None = None
) -> TokenAdapter:
    """The adapter that the profile *name* describes.

    :param prefix: the prefix that the adapter is for, as the profile spells it; needed if the
        profile has several.
    :param config: the path of the configuration file, if it is not one that
        :doc:`/howto/profiles` lists.
    :raises ProfileError: if there is no such profile, or if it is invalid.
    """
    profile = Profile(ConfigFile.read(config), name)
    if prefix is None and len(profile.prefixes) > 1:
        raise profile.config.error(
            [name, "prefixes"],
            "The profile has several prefixes: pass one of them as from_profile(…, prefix=…).",
        )
    prefix = profile.prefixes[0] if prefix is None else prefix
    for spelt, adapter in zip(profile.prefixes, profile.adapters(), strict=True):
        if spelt == prefix:
            return adapter
    raise profile.config.error([name, "prefix"], f"{prefix} is not one of its prefixes.")


def session(*names: str, config: str | None = None) -> requests.Session:
    """A new session for the APIs of the profiles *names*.

    :param config: as for :func:`from_profile`.
    :raises ProfileError: if there is no such profile, or if one is invalid.
    :raises TypeError: if no name is given.
    """
    if not names:
        raise TypeError("session() needs the name of at least one profile")
    found = ConfigFile.read(config)
    made = requests.Session()
    for name in names:
        for adapter in Profile(found, name).adapters():
            adapter.mount(made)
    return made
