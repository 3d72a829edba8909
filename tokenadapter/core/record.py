"""Pure: the record that a store holds, and every transition it can make.

The record is what the processes that share a store tell each other: the token, whose it is, and
three things that can go wrong with it.

* An **intent** is written before a credential that can be spent is presented.  It names the process
  that awaits the answer, and until when.  An intent that nobody awaits any more, or only processes
  that have died, means that an answer may be lost.
* A **tombstone** marks a credential that the server refused: it is not presented again.
* A **hold** says until when nobody should ask the token endpoint.

A presentation ends in one of four ways, and each is one write:

============  ====================================================  ==========================
outcome       when                                                  what becomes of the record
============  ====================================================  ==========================
minted        the server answered with a token                      ``minted``: the new token;
                                                                    intent and hold are gone
refused       the server refused the credential                     ``refused``: a tombstone,
                                                                    in place of the intent
unprocessed   it is certain that the server did not spend it:       ``unprocessed``: the
              never sent, 429, 503, another OAuth error             intent is as before, and
                                                                    there is a hold
unknown       anything else: no answer, or none that can be read    ``unknown``: the intent
                                                                    stays, awaited by nobody,
                                                                    and there is a hold
============  ====================================================  ==========================

Besides these, ``presenting`` writes the intent, ``adopted`` takes in a token that came from
elsewhere and is a new beginning, ``distrusting`` notes that a token was refused when new, and
``restored`` brings back what the store has lost.

A document says in which format it was written, and which format its reader has to know at least.
Within that, a later version may add keys: what this one does not know is kept at the top of the
document, and ignored below.

All times are the store's.  Credentials appear as salted hashes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tokenadapter.core.policy import backoff_duration
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Value, one_line

if TYPE_CHECKING:
    import hashlib
else:
    hashlib = late("hashlib")

__all__ = [
    "Backoff",
    "Intent",
    "Record",
    "Replaced",
    "Tombstone",
    "Waiter",
    "digest",
    "load",
    "spent_hash",
]

# What this version writes, and the latest that it can read.
_FORMAT = 1
_TOMBSTONES_KEPT = 8
# Seconds after its end for which a distrust makes the next one longer.
_DISTRUST_REMEMBERED = 600.0
# Seconds for which programs that ask for different things may not replace each other's token.
_REPLACED_REMEMBERED = 3600.0
_REPLACED_KEPT = 8
# Seconds between two times of which one has to come after the other, if the clock tells less.
_LATER = 0.001
# Seconds by which a clock may seem to have been set back: what is between two reads of it.
_SLACK = 1.0
# Texts that errors, logs and the command show: a program that can write to the store could have
# them look like several lines.  The causes that we write are on one line, and shorter than that.
_SHOWN = frozenset({"cause", "error", "process", "reason"})
_LONGEST_TEXT = 1000
# No number in a record is as large.
_FURTHEST = 1e12
_NUMBERS = frozenset({"first_sent", "attempt", "until", "at", "set_at", "duration", "step"})


class Waiter(Value):
    """Who awaits the answer to a presentation."""

    process: str
    """Its name (:mod:`tokenadapter.process_names`)."""
    until: float
    """When it has given up at the latest."""


class Intent(Value):
    """A credential is being presented, or was and the answer is lost."""

    credential: str
    first_sent: float
    attempt: int
    awaited: tuple[Waiter, ...] = ()
    """Who may still get an answer: more than one where it was presented again within a grace."""


class Tombstone(Value):
    """A credential that the server refused."""

    credential: str
    kind: str
    reason: str
    at: float
    error: str | None = None
    cause: str = ""


class Backoff(Value):
    """Until when something is not done, set at one moment for a number of seconds.

    Outside that span it is void: also before it, for then the clock was set back.
    """

    set_at: float
    duration: float
    step: int
    bound_to: str | None = None
    """For whom it is meant: a hash; ``None``: for everybody."""
    kind: str = "temporary"
    """``temporary``, ``config`` or ``refused``: which error says it."""
    error: str | None = None
    cause: str = ""

    def binds(self, who: str, now: float) -> bool:
        """Whether *who* has to wait at *now*."""
        return self.bound_to in (None, who) and self.remaining(now) > 0

    def remaining(self, now: float) -> float:
        """For how many more seconds it binds; 0 if it is void."""
        end = self.set_at + self.duration
        return end - now if self.set_at - _SLACK <= now < end else 0.0


class Replaced(Value):
    """What was asked for, until somebody asked for something else."""

    requested: Mapping[str, str]
    at: float


class Record(Value):
    """What a store holds for one slot."""

    owner: Mapping[str, str]
    requested: Mapping[str, str]
    salt: str
    token: Token | None = None
    replaced: tuple[Replaced, ...] = ()
    """What was asked for before :attr:`asked` took its place."""
    intent: Intent | None = None
    tombstones: tuple[Tombstone, ...] = ()
    backoff: Backoff | None = None
    distrust: Backoff | None = None
    """For how long a token that was refused when new is not renewed, bound to its fingerprint."""
    origin: str | None = None
    """The mark of the refresh token, configured or adopted, that began this chain of renewals."""
    spent: tuple[str, ...] = ()
    """The marks of refresh tokens that came from a configuration or were adopted, and that a
    rotation has spent: they may be shown to us again at any time."""
    generation: int = 0
    """How often the token was replaced or given up: it only grows, unless the store goes back to
    what it held before."""
    begun: float = 0.0
    """When the grant began from which the token descends, by a login or by a credential that is not
    of this record; or when the token was given up."""
    written: float = 0.0
    """When the token was last replaced or given up."""
    format: int = _FORMAT
    """The latest format that a writer of this record knew."""
    oldest_reader: int = _FORMAT
    """The format that a reader has to know at least."""
    others: Mapping[str, Any] = {}
    """What a later version added."""
    seeds: tuple[str, ...] = ()
    """The marks of the configured first refresh tokens whose programs share the record."""

    # --- reading -------------------------------------------------------------------------

    def tombstone(self, credential: str) -> Tombstone | None:
        """The tombstone of a credential, by its hash."""
        for stone in self.tombstones:
            if stone.credential == credential:
                return stone
        return None

    def precedes(self, other: Record) -> bool:
        """Whether *other* has come of this one: it holds a later grant, or a later token of the
        same."""
        return self.salt == other.salt and (
            (self.begun, self.generation) < (other.begun, other.generation)
        )

    def is_expired(self, now: float) -> bool:
        """Whether the token is of no more use by what is known of its lifetime."""
        if self.token is None:
            return True
        return self.token.expires_at is not None and self.token.expires_at <= now

    def was_replaced_lately(self, requested: Mapping[str, str], now: float) -> bool:
        """Whether the token here took the place of one that was asked for by *asked*, lately, and
        lives: to replace it once more would begin a quarrel."""
        return not self.is_expired(now) and any(
            dict(past.requested) == dict(requested) and now < past.at + _REPLACED_REMEMBERED
            for past in self.replaced
        )

    def ttl(self, now: float) -> float | None:
        """For how many seconds the record is worth keeping; ``None``: for good."""
        if self.tombstones or self.spent or self.intent or self.backoff or self.token is None:
            return None
        if self.token.refresh_token is not None or self.token.expires_at is None:
            return None
        return max(self.token.expires_at - now, 1.0)

    def began_with(self, seed: str) -> bool:
        """Whether a program that is configured with *seed* shares this record.

        :param seed: the mark of a first refresh token.
        """
        if self.origin is None and not self.seeds:
            return seed in self.spent  # written before its beginning was recorded
        return seed == self.origin or seed in self.seeds

    def is_grant_over(self, now: float) -> bool:
        """Whether nothing can continue the grant: a program with another one replaces nothing of
        worth."""
        if self.token is None or self.token.refresh_token is None:
            return self.is_expired(now)
        # Usually there are no tombstones, and nothing to hash.
        return bool(self.tombstones) and (
            self.tombstone(digest(self.salt, "refresh_token", self.token.refresh_token)) is not None
        )

    def is_blank(self) -> bool:
        """Whether it holds nothing of worth to whose it is."""
        return not (self.token or self.intent or self.tombstones or self.spent)

    # --- transitions ---------------------------------------------------------------------

    def with_intent(self, credential: str, now: float, waiter: Waiter) -> Self:
        """A credential is about to be presented, the first time or once more.

        :param waiter: who awaits the answer.
        """
        intent = self.intent
        if intent is None or intent.credential != credential:
            intent = Intent(credential, now, 0)
        others = (other for other in intent.awaited if now < other.until)
        return self._replace(
            intent=intent._replace(attempt=intent.attempt + 1, awaited=(*others, waiter))
        )

    def with_new_token(
        self,
        token: Token,
        requested: Mapping[str, str],
        now: float,
        spent: str | None = None,
        *,
        intent: Intent | None = None,
        begins: bool = False,
        origin: str | None = None,
        seeds: tuple[str, ...] = (),
    ) -> Self:
        """A presentation was answered with *token*.

        :param spent: the mark of what it spent, if that may be shown to us again.
        :param intent: what takes the place of :attr:`intent`.
        :param begins: whether a grant begins by it: what was presented is not of this record.
        :param origin: the mark of the refresh token by which it begins.
        :param seeds: what then takes the place of :attr:`seeds`.
        """
        replaced = tuple(past for past in self.replaced if dict(past.requested) != dict(requested))
        if self.token is not None and dict(self.requested) != dict(requested):
            replaced = (*replaced, Replaced(self.requested, now))[-_REPLACED_KEPT:]
        return self._replace(
            token=token,
            requested=requested,
            replaced=replaced,
            intent=intent,
            backoff=None,
            origin=self.origin if origin is None else origin,
            seeds=self.seeds if origin is None else seeds,
            spent=self.spent if spent is None or spent in self.spent else (*self.spent, spent),
            generation=self.generation + 1,
            begun=_after(self.begun, now) if begins or self.token is None else self.begun,
            written=_after(self.written, now),
        )

    def with_adopted_token(
        self, token: Token, requested: Mapping[str, str], now: float, seeds: tuple[str, ...] = ()
    ) -> Self:
        """A token came from elsewhere, a login or another library's cache: a new beginning.

        :param seeds: what takes the place of :attr:`seeds`.
        """
        refresh = token.refresh_token
        alive = None if refresh is None else digest(self.salt, "refresh_token", refresh)
        return self.without_token(now)._replace(
            requested=requested,
            token=token,
            # A refresh token that is dead stays dead; a password may be good by now.
            tombstones=tuple(
                stone
                for stone in self.tombstones
                if stone.kind == "refresh_token" and stone.credential != alive
            ),
            origin=None if refresh is None else spent_hash(refresh),
            seeds=seeds,
        )

    def without_tombstone(self, credential: str) -> Self:
        """Somebody says that one credential, by its hash, is worth another try."""
        if self.tombstone(credential) is None:
            return self
        kept = [stone for stone in self.tombstones if stone.credential != credential]
        return self._replace(tombstones=tuple(kept))

    def without_refusals(self) -> Self:
        """Somebody says that it is worth another try: nothing is held or refused any more."""
        return self._replace(tombstones=(), backoff=None, distrust=None)

    def without_token(self, now: float) -> Self:
        """The token was given up.  What was spent or refused stays so."""
        return self._replace(
            token=None,
            replaced=(),
            intent=None,
            backoff=None,
            distrust=None,
            origin=None,
            seeds=(),
            generation=self.generation + 1,
            begun=_after(self.begun, now),
            written=_after(self.written, now),
        )

    def restored_over(self, found: Self) -> Self:
        """The record as it was seen, in place of *found*, which the slot was set back to.

        What others have learned since is kept: what was refused, and until when nobody asks.
        """
        assert self.token is not None
        since = self.token.issued_at
        known = {stone.credential for stone in self.tombstones}
        stones = [
            stone
            for stone in found.tombstones
            if stone.at > since and stone.credential not in known
        ]
        backoff = self.backoff
        if found.backoff is not None and found.backoff.set_at > (
            since if backoff is None else backoff.set_at
        ):
            backoff = found.backoff
        return self._replace(
            tombstones=(*self.tombstones, *stones)[-_TOMBSTONES_KEPT:], backoff=backoff
        )

    def with_refusal(
        self, credential: str, kind: str, now: float, *, error: str | None, cause: str
    ) -> Self:
        """The server refused the credential that :meth:`presenting` announced."""
        intent = self.intent
        again = intent is not None and intent.credential == credential and intent.attempt > 1
        stone = Tombstone(
            credential,
            kind,
            "uncertain_rotation" if again else "invalid_grant",
            now,
            error,
            cause,
        )
        kept = [other for other in self.tombstones if other.credential != credential]
        return self._replace(
            intent=None if intent is not None and intent.credential == credential else intent,
            tombstones=(*kept, stone)[-_TOMBSTONES_KEPT:],
            backoff=None,
        )

    def with_intent_withdrawn(self, before: Self, backoff: Backoff) -> Self:
        """The credential was certainly not spent: all is as it was *before*, but for a hold.

        An intent is worth something only beside its salt: the slot may have been emptied since.
        """
        intent = before.intent if before.salt == self.salt else None
        return self._replace(intent=intent, backoff=backoff)

    def with_unknown_outcome(self, backoff: Backoff | None, waiter: Waiter | None = None) -> Self:
        """Nobody knows whether the credential was spent: the intent goes on saying so.

        :param waiter: who does not await the answer any more.
        """
        intent = self.intent
        if intent is not None:
            others = (other for other in intent.awaited if other != waiter)
            intent = intent._replace(awaited=tuple(others))
        return self._replace(intent=intent, backoff=backoff)

    def with_distrust(self, token: Token, now: float, u: float) -> Self:
        """*token* was refused when it was new: another renewal would not help for a while.

        The while grows as holds do, if it happens to one token after the other.

        :param u: a number from [0, 1], drawn anew each time.
        """
        step, last = 1, self.distrust
        if last is not None and now < last.set_at + last.duration + _DISTRUST_REMEMBERED:
            step = last.step + 1
        return self._replace(
            distrust=Backoff(now, backoff_duration(step, u), step, token.fingerprint)
        )

    # --- to and from JSON ----------------------------------------------------------------

    def to_document(self) -> dict[str, Any]:
        """The record as a JSON object; what is empty is left out."""
        document: dict[str, Any] = {
            **self.others,
            "format": max(self.format, _FORMAT),
            "oldest_reader": self.oldest_reader,
            "owner": dict(self.owner),
            "requested": dict(self.requested),
            "salt": self.salt,
        }
        if self.token is not None:
            document["token"] = self.token.to_dict()
        if self.replaced:
            document["replaced"] = [
                {"requested": dict(past.requested), "at": past.at} for past in self.replaced
            ]
        if self.origin is not None:
            document["origin"] = self.origin
        if self.intent is not None:
            waiters = [waiter._asdict() for waiter in self.intent.awaited]
            document["intent"] = {**self.intent._asdict(), "awaited": waiters}
        for name in ("backoff", "distrust"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value._asdict()
        if self.tombstones:
            document["tombstones"] = [stone._asdict() for stone in self.tombstones]
        for name in ("spent", "seeds"):
            if getattr(self, name):
                document[name] = list(getattr(self, name))
        for name in ("generation", "begun", "written"):
            if getattr(self, name):
                document[name] = getattr(self, name)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_document`.

        :raises ValueError: if the document is not a record, or its reader has to know a later
            format than this version does.
        """
        reader = document.get("oldest_reader")
        if isinstance(reader, int) and reader > _FORMAT:
            raise ValueError(
                f"a newer version wrote it, and reading it requires format {reader!s:.20}"
            )
        try:
            return cls(
                owner=dict(document["owner"]),
                requested=dict(document["requested"]),
                salt=str(document["salt"]),
                token=_each(Token.from_dict, document.get("token")),
                replaced=tuple(
                    Replaced(dict(item["requested"]), float(item["at"]))
                    for item in document.get("replaced", ())
                ),
                origin=_each(str, document.get("origin")),
                intent=_each(_intent, document.get("intent")),
                tombstones=tuple(_made(Tombstone, item) for item in document.get("tombstones", ())),
                backoff=_each(partial(_made, Backoff), document.get("backoff")),
                distrust=_each(partial(_made, Backoff), document.get("distrust")),
                spent=tuple(map(str, document.get("spent", ()))),
                seeds=tuple(map(str, document.get("seeds", ()))),
                generation=int(document.get("generation", 0)),
                begun=float(document.get("begun", 0.0)),
                written=float(document.get("written", 0.0)),
                format=int(document["format"]),
                oldest_reader=int(document["oldest_reader"]),
                others={name: document[name] for name in document if name not in _KEYS},
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"it is not a valid record ({type(error).__name__})") from None


