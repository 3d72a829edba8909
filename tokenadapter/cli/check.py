"""``tokenadapter check``: looks for what is wrong.

It reads the configuration, looks whether what that refers to is there, takes each lock for a
moment, and asks each server for its head. No secret is read or sent, no program is run, and nothing
is renewed; functions that a profile names are imported. For a cron job's own view of the world, let
cron run it: its environment is another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenadapter.cli.finding import GOOD, NOTE, PROBLEM, Finding
from tokenadapter.cli.streams import say
from tokenadapter.cli.table import coloured, harmless
from tokenadapter.config.file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.config.trouble import ProfileError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]

_COLOURS = {GOOD: "good", NOTE: "warning", PROBLEM: "bad"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    from tokenadapter.cli.common import add_config, add_json

    parser.add_argument("names", metavar="NAME", nargs="*", help="these profiles; all if none is")
    parser.add_argument("--offline", action="store_true", help="ask no server")
    add_json(parser)
    add_config(parser)


def perform(options: Namespace) -> int:
    """Print what was found."""
    has_problem = False
    found = []
    for finding in _findings(options):
        has_problem |= finding.level == PROBLEM
        if options.json:
            found.append({"level": finding.level, "about": finding.about, "text": finding.text})
            continue
        # One by one: servers may take their time.
        level = coloured(f"{finding.level:8}", _COLOURS[finding.level])
        say(f"{level} {finding.about}: {harmless(finding.text)}")
    if options.json:
        say(json.dumps(found))
    return 1 if has_problem else 0


def _findings(options: Namespace) -> Iterator[Finding]:
    from tokenadapter.cli.written import configuration

    config = ConfigFile.read(options.config)
    profiles, wrong = [], []
    for name in options.names or config.tables:
        try:
            profile = Profile(config, name)
            profile.adapters()
            profiles.append(profile)
        except (ProfileError, ImportError) as error:
            wrong.append(Finding(PROBLEM, name, str(error)))
    yield from configuration(config, profiles)
    yield from wrong
    for profile in profiles:
        yield from _of_profile(profile, offline=options.offline)


def _of_profile(profile: Profile, *, offline: bool) -> Iterator[Finding]:
    from tokenadapter.cli.kept import store
    from tokenadapter.cli.reach import servers
    from tokenadapter.cli.written import references, risks

    findings, has_refresh_token = store(profile)
    yield from references(profile, has_refresh_token=has_refresh_token)
    yield from risks(profile)
    yield from findings
    if not offline:
        yield from servers(profile)
