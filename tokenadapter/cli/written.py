"""What ``tokenadapter check`` finds in the configuration, and in what it refers to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from shlex import quote
from shutil import which

from tokenadapter.cli.finding import GOOD, NOTE, PROBLEM, Finding
from tokenadapter.config.file import ConfigFile
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.profile import Profile
from tokenadapter.config.references import Reference
from tokenadapter.config.trouble import ProfileError

__all__ = ["configuration", "references"]


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
    inline = [
        f"{profile.name}.source.{name}"
        for profile in profiles
        if isinstance(profile.grant, ProfileGrant)
        for name in profile.grant.inline_secrets()
    ]
    if inline and open_to_all and os.name != "nt":
        yield Finding(
            PROBLEM,
            "configuration",
            f"Others can read {config.path}, and {', '.join(inline)} may be secret: run "
            f"`chmod 600 {quote(config.path)}`, or keep them elsewhere, as {{ env = … }} or "
            "{ file = … }.",
        )


def references(profile: Profile, *, has_refresh_token: bool) -> Iterator[Finding]:
    """About the functions and the secrets that a profile names.

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
        if reference.kind == "command":
            # It may ask a person for something, or count how often it is called.
            program = os.path.expanduser(reference.place[0])
            if which(program) is None:
                yield Finding(
                    PROBLEM,
                    profile.name,
                    f"{reference.key}: There is no program {program} in PATH "
                    f"({os.environ.get('PATH', 'not set')}): give the full path.",
                )
            continue
        try:
            reference.read()
        except ProfileError as error:
            is_first = reference.key.endswith(".source.refresh_token")
            if not (is_first and has_refresh_token):
                yield Finding(PROBLEM, profile.name, str(error))
            continue
        yield from _privacy(profile, reference)


def _privacy(profile: Profile, reference: Reference) -> Iterator[Finding]:
    if reference.kind != "file" or os.name == "nt":
        return
    mode = stat.S_IMODE(os.stat(reference.path).st_mode)
    if mode & 0o044:
        yield Finding(
            NOTE,
            profile.name,
            f"{reference.key}: Others can read {reference.path} (mode {mode:04o}), unless its "
            f"directory keeps them out: run `chmod 600 {quote(reference.path)}`.",
        )
