"""The store of a profile with an ``encryption_key``, which is read when it is needed."""

from __future__ import annotations

import os
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final

from tokenadapter.config.config_file import as_arguments
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.references import PLAIN_KINDS, Reference, references_in, resolved
from tokenadapter.stores.encrypted import EncryptedStore
from tokenadapter.stores.file import FileStore
from tokenadapter.stores.toolkit import failure

if TYPE_CHECKING:
    from tokenadapter.protocols import Document, TokenStore
    from tokenadapter.stores._cipher import Cipher

__all__ = ["EncryptedProfileStore"]

_SETTING: Final = "encryption_key"
# Seconds before a key that does not fit is read again: the user may have changed it meanwhile.
_KEY_VALID = 60.0
# Seconds for which a key that could not be read is not asked for again.  One renewal reads the
# store several times: a locked password manager would prompt its user each time.
_FAILURE_VALID = 10.0


class EncryptedProfileStore(EncryptedStore):
    """An :class:`EncryptedStore` whose keys are where a profile says.

    A pickled store contains the places of its keys, and the keys that the file itself contains.

    :param inner: where the encrypted document is kept.
    :param keys: the keys, or the places of the keys.
    :param profile: the name of the profile, for messages.
    :param file: the path of its configuration file, for messages.
    :raises ValueError: if *inner* has no name for its slot.
    :raises ImportError: if the package cryptography is not installed.
    """

    def __init__(self, inner: TokenStore, keys: Any, profile: str, file: str) -> None:
        # A FileStore has no name for its slot.  If a user moves the file, its name stays.
        slot = os.path.basename(inner.path) if isinstance(inner, FileStore) else None
        # A placeholder that encrypts nothing: the keys of the profile replace it.
        super().__init__(inner, self.generate_key(), slot=slot)
        self._places = keys
        self._profile = profile
        self._file = file
        self._read_at = -inf
        self._failed_at = -inf
        self._failed_read = ("", "")  # what could not be done with the key, and why

    def is_hidden(self) -> bool:
        """Whether there is a document, and a key is where only a command or the keyring can read
        it.  Neither is asked for the key.

        :raises StoreError: if the document cannot be read, or is not encrypted.
        """
        kinds = {each.kind for each in references_in(self._places)}
        if self._read_at > -inf or kinds <= set(PLAIN_KINDS):
            return False
        document = self.inner.load().document
        if document is None:
            return False
        self._parts(document)
        return True

    def save(
        self, document: Document, *, tag: str, expected: str | None, ttl: float | None
    ) -> bool:
        """Encrypt and save the document, as :class:`EncryptedStore` does.

        :raises StoreError: also if a key cannot be read.
        """
        if self._read_at == -inf:
            self._read()
        return super().save(document, tag=tag, expected=expected, ttl=ttl)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.inner, self._places, self._profile, self._file)

    def _cipher_with(self, name: str) -> Cipher:
        if name not in self._cipher.names and time.monotonic() > self._read_at + _KEY_VALID:
            self._read()
        return self._cipher

    def _how_to_encrypt(self) -> str:
        arguments = as_arguments(self._profile, self._file)
        return f"remove {_SETTING}, run `tokenadapter logout {arguments}`, and add {_SETTING} again"

    def _read(self) -> None:
        if time.monotonic() > self._failed_at + _FAILURE_VALID:
            try:
                keys = resolved(self._places, Reference.read)
                super().__init__(self.inner, keys, slot=self.slot)
            except ProfileError as error:
                self._failed_read = "read its key", str(error)
            except ValueError as error:
                self._failed_read = "use its key", f"{self._profile}.{_SETTING}: {error}"
            else:
                self._read_at = time.monotonic()
                return
            self._failed_at = time.monotonic()
        raise failure(self, *self._failed_read)
