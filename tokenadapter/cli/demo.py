"""``tokenadapter demo``: the main job, shown on a token server of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["add_arguments", "perform"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--quick", action="store_true", help="smaller and shorter")


def perform(options: Namespace) -> int:
    """Run the demo."""
    from tokenadapter.demo.__main__ import main

    return main(["--quick"] if options.quick else [])