def digest(salt: str, kind: str, secret: str) -> str:
    """A salted hash by which a record knows a credential.

    Passwords can be guessed, so their hash is slow (PBKDF2, RFC 8018); refresh tokens are random.
    """
    text = f"{kind}\0{secret}".encode()
    if kind == "refresh_token":
        return hashlib.sha256(salt.encode() + b"\0" + text).hexdigest()[:32]
    return hashlib.pbkdf2_hmac("sha256", text, salt.encode(), 200_000, 16).hex()


def load() -> None:
    """Have OpenSSL look up what :func:`digest` needs.

    The first time it does so without the lock of the interpreter, and with locks of its own: a
    child that is forked meanwhile could make no digest.
    """
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1)


def spent_hash(secret: str) -> str:
    """What is remembered of a spent refresh token, also where the record is lost: so it has no
    salt.  A refresh token is long and random.
    """
    return hashlib.sha256(b"tokenadapter spent\0" + secret.encode()).hexdigest()[:32]


# What stands at the top of a document.
_KEYS = frozenset(Record.__annotations__) - {"others"}


def _after(time: float, now: float) -> float:
    # Also if the clock was set back since, or another machine's is behind.
    return max(now, time + _LATER)


def _intent(fields: Mapping[str, Any]) -> Intent:
    waiters = tuple(_made(Waiter, item) for item in fields.get("awaited", ()))
    intent: Intent = _made(Intent, {**fields, "awaited": waiters})
    return intent


def _made(kind: Any, fields: Mapping[str, Any]) -> Any:
    fields = {name: value for name, value in fields.items() if name in kind.__annotations__}
    for name, value in fields.items():
        is_number = isinstance(value, (int, float)) and abs(value) < _FURTHEST
        if is_number != (name in _NUMBERS):
            raise TypeError(name)
        if name in _SHOWN and isinstance(value, str):
            fields[name] = one_line(value, _LONGEST_TEXT)
    return kind(**fields)


def _each(read: Any, value: Any) -> Any:
    return None if value is None else read(value)
