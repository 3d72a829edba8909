"""What ``tokenadapter check`` finds in the configuration, and in what it refers to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from shlex import quote
from urllib.parse import urlsplit

from tokenadapter.cli.finding import GOOD, NOTE, PROBLEM, Finding
from tokenadapter.config.file import ConfigFile
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.profile import Profile
from tokenadapter.config.trouble import ProfileError

__all__ = ["configuration", "references", "risks"]


def configuration(config: ConfigFile, profiles: list[Profile]) -> Iterator[Finding]:
    """About the file as a whole."""
    count = len(config.tables)
    if not count:
        yield Finding(
            PROBLEM,
            "configuration",
            f"{config.path}: There is no profile in it: begin with one, such as [billing].",
        )
        return
    yield Finding(
        GOOD, "configuration", f"{config.path}: {count} {'profile' if count == 1 else 'profiles'}"
    )
    open_to_all = stat.S_IMODE(os.stat(config.path).st_mode) & 0o044
    inline = [key for profile in profiles for key in _inline_secrets(profile)]
    if inline and open_to_all and os.name != "nt":
        yield Finding(
            PROBLEM,
            "configuration",
            f"Others can read {config.path}, and {', '.join(inline)} may be secret: run "
            f"`chmod 600 {quote(config.path)}`, or keep them elsewhere, as {{ env = … }} or "
            "{ file = … }.",
        )


def _inline_secrets(profile: Profile) -> Iterator[str]:
    """The keys of the secrets that stand in the file as they are."""
    if isinstance(profile.grant, ProfileGrant):
        for name in profile.grant.inline_secrets():
            yield f"{profile.name}.source.{name}"
    store = profile.config.table(profile.name).get("store")
    if isinstance(store, str) and urlsplit(store).password:
        yield f"{profile.name}.store"


def references(profile: Profile, *, has_refresh_token: bool) -> Iterator[Finding]:
    """About the functions and the secrets that a profile names.

    No secret is read, and no program is run: it may ask a person for something, or count how often
    it is called.

    :param has_refresh_token: whether the store has one, so that the first is not needed any more.
    """
    for function in profile.named_functions():
        try:
            function.find()
        except ProfileError as error:
            yield Finding(PROBLEM, profile.name, str(error))
    if not isinstance(profile.grant, ProfileGrant):
        return
    for reference in profile.grant.references():
        try:
            reference.check()
        except ProfileError as error:
            is_first = reference.key.endswith(".source.refresh_token")
            if not (is_first and has_refresh_token):
                yield Finding(PROBLEM, profile.name, str(error))
            continue
        if os.name == "nt":
            continue
        if reference.kind == "file":
            yield from _readers(profile, reference.key, reference.path)
        elif reference.kind == "command" and reference.program is not None:
            yield from _writers(profile, reference.key, reference.program)


def risks(profile: Profile) -> Iterator[Finding]:
    """About settings that give up a protection."""
    says = profile.config.table(profile.name)
    source = says["source"]
    if source.get("verify") is False:
        yield Finding(
            NOTE,
            profile.name,
            f"{profile.name}.source.verify is false: whoever is on the way to the server can pose "
            'as it and read the secrets. Name the server\'s CA instead: verify = "ca.pem".',
        )
    for table, key in ((says, "allow_http"), (source, "source.allow_http")):
        if table.get("allow_http") is True:
            yield Finding(
                NOTE,
                profile.name,
                f"{profile.name}.{key} is true: over plain http, everyone on the way can read what "
                "is sent. Use https, and remove the key.",
            )


def _readers(profile: Profile, key: str, path: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o044:
        yield Finding(
            NOTE,
            profile.name,
            f"{key}: Others can read {path} (mode {mode:04o}), unless its directory keeps them "
            f"out: run `chmod 600 {quote(path)}`.",
        )


def _others_bits(found: os.stat_result) -> int:
    """The bits of a mode by which others could put in another program."""
    if not stat.S_ISDIR(found.st_mode):
        return 0o022
    if found.st_mode & stat.S_ISVTX:
        return 0
    # A group of administrators may write to directories of the system, as on Debian.
    return 0o022 if found.st_uid else 0o002


def _writers(profile: Profile, key: str, program: str) -> Iterator[Finding]:
    """Who can write to a program, or put another one in its place, has it run as its caller."""
    real = os.path.realpath(program)
    for path in dict.fromkeys((real, os.path.dirname(program), os.path.dirname(real))):
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in (0, os.geteuid()):
            who = f"belongs to another user (number {found.st_uid}), who"
            cure = "use a program of your own"
        elif mode & _others_bits(found):
            who = f"can be written by others (mode {mode:04o}), who"
            cure = f"run `chmod go-w {quote(path)}`"
        else:
            continue
        yield Finding(
            PROBLEM, profile.name, f"{key}: {path} {who} could have you run any program: {cure}."
        )
