"""A function that a profile names as ``module:function``, imported when it is first called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from tokenadapter.config.problems import ProfileError, nearest

__all__ = ["NamedFunction", "is_function_name"]


def is_function_name(value: object) -> bool:
    """Whether *value* is of the form ``package.module:function``."""
    if not isinstance(value, str):
        return False
    module, colon, name = value.partition(":")
    return bool(colon) and all(
        part.isidentifier() for part in [*module.split("."), *name.split(".")]
    )


class NamedFunction:
    """Calls the function *name*, which the first call imports.

    :param name: ``module:function``; the module has to be installed, or in a directory of
        ``PYTHONPATH``.
    :param key: the key that names it, for messages.
    :param file: the configuration file.
    """

    __slots__ = ("_found", "file", "key", "name")

    def __init__(self, name: str, key: str, file: str) -> None:
        self.name: str = name
        self.key: str = key
        self.file: str = file
        self._found: Any = None

    def __call__(self, *args: Any) -> Any:
        return (self._found or self.find())(*args)

    def __repr__(self) -> str:
        return f"<NamedFunction {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.key, self.file)

    def find(self) -> Any:
        """The function itself.

        :raises ProfileError: if there is none.
        """
        module_name, _, name = self.name.partition(":")
        try:
            # Not under the guard of our own imports: the user's module may take its time.
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            raise self._error(
                f"There is no module {error.name!r} here. Install it, or add its directory to "
                f"PYTHONPATH (now: {os.environ.get('PYTHONPATH') or 'not set'})."
            ) from error
        except Exception as error:
            # The text of the error may contain anything, secrets too.
            raise self._error(
                f"Importing {module_name} raised {type(error).__name__}. To see where, run "
                f"`{sys.executable} -c 'import {module_name}'`."
            ) from error
        for part in name.split("."):
            if not hasattr(found, part):
                raise self._error(f"{module_name} has no {name!r}.{nearest(part, dir(found))}")
            found = getattr(found, part)
        if not callable(found):
            raise self._error(
                f"{self.name} cannot be called: it is of type {type(found).__name__}."
            )
        self._found = found
        return found

    def _error(self, problem: str) -> ProfileError:
        return ProfileError(problem, file=self.file, key=self.key)
