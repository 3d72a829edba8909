"""Compares what a profile says with what it may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenadapter.config.file import ConfigFile
from tokenadapter.config.references import KINDS, PLAIN_KINDS, Reference, is_reference, resolved
from tokenadapter.config.schema import Kind
from tokenadapter.config.trouble import Problems, nearest

__all__ = ["checked"]

_WORDS = {bool: "true or false", int: "a number", float: "a number", list: "a list"}


def checked(
    config: ConfigFile,
    key: Sequence[str],
    table: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """*table* with references in place of the tables that are some.

    Only secrets stay references; what else is kept elsewhere is looked up now.

    :param key: where the table stands.
    :raises ProfileError: if it has a key that is not known, lacks one, or has a value that cannot
        be.
    """
    problems, values, meant = Problems(), {}, ""
    for name, value in table.items():
        with problems.collected():
            if name in kinds:
                values[name] = _value(config, [*key, name], value, kinds[name])
                continue
            hint = nearest(name, kinds)
            meant += hint
            raise config.error(
                [*key, name], f"There is no such key.{hint} Known here: {', '.join(kinds)}."
            )
    for name in required:
        if name not in table and repr(name) not in meant:
            with problems.collected():
                raise config.error([*key, name], f"It is missing: give {kinds[name].expected}.")
    problems.raise_any()
    return values


def _value(config: ConfigFile, key: Sequence[str], value: Any, kind: Kind) -> Any:
    if kind.is_late or kind.fits("text"):
        kinds = KINDS if kind.is_late else PLAIN_KINDS
        value = _referring(config, key, value, kinds, is_table=kind.fits({}))
    # What is said of a text holds for one that is kept elsewhere, too.
    if not kind.fits(resolved(value, lambda reference: "text")):
        raise config.error(
            key, f"Expected is {kind.expected}, not {_described(value)}.{_hint(value)}"
        )
    return value if kind.is_late else resolved(value, Reference.read)


def _referring(
    config: ConfigFile,
    key: Sequence[str],
    value: Any,
    kinds: Sequence[str],
    *,
    is_table: bool = False,
) -> Any:
    if is_reference(value) and not is_table:
        ((kind, place),) = value.items()
        if kind not in kinds:
            raise config.error(
                key,
                f"Only a secret may be kept by {kind}: reading a profile runs no program. Give the "
                f"value itself, or a table that says where it is kept by {' or '.join(kinds)}.",
            )
        reference = Reference(kind, place, ".".join(key), config.path)
        expected = reference.expected()
        if expected is not None:
            raise config.error([*key, kind], f"Expected is {expected}, not {_described(place)}.")
        return reference
    if isinstance(value, Mapping):
        return {name: _referring(config, [*key, name], it, kinds) for name, it in value.items()}
    if isinstance(value, list):
        return [_referring(config, [*key, str(at)], it, kinds) for at, it in enumerate(value)]
    return value


def _described(value: object) -> str:
    # Not the value itself: it may be a secret that stands in the wrong place.
    if isinstance(value, str):
        return "a text" if value else "an empty text"
    if isinstance(value, Mapping):
        return f"a table of {', '.join(value)}" if value else "an empty table"
    return _WORDS.get(type(value), "a date or time")


def _hint(value: object) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        return nearest(next(iter(value)), KINDS)
    return ""
