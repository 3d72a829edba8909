"""A private key, wherever it is: a file, PEM text, a JWK, or an object that signs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias

from tokenadapter.keys.jws import ALGORITHMS, compact
from tokenadapter.late_imports import late

if TYPE_CHECKING:
    import hashlib

    from tokenadapter import spelling
    from tokenadapter.keys import algorithms, private_file
else:
    algorithms = late("tokenadapter.keys.algorithms")
    hashlib = late("hashlib")
    private_file = late("tokenadapter.keys.private_file")
    spelling = late("tokenadapter.spelling")

__all__ = ["Key", "KeyLike", "Signer", "UnusableKey"]

# What a key signs that is checked.
_SAMPLE = b"tokenadapter"


class Signer(Protocol):
    """A key that is elsewhere, such as in a key management service or on a PKCS#11 token."""

    def sign(self, data: bytes, /) -> bytes:
        """The signature of *data* itself, not of its hash.

        For an elliptic curve, the signature may be in DER (ASN.1), or as a JWS has it (RFC 7518
        section 3.4).
        """


KeyLike: TypeAlias = "str | bytes | os.PathLike[str] | Mapping[str, Any] | Signer | Key"
"""The path of a file, PEM, a JWK, or an object that signs."""


class UnusableKey(ValueError):
    """A key cannot sign.  The message names the key, and says what is wrong with it."""


