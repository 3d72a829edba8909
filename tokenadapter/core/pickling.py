"""What of a keeper cannot be pickled, told by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pickle import PicklingError, dumps

__all__ = ["check"]


def check(settings: Mapping[str, object]) -> None:
    """See to it that all that a keeper is made from can be pickled.

    :raises PicklingError: if something cannot.
    """
    for name, value in settings.items():
        try:
            dumps(value)
        except Exception as error:
            what = getattr(value, "__qualname__", type(value).__qualname__)
            raise PicklingError(
                f"The {name} of the TokenKeeper cannot be pickled: {what}. Give a function of a "
                "module or an object that can be, or make the keeper anew in the other process."
            ) from error
