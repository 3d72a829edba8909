"""``tokenadapter demo``: shows several processes that share one token.

They call a local test server. Then the same happens without tokenadapter. The exit code is 0 if
there was one renewal per expiry and no request failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenadapter.cli.main import parser_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes (8)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of the run (10)")
    parser.add_argument("--lifetime", type=float, metavar="S", help="lifetime of a token (2)")
    parser.add_argument("--quick", action="store_true", help="4 processes, 3 s, tokens of 1 s")
    parser.add_argument(
        "--no-comparison", dest="comparison", action="store_false", help="only with tokenadapter"
    )


def perform(options: Namespace) -> int:
    """Run the demo."""
    from tokenadapter.demo.recording import QUICK, USUAL, Setting
    from tokenadapter.demo.show import show

    given = {
        name: value for name in Setting._fields if (value := getattr(options, name)) is not None
    }
    setting = (QUICK if options.quick else USUAL)._replace(**given)
    if setting.processes < 1 or not 0.5 <= setting.lifetime <= setting.seconds <= 3600:
        parser_of("demo").error(
            "give at least one process and, in seconds, 0.5 <= lifetime <= seconds <= 3600"
        )
    return show(setting, comparison=options.comparison)
