"""The error for an invalid configuration: where the mistake is, and what was expected."""

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
    """A profile, or the file that contains it, cannot be used as it is written.

    Nothing was sent and no store was touched.

    :ivar file: the path of the configuration file, if there is one.
    :ivar line: the number of the line, from 1, if it is known.
    :ivar key: the path of the key in the file, such as ``billing.source.token_url``.
    :ivar parts: one error for each problem, if there are several; *line* and *key* are those of the
        first.
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
    """Collects all problems of a profile, so that one error can name them."""

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
        """Raise the collected problems as one error.

        :raises ProfileError: if there are any; its line and key are those of the first.
        """
        if not self._found:
            return
        first = self._found[0]
        if len(self._found) == 1:
            raise first
        lines = [str(each).removeprefix(str(each.file)).lstrip(",: ") for each in self._found]
        whole = ProfileError("\n  ".join([f"{len(lines)} problems:", *lines]), file=first.file)
        whole.line, whole.key, whole.parts = first.line, first.key, tuple(self._found)
        raise whole


def nearest(name: str, valid: Iterable[str]) -> str:
    """A question that suggests the closest valid name; ``""`` if none is close."""
    return spelling.nearest(name, valid)
