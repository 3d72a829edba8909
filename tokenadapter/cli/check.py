"""``tokenadapter check``: finds problems.

The command reads the configuration, checks that the files, variables, programs and functions in it
exist, and takes each lock for a moment. It reads the metadata of issuers, and sends each server a
HEAD request, and each token, revocation and device authorization endpoint that the file names an
empty POST request, which such an endpoint answers with an error. It imports the functions that a
profile names.

It sends no secret, runs no program, and renews nothing. The only secrets that it reads are keys:
private keys in files, with each of which it signs and verifies the signature, and an encryption_key
in a file or a variable, with which it decrypts the token.

To check a cron job, run this command from cron, whose environment differs from yours.
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
    """Declare the arguments of the command."""
    from tokenadapter.cli.common import add_config, add_json

    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="check these profiles; the default is all of them"
    )
    parser.add_argument("--offline", action="store_true", help="do not contact servers")
    add_json(parser)
    add_config(parser)


def perform(options: Namespace) -> int:
    """Print the findings."""
    from tokenadapter.cli.findings import PROBLEM, findings

    has_problem = False
    found = []
    config = ConfigFile.read(options.config)
    for finding in findings(config, options.names or [*config.tables], offline=options.offline):
        has_problem |= finding.level == PROBLEM
        if options.json:
            found.append(finding._asdict())
            continue
        # One by one, since servers may be slow.
        level = coloured(f"{finding.level:8}", _COLOURS[finding.level])
        write_line(f"{level} {finding.about}: {printable_lines(finding.text)}")
    if options.json:
        write_line(json.dumps(found))
    return 1 if has_problem else 0