class Key:
    """A private key that signs (RFC 7515).

    A file is read when the key signs, so a new key in the file needs no restart.  The file must
    belong to this user or to root, and no other user may read it.  A group may read a file of root.

    :param key: the path of a file with PEM, a JWK, or the JSON of a Google service account; PEM
        itself (PKCS#8, or the older formats of RSA and elliptic curves); a JWK (RFC 7517), as a
        mapping or JSON; a private key of the package cryptography; or another object that signs
        (:class:`~tokenadapter.keys.key.Signer`).
    :param alg: the algorithm: ``RS256``, ``PS256``, ``ES256``, ``ES384``, ``EdDSA``, or its newer
        name ``Ed25519``.  By default that of the JWK, or the first of these that fits the key.  An
        object that signs needs it.
    :param kid: the identifier by which the server finds the key (RFC 7515 section 4.1.4); by
        default that of the JWK.
    :param passphrase: decrypts an encrypted PEM.
    :param public: the public JWK of an object that signs.
    :raises TypeError: if an argument has the wrong type, or *alg* is missing.
    :raises ValueError: if there is no such algorithm, or *key* is a text of another kind.
    """

    def __init__(
        self,
        key: KeyLike,
        *,
        alg: str | None = None,
        kid: str | None = None,
        passphrase: str | None = None,
        public: Mapping[str, str] | None = None,
    ) -> None:
        if alg is not None:
            _check_alg(alg)
        self._alg, self._kid, self._public = alg, kid, public
        self._passphrase = None if passphrase is None else passphrase.encode()
        self._path: str | None = None
        self._content: bytes | None = None
        self._signer: Any = None
        # The hash of the content that was read last, and the key in it.
        self._last: tuple[str, _Ready] | None = None
        if isinstance(key, Mapping):
            self._content = json.dumps(dict(key)).encode()
        elif isinstance(key, bytes) or (isinstance(key, str) and _is_content(key)):
            self._content = key.encode() if isinstance(key, str) else key
        elif isinstance(key, (str, os.PathLike)):
            path = os.fspath(key)
            if not spelling.may_be_path(path):
                raise ValueError(
                    "key is neither the path of a file, nor PEM, nor a JWK. PEM begins with "
                    "-----BEGIN, a JWK with {"
                )
            self._path = os.path.abspath(os.path.expanduser(path))
            # For messages: the text may be a key.
            self._shown = spelling.shown_path(path)
        elif callable(getattr(key, "sign", None)) and not isinstance(key, (type, Key)):
            self._signer = key
            if alg is None and not _is_of_cryptography(key):
                raise TypeError("alg is missing: pass the algorithm of the object that signs")
        else:
            raise TypeError(
                "key must be the path of a file, PEM, a JWK, or an object with a method sign(), "
                f"not {type(key).__name__}"
            )

    @classmethod
    def of(cls, key: KeyLike, alg: str | None = None, kid: str | None = None) -> Key:
        """*key* itself if it is a key, or else the key that is made of it.

        :raises TypeError: as the constructor does, or if a key is passed with *alg* or *kid*.
        """
        if not isinstance(key, Key):
            return cls(key, alg=alg, kid=kid)
        if alg is not None or kid is not None:
            raise TypeError("alg and kid are those of the Key: pass them to Key()")
        return key

    @classmethod
    def generate(cls, alg: str = "ES256") -> Self:
        """A new key, in memory.

        :raises ImportError: if the package cryptography is not installed.
        :raises ValueError: if there is no such algorithm.
        """
        _check_alg(alg)
        return cls(algorithms.generate(ALGORITHMS[alg]), alg=alg)

    @property
    def alg(self) -> str:
        """The algorithm (RFC 7515 section 4.1.1).

        :raises UnusableKey: if the key cannot be used.
        """
        return self._ready().alg

    @property
    def kid(self) -> str | None:
        """The identifier of the key, if it has one.

        :raises UnusableKey: if the key cannot be used.
        """
        return self._ready().kid

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key as a JWK, with no other members than RFC 7638 requires.

        :raises UnusableKey: if the key cannot be used, or signs elsewhere and *public* was not
            given.
        """
        private = self._ready().private
        if private is not None:
            return algorithms.public_jwk(private)
        if self._public is None:
            raise self._unusable("does not tell its public key: pass public=, a JWK")
        return algorithms.required_members(self._public)

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint of the public key (RFC 7638).

        :raises UnusableKey: as :attr:`public_jwk`.
        """
        return algorithms.thumbprint(self.public_jwk)

    @property
    def identity(self) -> str:
        """A text that changes with the key, and from which nobody can compute the key."""
        try:
            if self._signer is None:
                return hashlib.sha256(self._read()).hexdigest()
            if _is_of_cryptography(self._signer):
                return self.thumbprint
        except UnusableKey:
            return self._name
        return f"{self._name} {self._alg} {self._kid} {self._public}"

    def private_jwk(self) -> dict[str, str]:
        """The private key as a JWK, with its algorithm.  It contains the secret.

        :raises UnusableKey: if the key cannot be used, or signs elsewhere.
        """
        ready = self._ready()
        if ready.private is None:
            raise self._unusable("signs elsewhere, and does not leave that place")
        return {**algorithms.private_jwk(ready.private), "alg": ready.alg}

    def sign(self, data: bytes) -> bytes:
        """The signature of *data*, as a JWS has it.

        :raises UnusableKey: if the key cannot be used.
        """
        return self._signed(self._ready(), data)

    def jwt(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A signed JWT (RFC 7519).

        :param header: members of the header; ``alg``, ``kid`` and ``typ`` are there without it.
        :raises UnusableKey: if the key cannot be used.
        """
        ready = self._ready()
        named = {} if ready.kid is None else {"kid": ready.kid}
        payload = json.dumps(claims, separators=(",", ":")).encode()
        header = {"alg": ready.alg, "typ": "JWT", **named, **header}
        return compact(header, payload, lambda data: self._signed(ready, data))

    def check(self) -> None:
        """Sign something, and verify the signature if the public key is known.

        :raises UnusableKey: if one of the two fails.
        """
        ready = self._ready()
        signature = self._signed(ready, _SAMPLE)
        if ready.private is None and self._public is None:
            return
        if not algorithms.verifies(self.public_jwk, ready.alg, _SAMPLE, signature):
            raise self._unusable(
                f"makes {ready.alg} signatures that its public key does not verify"
            )

    def __repr__(self) -> str:
        return f"<Key {' '.join(part for part in (self._name, self._alg, self._kid) if part)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None and (self._signer is None or _is_of_cryptography(self._signer)):
            raise TypeError("A key in memory is not pickled: pass the path of a file instead.")
        if self._passphrase is not None:
            raise TypeError("A key with a passphrase is not pickled: pass a file without one.")
        return _rebuilt, (self._path or self._signer, self._alg, self._kid, self._public)

    @property
    def _name(self) -> str:
        if self._signer is not None:
            return f"of {type(self._signer).__qualname__}"
        return "in memory" if self._path is None else self._shown

    def _unusable(self, problem: str) -> UnusableKey:
        return UnusableKey(f"the key {self._name} {problem}")

    def _read(self) -> bytes:
        """:raises UnusableKey: if the file cannot be read, or must not be used."""
        if self._content is not None:
            return self._content
        path = str(self._path)
        try:
            return private_file.read_private(path)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except ValueError as error:
            problem = str(error).removeprefix(f"{path} ")
        raise self._unusable(problem)

    def _signed(self, ready: _Ready, data: bytes) -> bytes:
        if ready.private is not None:
            return algorithms.sign(ready.private, ready.alg, data)
        signature = self._signer.sign(data)
        try:
            return algorithms.jose_signature(ready.alg, signature)
        except ValueError:
            pass
        raise self._unusable(f"returned something other than a signature by {ready.alg}")

    def _ready(self) -> _Ready:
        """:raises UnusableKey: if the key cannot be used."""
        # The frame that raises has no secret in its variables.
        found = self._found()
        if isinstance(found, str):
            raise self._unusable(found)
        return found

    def _found(self) -> _Ready | str:
        """The key, or what is wrong with it.

        :raises UnusableKey: if it cannot be read.
        """
        if self._last is not None and self._path is None:
            return self._last[1]
        if self._signer is not None and not _is_of_cryptography(self._signer):
            return _Ready(None, str(self._alg), self._kid)
        algorithms.check_installed()
        if self._signer is not None:
            digest, found = "", algorithms.checked(self._signer)
        else:
            content = self._read()
            digest = hashlib.sha256(content).hexdigest()
            if self._last is not None and self._last[0] == digest:
                return self._last[1]
            found = algorithms.read(content, self._passphrase)
        if isinstance(found, str):
            return found
        private, jwk = found
        kind, alg = algorithms.kind_of(private), self._alg or jwk.get("alg")
        if alg is None:
            alg = next(name for name, one in ALGORITHMS.items() if one == kind)
        elif ALGORITHMS.get(alg) != kind:
            return f"is of the kind {kind}, which the algorithm {alg!r:.40} does not take"
        kid = self._kid if self._kid is not None else jwk.get("kid")
        self._last = digest, _Ready(private, alg, kid)
        return self._last[1]


class _Ready(NamedTuple):
    """A key that was read."""

    private: Any
    """The private key of cryptography; ``None`` if the key is elsewhere."""
    alg: str
    kid: str | None


def _check_alg(alg: str) -> None:
    if alg not in ALGORITHMS:
        raise ValueError(f"alg must be one of {', '.join(ALGORITHMS)}, not {alg!r}")


def _is_content(text: str) -> bool:
    """Whether *text* is a key, and not the path of one."""
    return "-----BEGIN " in text or text.lstrip().startswith("{")


def _is_of_cryptography(key: object) -> bool:
    return type(key).__module__.startswith("cryptography.")


def _rebuilt(key: Any, alg: str | None, kid: str | None, public: Mapping[str, str] | None) -> Key:
    return Key(key, alg=alg, kid=kid, public=public)
