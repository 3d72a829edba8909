"""Profiles as programs use them: as an adapter to mount, or as a session with all of it mounted."""

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

    :param prefix: which of its prefixes the adapter is for, as the profile spells it; needed
        where it has several.
    :param config: the configuration file, if it is not where :doc:`/howto/profiles` says.
    :raises ProfileError: if there is no such profile, or it cannot be as it is written.
    """
    profile = Profile(ConfigFile.read(config), name)
    if prefix is None and len(profile.prefixes) > 1:
        raise profile.config.error(
            [name, "prefixes"], "There are several: name one as from_profile(…, prefix=…)."
        )
    prefix = profile.prefixes[0] if prefix is None else prefix
    for spelt, adapter in zip(profile.prefixes, profile.adapters(), strict=True):
        if spelt == prefix:
            return adapter
    raise profile.config.error([name, "prefix"], f"{prefix} is not among its prefixes.")


def session(*names: str, config: str | None = None) -> requests.Session:
    """A new session for the APIs of the profiles *names*.

    :param config: as for :func:`from_profile`.
    :raises ProfileError: if one of them is not there, or cannot be as it is written.
    :raises TypeError: if no name is given.
    """
    if not names:
        raise TypeError("session() takes the name of a profile, or of several")
    found = ConfigFile.read(config)
    made = requests.Session()
    for name in names:
        for adapter in Profile(found, name).adapters():
            adapter.mount(made)
    return made
