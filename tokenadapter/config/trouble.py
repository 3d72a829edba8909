"""The error of a configuration that cannot be used: where it is wrong, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenadapter.late import late

if TYPE_CHECKING:
    from tokenadapter import spelling
else:
    spelling = late("tokenadapter.spelling")

__all__ = ["ProfileError", "nearest"]


class ProfileError(ValueError):
    """A profile, or the file that it stands in, cannot be used as it is written.

    Nothing was sent and no store was touched.

    :ivar file: the path of the configuration file, as far as there is one.
    :ivar line: the number of the line, from 1, as far as it is known.
    :ivar key: the path of the key in it, such as ``billing.source.token_url``.
    """

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


def nearest(name: str, valid: Iterable[str]) -> str:
    """A question after the valid name that was meant, or ``""`` if none is near."""
    return spelling.nearest(name, valid)
