"""Authenticated encryption with several keys: the first one encrypts, all of them decrypt.

AES-256 in Galois/Counter Mode (NIST SP 800-38D) also authenticates a context, which Fernet does
not, and processors and certified libraries support it.  Each text gets a random nonce of 96 bits; a
key is good for some billions of texts.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias

from tokenadapter.late_imports import late, load

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives.ciphers import aead
else:
    aead = late("cryptography.hazmat.primitives.ciphers.aead")
    exceptions = late("cryptography.exceptions")

__all__ = ["Cipher", "Forged", "Key", "UnknownKey", "new_key"]

Key: TypeAlias = str | bytes
"""32 random bytes, as they are or in URL-safe Base64 (RFC 4648 section 5)."""

_BYTES: Final = 32
_NONCE: Final = 12


class UnknownKey(ValueError):
    """The text was encrypted with another key."""


class Forged(ValueError):
    """The text was changed since it was encrypted, or was encrypted for another context."""


class Cipher:
    """Encrypts and decrypts texts.

    :param keys: the first one encrypts.
    :ivar names: of the keys: the first digits of their hashes.
    :raises TypeError: if a key is neither text nor bytes.
    :raises ValueError: if there is no key, or one of them cannot be a key.
    :raises ImportError: if the package cryptography is not installed.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        try:
            load(aead)
        except ImportError as error:
            raise ImportError(
                "EncryptedStore needs the package cryptography: run "
                "`pip install 'tokenadapter[crypto]'`."
            ) from error
        raw = [_decoded(key) for key in keys]
        if not raw:
            raise ValueError("keys is empty: EncryptedStore.generate_key() makes one")
        self.names = [sha256(b"tokenadapter key\0" + key).hexdigest()[:8] for key in raw]
        self._ciphers: dict[str, aead.AESGCM] = dict(
            zip(self.names, (aead.AESGCM(key) for key in raw), strict=True)
        )

    def encrypt(self, text: bytes, context: bytes) -> tuple[str, str]:
        """The name of the key, and the encrypted text in Base64."""
        nonce = os.urandom(_NONCE)
        sealed = self._ciphers[self.names[0]].encrypt(nonce, text, context)
        return self.names[0], base64.b64encode(nonce + sealed).decode()

    def decrypt(self, name: str, sealed: str, context: bytes) -> bytes:
        """The text.

        :raises UnknownKey: if none of the keys has that name.
        :raises Forged: if the text or the context differs from what was encrypted.
        """
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UnknownKey(name)
        try:
            content = base64.b64decode(sealed, validate=True)
            return cipher.decrypt(content[:_NONCE], content[_NONCE:], context)
        except (exceptions.InvalidTag, ValueError):
            raise Forged(name) from None


def new_key() -> str:
    """A new key, as text."""
    return base64.urlsafe_b64encode(os.urandom(_BYTES)).decode()


def _decoded(key: Key) -> bytes:
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"a key is text or bytes, not {type(key).__name__}")
    if isinstance(key, bytes) and len(key) == _BYTES:
        return key
    try:
        # The padding may be missing: no other text has this length by accident.
        text = key.encode("ascii") if isinstance(key, str) else key
        raw = base64.b64decode(text.strip() + b"=" * (-len(text.strip()) % 4), b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if len(raw) != _BYTES:
        raise ValueError(
            f"this is not a key: a key is {_BYTES} random bytes, as they are or in URL-safe "
            "Base64. EncryptedStore.generate_key() makes one; a password cannot be one"
        )
    return raw
