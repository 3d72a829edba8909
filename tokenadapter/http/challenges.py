"""What a ``WWW-Authenticate`` field says: the challenges in it (RFC 9110 section 11.6.1)."""

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
    """By name in lower case.  Of a name that comes twice, the first one counts."""
    token68: str | None = None
    """What stands in place of the parameters, as after ``Negotiate``."""


# No quantifier gives back what it took, and no attempt looks farther than the end of the next word
# or quoted string: the time is linear in the length.
_PIECE = re.compile(
    r"""
      # A scheme begins a list element.  A name with an equals sign behind it is no scheme: the
      # commas between the parameters of one challenge are those that separate challenges.
      (?: \A | , ) \s*+ (?P<scheme> [\w!#$%&'*+.^`|~-]++ ) (?= \s | , | \Z ) (?! \s*+ = )
      (?: \s++ (?P<token68> [\w.~+/-]++ =*+ ) (?= \s*+ (?: , | \Z ) ) )?+
    |
      (?P<name> [\w!#$%&'*+.^`|~-]++ ) \s*+ = \s*+
      (?: " (?P<quoted> (?: [^"\\]++ | \\.?+ )*+ ) "?+ | (?P<value> [^\s,]*+ ) )
    |
      # What makes no sense is passed over whole, so that nothing is found within it.
      " (?: [^"\\]++ | \\.?+ )*+ "?+ | [^\s,"]++
    """,
    re.ASCII | re.VERBOSE,
)
_QUOTED_PAIR = re.compile(r"\\(.?)")


def parse_challenges(value: str) -> list[Challenge]:
    """The challenges in the value of a ``WWW-Authenticate`` or ``Proxy-Authenticate`` field.

    Several fields may be given joined by commas, as :mod:`requests` does.

    Every text is accepted.  A missing comma between parameters, a value that needed quotes and
    has none, and a quote that is never closed are put up with; what else makes no sense is passed
    over, parameters before the first scheme included.
    """
    challenges: list[Challenge] = []
    params: dict[str, str] = {}
    for piece in _PIECE.finditer(value):
        if scheme := piece["scheme"]:
            params = {}
            challenges.append(Challenge(scheme.lower(), params, piece["token68"]))
        elif name := piece["name"]:
            quoted: str | None = piece["quoted"]
            text = piece["value"] if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
            params.setdefault(name.lower(), text)
    return challenges
