"""Parse the challenges in a ``WWW-Authenticate`` field (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Challenge", "parse_challenges"]


class Challenge(NamedTuple):
    """One way to authenticate that a server offers."""

    scheme: str
    """In lower case: ``bearer``, ``basic``, ``negotiate``, ..."""
    params: Mapping[str, str]
    """By name in lower case.  The first of several parameters with the same name counts."""
    token68: str | None = None
    """The value that replaces the parameters, as after ``Negotiate``."""


# No quantifier backtracks, and no attempt reads beyond the end of the next word or quoted string,
# so the time is linear in the length.
_ELEMENT = re.compile(
    r"""
      # A scheme begins a list element.  A name before an equals sign is not a scheme: commas
      # separate parameters as well as challenges.
      (?: \A | , ) \s*+ (?P<scheme> [\w!#$%&'*+.^`|~-]++ ) (?= \s | , | \Z ) (?! \s*+ = )
      (?: \s++ (?P<token68> [\w.~+/-]++ =*+ ) (?= \s*+ (?: , | \Z ) ) )?+
    |
      (?P<name> [\w!#$%&'*+.^`|~-]++ ) \s*+ = \s*+
      (?: " (?P<quoted> (?: [^"\\]++ | \\.?+ )*+ ) "?+ | (?P<value> [^\s,]*+ ) )
    |
      # Invalid text is skipped as a whole, so that nothing is found within it.
      " (?: [^"\\]++ | \\.?+ )*+ "?+ | [^\s,"]++
    """,
    re.ASCII | re.VERBOSE,
)
_QUOTED_PAIR = re.compile(r"\\(.?)")


def parse_challenges(value: str) -> list[Challenge]:
    """The challenges in the value of a ``WWW-Authenticate`` or ``Proxy-Authenticate`` field.

    Several fields may be joined by commas, as :mod:`requests` does.

    Any text is accepted.  A missing comma between parameters, a value without the required quotes,
    and an unclosed quote are tolerated.  Other invalid text is skipped, including parameters before
    the first scheme.
    """
    challenges: list[Challenge] = []
    params: dict[str, str] = {}
    for piece in _ELEMENT.finditer(value):
        if scheme := piece["scheme"]:
            params = {}
            challenges.append(Challenge(scheme.lower(), params, piece["token68"]))
        elif name := piece["name"]:
            quoted: str | None = piece["quoted"]
            text = piece["value"] if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
            params.setdefault(name.lower(), text)
    return challenges
