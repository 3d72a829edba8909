"""Stand-ins for public classes whose extra is not installed.

A program that only looks at the package (``from tokenadapter import *``, ``inspect.getmembers``,
``pydoc``) needs no extra.  A program that uses such a class gets an error that names
the extra to install.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["ExtraMissing", "stand_in"]


class ExtraMissing(ImportError):
    """A package that an extra brings is not installed."""


def stand_in(name: str, error: ImportError) -> type:
    """A class that stands for the public class *name*.

    :raises ImportError: *error*, if it is not about an extra.
    """
    if not isinstance(error, ExtraMissing):
        raise error
    message = str(error)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ExtraMissing(message)

    return type(name, (), {"__doc__": message, "__init__": refuse, "__init_subclass__": refuse})
