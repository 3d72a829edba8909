"""Names the setting of a keeper that cannot be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from pickle import PicklingError, dumps

__all__ = ["check"]


def check(settings: Mapping[str, object]) -> None:
    """Check that all *settings* of a keeper can be pickled.

    :raises PicklingError: if one cannot; the error names it.
    """
    for name, value in settings.items():
        try:
            dumps(value)
        except Exception as error:
            what = getattr(value, "__qualname__", type(value).__qualname__)
            raise PicklingError(
                f"The {name} of the TokenKeeper cannot be pickled: {what}. Pass a function of a "
                "module or a picklable object, or create the keeper in the other process."
            ) from error
