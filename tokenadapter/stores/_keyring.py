"""The keyring of the system, or a clear refusal: never one that keeps secrets for all to read."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from tokenadapter.late_imports import late, load
from tokenadapter.stores._system import Refused

if TYPE_CHECKING:
    import keyring
    from keyring.backend import KeyringBackend
    from keyring.backends import chainer
else:
    chainer = late("keyring.backends.chainer")
    keyring = late("keyring")

__all__ = ["entry_size", "imported", "system_keyring"]

# The Credential Manager of Windows takes 2560 bytes, two for each character.
_SIZES = {"keyring.backends.Windows.WinVaultKeyring": 1280}
# Which keep nothing: they are allowed to nobody.
_KEEP_NOTHING: Final = ("keyring.backends.fail.", "keyring.backends.null.")


def imported() -> None:
    """See to it that there is a keyring package.

    :raises ImportError: if there is none, saying how to get it.
    """
    try:
        load(keyring)
    except ImportError as error:
        raise ImportError(
            "KeyringStore needs the package keyring: run `pip install 'tokenadapter[keyring]'`."
        ) from error


def system_keyring(allowed: Collection[str]) -> KeyringBackend:
    """The backend that keyring is set to, or chooses.

    Of several that it has chained, the best: a chain falls back to the next one without a word.

    :param allowed: the full names of the classes of backends that are used although keyring does
        not recommend them.
    :raises Refused: if its secrets would not be safe.
    """
    backend = keyring.get_keyring()
    if isinstance(backend, chainer.ChainerBackend):
        backend = next(iter(backend.backends), backend)
    name = _name(backend)
    # What keyring itself calls recommended.
    if not name.startswith(_KEEP_NOTHING) and (backend.priority >= 1 or name in allowed):
        return backend
    if name.startswith(_KEEP_NOTHING):
        raise Refused(
            "there is no keyring here: start the keyring of the desktop (for a service, see the "
            "documentation of the package keyring), or use another store"
        )
    raise Refused(
        f"the keyring at hand, {name}, is not recommended: it may keep secrets where others can "
        f"read them. Install a better one, use another store, or give allow={name!r} if it is "
        "intended"
    )


def entry_size(backend: KeyringBackend) -> int | None:
    """How many characters an entry may have; ``None`` if there is no known limit."""
    return _SIZES.get(_name(backend))


def _name(backend: KeyringBackend) -> str:
    kind = type(backend)
    return f"{kind.__module__}.{kind.__qualname__}"
