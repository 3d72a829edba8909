"""Helpful errors for misspelt arguments and arguments of the wrong type.

Where the path of a file is expected, a program may pass a secret by mistake.  A text that names no
file is therefore shown only if it looks like a path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import difflib
else:
    difflib = late("difflib")

__all__ = [
    "check_function",
    "check_names",
    "check_unnamed",
    "kind_of",
    "may_be_path",
    "nearest",
    "shown_path",
    "takes_argument",
]

# The flag of a function that takes any number of arguments (inspect.CO_VARARGS).
_ANY_NUMBER = 0x04
# The flags of functions of "async def" (inspect.CO_COROUTINE, inspect.CO_ASYNC_GENERATOR).
_ASYNC = 0x80 | 0x200
# Patterns are compiled where they are needed: most programs make no such mistake.
# Usual names of files: words, or anything short with a suffix.  A token has digits and no suffix.
_FILE_NAME = r"\.?[a-z]+([-_.][a-z]+)*|[\w.-]{1,40}\.[a-z][a-z0-9]{1,4}"
_SEPARATOR_OR_SUFFIX = r"[/\\]|.\.[a-z][a-z0-9]{1,4}$"
# A JWS or JWE in its compact form begins with a JSON object (RFC 7515, RFC 7516).
_JWT = r"eyJ[\w-]*(\.[\w-]*){2,4}"
# From this length on, an unusual name is not taken for the name of a file.
_STRANGE_FROM = 32
# Characters of the longest name that a file can have.
_LONGEST_NAME = 255


def nearest(name: str, valid: Iterable[str]) -> str:
    """`` Did you mean ...?`` with the closest valid name, or ``""`` if none is close."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def check_names(called: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of keyword arguments.

    :param called: the name of the class or function that was called.
    :raises TypeError: if a name is not in *known*; the error names the closest one that is.
    """
    valid = set(known)
    for name in given:
        if name not in valid:
            raise TypeError(f"{called}() takes no argument {name!r}.{nearest(name, valid)}")


def check_unnamed(called: type, count: int) -> None:
    """Check how many arguments a class is given by position.

    :raises TypeError: if there are too many; the error names those that may have no name.
    """
    code = getattr(called.__init__, "__code__", None)  # type: ignore[misc]
    if code is None or code.co_flags & _ANY_NUMBER or count < code.co_argcount:
        return
    names = ", ".join(code.co_varnames[1 : code.co_argcount])
    raise TypeError(
        f"{called.__name__}() takes only {names} by position: pass the others by name, such as "
        "client_id=..., client_secret=..."
    )


def check_function(name: str, value: object, *, is_awaited: bool = False) -> None:
    """Check a setting that is a function.

    :param name: of the setting.
    :param is_awaited: whether its result is awaited.
    :raises TypeError: if it is not a function, or is a coroutine function that is not awaited.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {kind_of(value)}")
    while isinstance(value, partial):
        value = value.func
    code, _ = _code_of(value)
    if code is not None and code.co_flags & _ASYNC and not is_awaited:
        raise TypeError(
            f"{name} must be a plain function, not a coroutine function, which would never run: "
            f"{name} is called without await. Define it with def instead of async def."
        )


def takes_argument(function: Callable[..., Any]) -> bool:
    """Whether a function takes an argument; ``True`` if that cannot be determined."""
    code, implied = _code_of(function)
    return code is None or code.co_argcount > implied or bool(code.co_flags & _ANY_NUMBER)


def _code_of(function: object) -> tuple[Any, int]:
    """The code of a function, if it is written in Python, and how many arguments are implied."""
    # For a method, or an object with a method __call__, the first argument is implied.
    method = getattr(function, "__func__", None)
    if method is None and not hasattr(function, "__code__"):
        method = getattr(getattr(function, "__call__", None), "__func__", None)  # noqa: B004
    code = getattr(function if method is None else method, "__code__", None)
    return code, 0 if method is None else 1


def kind_of(value: object) -> str:
    """The type of *value*, in words.  The content may be a secret and is not shown."""
    if isinstance(value, type):
        return f"the class {value.__name__}: pass an instance, {value.__name__}(...)"
    if isinstance(value, type(sys)):
        return f"the module {value.__name__}"
    return f"of type {type(value).__name__}"


def may_be_path(text: str) -> bool:
    """Whether *text* may be the path of a file, which may not exist yet.

    A token or a key is not a path.
    """
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.lexists(path):
        return True
    name = os.path.basename(path)
    if not text.isprintable() or len(name) > _LONGEST_NAME or re.fullmatch(_JWT, name, re.ASCII):
        return False
    directory, missing = _parted(path)
    is_named = directory not in (os.getcwd(), os.path.dirname(directory))
    is_short = len("/".join(missing)) < _STRANGE_FROM
    return is_named or is_short or _are_usual(missing)


def shown_path(text: str) -> str:
    """The absolute path that *text* names, for messages: in full if there is such a file, or if
    *text* looks like a path.  Otherwise an ellipsis stands for what does not exist.
    """
    path = os.path.abspath(os.path.expanduser(text))
    found, missing = _parted(path)
    is_shown = re.search(_SEPARATOR_OR_SUFFIX, text) and _are_usual(missing)
    return path if is_shown or not missing else os.path.join(found, "…")


def _are_usual(names: Iterable[str]) -> bool:
    return all(re.fullmatch(_FILE_NAME, name, re.ASCII) for name in names)


def _parted(path: str) -> tuple[str, list[str]]:
    """The part of an absolute path that exists, and the names that follow."""
    missing: list[str] = []
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path, name = os.path.split(path)
        missing.insert(0, name)
    return path, missing
