"""Finds imports of the library that a fork may interrupt.

An import belongs to the library if a function of the library is the first to import the module.
Each such import must run under the guard of :mod:`tokenadapter.late_imports`, in every thread.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Self

from tokenadapter import late_imports

__all__ = ["Unguarded"]

# These are programs with one thread.
_ALONE = {"cli", "demo", "testing"}
# These import modules of the user's program.
_OF_THE_PROGRAM = {("config.functions", "find"), ("stores.urls", "_made_elsewhere")}


class Unguarded:
    """A finder (:class:`importlib.abc.MetaPathFinder`) that finds no module, but records
    imports."""

    def __enter__(self) -> Self:
        # Forked children write to the same file.
        self._found = tempfile.TemporaryFile("ab+", buffering=0)
        self._seen = 0
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self)
        self._found.close()

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and _only_finds(frame.f_globals.get("__name__", "")):
            frame = frame.f_back
        package, _, module = frame.f_globals.get("__name__", "").partition(".")
        function = frame.f_code.co_name
        if (
            package == "tokenadapter"
            and module.partition(".")[0] not in _ALONE
            and function != "<module>"  # the import of that module has the guard
            and (module, function) not in _OF_THE_PROGRAM
            and not late_imports._guard._is_owned()
        ):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            self._found.write(f"{where}: {function}() imports {name}\n".encode())

    def found(self) -> list[str]:
        """The imports that were found since the last call, here and in forked children."""
        self._found.seek(self._seen)
        lines = self._found.read()
        self._seen += len(lines)
        return lines.decode().splitlines()


def _only_finds(module: str) -> bool:
    return "importlib" in module.partition(".")[0] or module == "tokenadapter.startup.watch"
