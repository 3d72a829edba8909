"""``tokenadapter check``: looks for what is wrong.

It reads the configuration, looks whether what that refers to is there, takes each lock for a
moment, and asks each server for its head. No secret is read or sent, no program is run, and nothing
is renewed; functions that a profile names are imported. For a cron job's own view of the world, let
cron run it: its environment is another one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenadapter.cli.output import coloured, printable_lines, write_line
from tokenadapter.config.config_file import ConfigFile

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]

_COLOURS = {"ok": "good", "note": "warning", "problem": "bad"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    from tokenadapter.cli.common import add_config, add_json

    parser.add_argument("names", metavar="NAME", nargs="*", help="these profiles; all if none is")
    parser.add_argument("--offline", action="store_true", help="ask no server")
    add_json(parser)
    add_config(parser)


def perform(options: Namespace) -> int:
    """Print what was found."""
    from tokenadapter.cli.findings import PROBLEM, findings

    has_problem = False
    found = []
    config = ConfigFile.read(options.config)
    for finding in findings(config, options.names or [*config.tables], offline=options.offline):
        has_problem |= finding.level == PROBLEM
        if options.json:
            found.append({"level": finding.level, "about": finding.about, "text": finding.text})
            continue
        # One by one: servers may take their time.
        level = coloured(f"{finding.level:8}", _COLOURS[finding.level])
        write_line(f"{level} {finding.about}: {printable_lines(finding.text)}")
    if options.json:
        write_line(json.dumps(found))
    return 1 if has_problem else 0
