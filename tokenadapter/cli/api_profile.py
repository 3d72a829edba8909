"""The profile that ``login --api`` adds to the configuration file."""

from __future__ import annotations

import json
import os
from shlex import quote
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenadapter.cli.init import config_path, create
from tokenadapter.config.config_file import ConfigFile, as_arguments, is_missing
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["add_to_file", "api_profile"]


def api_profile(options: Namespace) -> Profile:
    """The profile for a user of the API in *options*: one of the file, or else a new one.

    :raises ProfileError: if the file has a profile of this name for something else, or if the URL
        has no host after which to name the profile.
    """
    path = config_path(options.config)
    config = _read(path)
    name = options.name = options.name or _host(options.api)
    if name not in config.tables:
        config = ConfigFile.parsed(path, config.text + _added(config.text, options))
    source = config.tables[name].get("source")
    if not isinstance(source, dict) or source.get("url") != options.api:
        raise config.error(
            [name],
            "A profile of this name exists already, but not for this URL. Choose another name: "
            f"`tokenadapter login {as_arguments('OTHER', path)} --api {quote(options.api)}`.",
        )
    if options.dpop and not source.get("dpop"):
        raise config.error(
            [name, "source", "dpop"],
            "The profile exists already, without dpop. Set dpop = true in its source.",
        )
    profile = Profile(config, name)
    profile.adapters()  # its prefix is checked here
    return profile


def add_to_file(profile: Profile, options: Namespace) -> bool:
    """Add *profile*, which was made from *options*, to its file, unless the file has it.

    :returns: whether it was added.

    :raises ProfileError: if the file cannot be written.
    """
    path = profile.config.path
    old = _read(path)
    if profile.name in old.tables:
        return False
    text = _added(old.text, options)
    try:
        if os.path.lexists(path):
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        else:
            create(path, text)
    except OSError as error:
        raise ProfileError(
            f"The token is stored, but the profile cannot be added: {error.strerror}. Add it "
            f"yourself:\n\n{text.strip()}",
            file=path,
        ) from None
    return True


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if host is None:
        raise ProfileError(
            "--api needs the URL of the API in full, such as https://mcp.example.com/mcp."
        )
    return host


def _read(path: str) -> ConfigFile:
    return ConfigFile.parsed(path, "") if is_missing(path) else ConfigFile.read(path)


def _added(text: str, options: Namespace) -> str:
    """What to add to a file that contains *text*, for the profile in *options*."""
    start = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    # A JSON string is one of TOML.
    key, value = (json.dumps(word, ensure_ascii=False) for word in (options.name, options.api))
    binding = "dpop = true\n" if options.dpop else ""
    return f"""{start}[{key}]
prefix = {value}

[{key}.source]
type = "api_user"
url = {value}
{binding}"""
