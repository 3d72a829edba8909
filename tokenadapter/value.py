"""Frozen values with named fields, whose classes cost as little as any others.

For a ``NamedTuple`` or a data class, code is composed and compiled; cron would pay for that, class
by class, at every start.
"""

from __future__ import annotations

from typing import Any, Self, dataclass_transform

__all__ = ["Value"]


@dataclass_transform(frozen_default=True)
class Value:
    """The base of a class whose annotated names are its fields, in their order.

    What is assigned to a name is its default.  The methods are called as those of a NamedTuple::

        class Point(Value):
            x: float
            y: float = 0.0
    """

    def __init__(self, *values: object, **named: object) -> None:
        names = type(self).__annotations__
        given = dict(zip(names, values, strict=False), **named)
        if len(given) < len(values) + len(named) or not given.keys() <= names.keys():
            raise TypeError(f"{type(self).__name__} takes no such arguments")
        missing = [name for name in names if name not in given and not hasattr(self, name)]
        if missing:
            raise TypeError(f"{type(self).__name__} needs {', '.join(missing)}")
        vars(self).update(given)

    def _replace(self, **changes: object) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**vars(self), **changes})

    def _asdict(self) -> dict[str, Any]:
        """The fields and what they hold."""
        return {name: getattr(self, name) for name in type(self).__annotations__}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use _replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._asdict() == other._asdict()

    def __hash__(self) -> int:
        return hash(tuple(self._asdict().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({fields})"
