"""The error of a configuration that cannot be used: where it is wrong, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tokenadapter.late_imports import late

if TYPE_CHECKING:
    from tokenadapter import spelling
else:
    spelling = late("tokenadapter.spelling")

__all__ = ["Problems", "ProfileError", "nearest"]


class ProfileError(ValueError):
    """A profile, or the file that it stands in, cannot be used as it is written.

    Nothing was sent and no store was touched.

    :ivar file: the path of the configuration file, as far as there is one.
    :ivar line: the number of the line, from 1, as far as it is known.
    :ivar key: the path of the key in it, such as ``billing.source.token_url``.
    :ivar parts: if several things are wrong, an error for each; *line* and *key* are of the first.
    """

    parts: tuple[ProfileError, ...] = ()

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        where = file or ""
        if line is not None:
            where += f", line {line}"
        super().__init__(": ".join(part for part in (where, key, problem) if part))
        self.file = file
        self.line = line
        self.key = key


class Problems:
    """Everything that is wrong with a profile, to be said at once."""

    def __init__(self) -> None:
        self._found: list[ProfileError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect a :class:`ProfileError` that is raised within, and go on after it."""
        try:
            yield
        except ProfileError as error:
            self._found.extend(error.parts or [error])

    def raise_any(self) -> None:
        """Raise what was collected, as one error.

        :raises ProfileError: if there is any; with the line and the key of the first.
        """
        if not self._found:
            return
        first = self._found[0]
        if len(self._found) == 1:
            raise first
        told = [str(each).removeprefix(str(each.file)).lstrip(",: ") for each in self._found]
        whole = ProfileError("\n  ".join([f"{len(told)} problems:", *told]), file=first.file)
        whole.line, whole.key, whole.parts = first.line, first.key, tuple(self._found)
        raise whole


def nearest(name: str, valid: Iterable[str]) -> str:
    """A question after the valid name that was meant, or ``""`` if none is near."""
    return spelling.nearest(name, valid)
