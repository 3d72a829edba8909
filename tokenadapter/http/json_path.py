"""What stands at a path in a JSON value.

A path is the name of a member: ``token``.  Dots lead to members within members, and to the items of
lists by their number, ``-1`` for the last: ``data.sessions.0.token``.  A name that contains dots is
found as well.
"""

from __future__ import annotations

from typing import Any

__all__ = ["value_at"]


def value_at(value: Any, path: str, default: Any = None) -> Any:
    """What stands at *path* in *value*; *default* if nothing does."""
    name, dot, rest = path.partition(".")
    inner = default
    if isinstance(value, dict):
        if path in value:
            return value[path]
        inner = value.get(name, default)
    elif isinstance(value, list):
        digits = name.removeprefix("-")
        if digits.isascii() and digits.isdigit() and -len(value) <= int(name) < len(value):
            inner = value[int(name)]
    return value_at(inner, rest, default) if dot else inner
