"""Pure: the record that a store holds, and every transition of it.

The processes that share a store communicate through the record.  It contains the token, its owner,
and the state of renewals:

* An **intent** is written before a credential that can be spent is presented.  It names the process
  that waits for the answer, and a time limit.  If no living process waits for the answer any more,
  the answer may be lost.
* A **tombstone** stands for a credential that the server refused and that is not presented again.
* A **backoff** says until when the token endpoint must not be contacted.

A presentation has one of four outcomes, each saved by one write:

============  ====================================================  ===========================
outcome       when                                                  transition
============  ====================================================  ===========================
minted        the server answered with a token                      ``with_new_token``: no
                                                                    intent, no backoff
refused       the server refused the credential                     ``with_refusal``: a
                                                                    tombstone, no intent
unprocessed   the server certainly did not spend the credential:    ``with_intent_withdrawn``:
              never sent, 429, 503, another OAuth error             the previous intent and a
                                                                    backoff
unknown       anything else: no answer, or an unreadable answer     ``with_unknown_outcome``:
                                                                    the intent stays, without
                                                                    its waiter, and a backoff
============  ====================================================  ===========================

The other transitions: ``with_intent`` writes the intent, ``with_adopted_token`` starts a new grant
from a token that was obtained elsewhere, ``with_distrust`` records that the API refused a new
token, ``with_rejection`` that it refused a token which nothing could renew, and ``restored_over``
writes back a record that the store has lost.

A document names the format in which it was written and the oldest format that its reader must know.
Within a format, a later version may add keys.  Unknown keys are kept at the top level of the
document and ignored below it.

All times are the store's.  Credentials appear only as salted hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tokenadapter.core.policy import backoff_duration
from tokenadapter.late_imports import late
from tokenadapter.token import Token
from tokenadapter.values import Account, Value, one_line

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

# The format that this version writes, and the latest that it can read.
_FORMAT = 1
_TOMBSTONES_KEPT = 8
# Seconds after the end of a distrust within which another one lasts longer.
_DISTRUST_REMEMBERED = 600.0
# Seconds within which programs with different requests must not replace each other's token.
_REPLACED_REMEMBERED = 3600.0
_REPLACED_KEPT = 8
# The least difference in seconds between two times that must be in order.
_LEAST_DIFFERENCE = 0.001
# Seconds for which a living process of this machine is believed beyond its time: it may have a
# token that it cannot save while the store is away.  Not for longer, since a backup that was
# restored may hold its intent.
STORE_AWAY = 60.0
# Seconds by which a clock may appear to go back, since two reads of it are not simultaneous.
_SLACK = 1.0
# Texts that errors, logs and the command show.  A program that can write to the store could make
# them look like several lines.  The causes that we write are one line, and shorter than the limit.
_SHOWN = frozenset({"cause", "error", "name", "process", "reason"})
_LONGEST_SHOWN_TEXT = 1000
# No number in a record is this large.
_LARGEST_NUMBER = 1e12
_NUMBERS = frozenset({"first_sent", "attempt", "until", "at", "set_at", "duration", "step"})


class Waiter(Value):
    """A process that waits for the answer to a presentation."""

    process: str
    """The name of the process (:mod:`tokenadapter.process_names`)."""
    until: float
    """When the process has stopped waiting at the latest."""


class Intent(Value):
    """A credential is being presented, or was presented and the answer is lost."""

    credential: str
    first_sent: float
    attempt: int
    awaited: tuple[Waiter, ...] = ()
    """The processes that may still get an answer: several if the credential was presented again
    within the grace period."""
    key: str | None = None
    """The private key that a proof goes with the credential of (RFC 9449), if the token has none
    yet.  The server may have bound the new tokens to it, although the answer is lost."""

    def __repr__(self) -> str:
        return f"<Intent attempt={self.attempt}>"

    def without(self, waiter: Waiter, *, is_unknown: bool = False) -> Self | None:
        """The intent after *waiter* has stopped waiting.

        :param is_unknown: whether its request may have been processed.
        """
        others = tuple(one for one in self.awaited if one != waiter)
        if is_unknown:
            return self._replace(awaited=others)
        return self._replace(attempt=self.attempt - 1, awaited=others) if self.attempt > 1 else None


class Tombstone(Value):
    """A credential that the server refused."""

    credential: str
    kind: str
    reason: str
    at: float
    error: str | None = None
    cause: str = ""


class Backoff(Value):
    """A pause of *duration* seconds that begins at *set_at*.

    The backoff is void after its end, and also before its start: then the clock was set back.
    """

    set_at: float
    duration: float
    step: int
    bound_to: str | None = None
    """The hash of the client or token that it is limited to, or those of several credentials,
    separated by spaces; ``None``: it applies to all."""
    kind: str = "temporary"
    """The class of error that callers get: ``temporary``, ``config`` or ``refused``."""
    error: str | None = None
    cause: str = ""

    def applies_to(self, key: str, now: float) -> bool:
        """Whether the client or token with the hash *key* has to wait at *now*."""
        return (self.bound_to is None or key in self.targets) and self.remaining(now) > 0

    @property
    def targets(self) -> list[str]:
        """The hashes in :attr:`bound_to`."""
        # That of a damaged record may be no text.
        return [] if self.bound_to is None else str(self.bound_to).split(" ")

    def remaining(self, now: float) -> float:
        """The seconds until the end; 0 if the backoff is void."""
        end = self.set_at + self.duration
        return end - now if self.set_at - _SLACK <= now < end else 0.0


class Replaced(Value):
    """A request for a token that another request has replaced."""

    requested: Mapping[str, str]
    at: float


class Record(Value):
    """What a store holds for one slot."""

    owner: Mapping[str, str]
    requested: Mapping[str, str]
    salt: str
    token: Token | None = None
    replaced: tuple[Replaced, ...] = ()
    """The earlier requests that :attr:`requested` replaced."""
    intent: Intent | None = None
    tombstones: tuple[Tombstone, ...] = ()
    backoff: Backoff | None = None
    distrust: Backoff | None = None
    """The time for which a token that was refused when new is not renewed, bound to the fingerprint
    of the token.  If its kind is ``refused``, the API refused the token, and nothing could renew
    it."""
    origin: str | None = None
    """The hash of the configured or adopted refresh token from which the grant descends."""
    spent: tuple[str, ...] = ()
    """The hashes of configured or adopted refresh tokens that a rotation has spent.  A
    configuration or a caller may provide them again at any time."""
    generation: int = 0
    """How often the token was replaced or removed.  The number only grows, unless the store is set
    back to an earlier state."""
    begun: float = 0.0
    """When the token's grant began, by a login or by a credential from outside this record; or when
    the token was removed."""
    written: float = 0.0
    """When the token was last replaced or removed."""
    format: int = _FORMAT
    """The latest format that any writer of this record knew."""
    oldest_reader: int = _FORMAT
    """The oldest format that a reader must know."""
    others: Mapping[str, Any] = {}
    """Keys that a later version added."""
    seeds: tuple[str, ...] = ()
    """The hashes of the first refresh tokens that are configured in the programs that share the
    record."""
    account: Account | None = None
    """The user whose login the grant began with, if the login had an ID token."""

    # --- reading -------------------------------------------------------------------------

    def tombstone(self, credential: str) -> Tombstone | None:
        """The tombstone of the credential with this hash."""
        for stone in self.tombstones:
            if stone.credential == credential:
                return stone
        return None

    def precedes(self, other: Record) -> bool:
        """Whether *other* is a later state of this record: with a later grant, or a later token of
        the same grant."""
        return self.salt == other.salt and (
            (self.begun, self.generation) < (other.begun, other.generation)
        )

    def is_expired(self, now: float) -> bool:
        """Whether there is no token, or its known lifetime is over."""
        if self.token is None:
            return True
        return self.token.expires_at is not None and self.token.expires_at <= now

    @property
    def is_rejected(self) -> bool:
        """Whether the API refused the token when nothing could renew it: nobody can use it."""
        last, token = self.distrust, self.token
        return (
            last is not None
            and last.kind == "refused"
            and token is not None
            and (last.bound_to == token.fingerprint and last.set_at >= token.issued_at)
        )

    def satisfies(self, requested: Mapping[str, str]) -> bool:
        """Whether the token was obtained by the request *requested*, or for a wider scope."""
        return _includes(self.requested, requested)

    def was_replaced_lately(self, requested: Mapping[str, str], now: float, started: float) -> bool:
        """Whether a valid token replaced one with the request *requested* recently.

        If the replaced program renewed it in turn, two programs would replace each other's token
        for ever.  A program that started since may do so once, such as a deployment that is rolled
        back.  So may one with a wider scope, which satisfies the other program too.

        :param started: when the program started that requests *requested*.
        """
        lately = [
            past.at
            for past in self.replaced
            if dict(past.requested) == dict(requested) and now < past.at + _REPLACED_REMEMBERED
        ]
        has_lost = len(lately) > 1 or max(lately, default=started) > started
        return has_lost and not (self.is_expired(now) or _includes(requested, self.requested))

    def ttl(self, now: float) -> float | None:
        """The seconds for which the record is useful; ``None``: for good."""
        if self.tombstones or self.spent or self.intent or self.backoff or self.token is None:
            return None
        if self.token.refresh_token is not None or self.token.expires_at is None:
            return None
        return max(self.token.expires_at - now, 1.0)

    def began_with(self, seed: str) -> bool:
        """Whether a program that is configured with *seed* shares this record.

        :param seed: the hash of a first refresh token.
        """
        if self.origin is None and not self.seeds:
            return seed in self.spent  # the grant began before origins were recorded
        return seed == self.origin or seed in self.seeds

    def placed(self, spent: str) -> str:
        """The hash of this record's refresh token, with the record's place in its login.

        A store that remembers a later place of the same login knows that the refresh token is
        spent, however many others were spent since.
        """
        login = hashlib.sha256(f"{self.salt}\0{self.begun!r}".encode()).hexdigest()[:16]
        return f"{spent}/{login}/{self.generation}"

    def is_grant_over(self, now: float) -> bool:
        """Whether nothing can continue the grant, so that another grant may replace it."""
        if self.token is None or self.token.refresh_token is None:
            return self.is_expired(now)
        # Usually there are no tombstones, and nothing to hash.
        return bool(self.tombstones) and (
            self.tombstone(digest(self.salt, "refresh_token", self.token.refresh_token)) is not None
        )

    def is_blank(self) -> bool:
        """Whether the record holds nothing that its owner could miss."""
        return not (self.token or self.intent or self.tombstones or self.spent)

    # --- transitions ---------------------------------------------------------------------

    def with_intent(
        self, credential: str, now: float, waiter: Waiter, key: str | None = None
    ) -> Self:
        """A credential is about to be presented, for the first time or again.

        :param waiter: the process that waits for the answer.
        :param key: a new key, which is used unless an earlier presentation had one.
        """
        intent = self.intent
        if intent is None or intent.credential != credential:
            intent = Intent(credential, now, 0)
        others = (other for other in intent.awaited if now < other.until + STORE_AWAY)
        return self._replace(
            intent=intent._replace(
                attempt=intent.attempt + 1, awaited=(*others, waiter), key=intent.key or key
            )
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
        """The server answered a presentation with *token*.

        :param spent: the hash of the spent refresh token, if it may be provided again.
        :param intent: replaces :attr:`intent`.
        :param begins: whether a new grant begins, because the credential came from outside this
            record.
        :param origin: the hash of the refresh token from which the new grant descends.
        :param seeds: replaces :attr:`seeds` for a new grant.
        """
        replaced = self.replaced
        # A program with a wider scope is not kept from widening it again.
        if self.token is not None and not self.satisfies(requested):
            replaced = (*replaced, Replaced(self.requested, now))[-_REPLACED_KEPT:]
        return self._replace(
            token=token,
            requested=requested,
            replaced=replaced,
            intent=intent,
            backoff=None,
            origin=self.origin if origin is None else origin,
            seeds=self.seeds if origin is None else seeds,
            account=None if begins else self.account,
            spent=self.spent if spent is None or spent in self.spent else (*self.spent, spent),
            generation=self.generation + 1,
            begun=_after(self.begun, now) if begins or self.token is None else self.begun,
            written=_after(self.written, now),
        )

    def with_adopted_token(
        self,
        token: Token,
        requested: Mapping[str, str],
        now: float,
        seeds: tuple[str, ...] = (),
        account: Account | None = None,
    ) -> Self:
        """A token was obtained elsewhere, by a login or from another library's cache: a new grant.

        :param seeds: replaces :attr:`seeds`.
        :param account: replaces :attr:`account`.
        """
        refresh = token.refresh_token
        alive = None if refresh is None else digest(self.salt, "refresh_token", refresh)
        return self.without_token(now)._replace(
            requested=requested,
            token=token,
            # A refused refresh token stays refused; a password may be valid by now.
            tombstones=tuple(
                stone
                for stone in self.tombstones
                if stone.kind == "refresh_token" and stone.credential != alive
            ),
            origin=None if refresh is None else spent_hash(refresh),
            seeds=seeds,
            account=account,
        )

    def without_tombstone(self, credential: str) -> Self:
        """Allow another attempt with the credential that has this hash."""
        if self.tombstone(credential) is None:
            return self
        kept = [stone for stone in self.tombstones if stone.credential != credential]
        return self._replace(tombstones=tuple(kept))

    def without_refusals(self) -> Self:
        """Allow another attempt with every credential and request, at once."""
        distrust = self.distrust if self.is_rejected else None
        return self._replace(tombstones=(), backoff=None, distrust=distrust, replaced=())

    def without_token(self, now: float) -> Self:
        """Remove the token.  Spent and refused credentials stay recorded."""
        return self._replace(
            token=None,
            replaced=(),
            intent=None,
            backoff=None,
            distrust=None,
            origin=None,
            seeds=(),
            account=None,
            generation=self.generation + 1,
            begun=_after(self.begun, now),
            written=_after(self.written, now),
        )

    def logged_out(self, now: float) -> Self:
        """Remove the token, and the name of its user.

        Without a user, the record is another owner's, unless it is blank.  So the refusals go, and
        the store has to remember what was spent.
        """
        left = self.without_token(now)
        if "user" not in self.owner:
            return left
        owner = {name: value for name, value in self.owner.items() if name != "user"}
        return left._replace(owner=owner, tombstones=(), spent=())

    def restored_over(self, found: Self) -> Self:
        """This record, in place of *found*, the earlier record to which the slot was set back.

        The refusals and the backoff that other processes have since added to *found* are kept.  So
        is an intent on the refresh token of this record, which the server may keep for long.
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
        intent, theirs = self.intent, found.intent
        refresh = digest(self.salt, "refresh_token", self.token.refresh_token or "")
        if theirs is not None and theirs.credential == refresh:
            base = intent or theirs._replace(attempt=0, awaited=())
            count, awaited = base.attempt + theirs.attempt, (*base.awaited, *theirs.awaited)
            intent = base._replace(attempt=count, awaited=awaited)
        stones = [*self.tombstones, *stones][-_TOMBSTONES_KEPT:]
        return self._replace(tombstones=tuple(stones), backoff=backoff, intent=intent)

    def with_refusal(
        self, credential: str, kind: str, now: float, *, error: str | None, cause: str
    ) -> Self:
        """The server refused the credential that :meth:`with_intent` announced."""
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
        """The credential was certainly not spent: restore the intent of *before*, and back off.

        An intent is valid only with its salt, and the slot may have been emptied since.
        """
        intent = before.intent if before.salt == self.salt else None
        return self._replace(intent=intent, backoff=backoff)

    def with_unknown_outcome(self, backoff: Backoff | None, waiter: Waiter | None = None) -> Self:
        """The credential may have been spent: keep the intent.

        :param waiter: the process that no longer waits for the answer.
        """
        intent = self.intent
        if intent is not None and waiter is not None:
            intent = intent.without(waiter, is_unknown=True)
        return self._replace(intent=intent, backoff=backoff)

    def with_distrust(self, token: Token, now: float, u: float) -> Self:
        """*token* was refused when it was new: do not renew it for a while.

        If one token after the other is refused, the time grows as that of a backoff does.

        :param u: a random number from [0, 1].
        """
        step, last = 1, self.distrust
        if last is not None and now < last.set_at + last.duration + _DISTRUST_REMEMBERED:
            step = last.step + 1
        return self._replace(
            distrust=Backoff(now, backoff_duration(step, u), step, token.fingerprint)
        )

    def with_rejection(self, token: Token, now: float) -> Self:
        """The API refused *token*, and nothing could renew it.

        An earlier version reads this as a distrust that is over.
        """
        return self._replace(distrust=Backoff(now, 0.0, 0, token.fingerprint, "refused"))

    # --- to and from JSON ----------------------------------------------------------------

    def to_document(self) -> dict[str, Any]:
        """The record as a JSON object without empty fields."""
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
            if self.intent.key is None:
                del document["intent"]["key"]
        for name in ("account", "backoff", "distrust"):
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

        :raises ValueError: if the document is not a record, or requires a later format than this
            version knows.
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
                account=_each(partial(_made, Account), document.get("account")),
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
    """The salted hash that stands for a credential in a record.

    Passwords can be guessed, so their hash is slow (PBKDF2, RFC 8018).  Refresh tokens are random.
    """
    text = f"{kind}\0{secret}".encode()
    if kind == "refresh_token":
        return hashlib.sha256(salt.encode() + b"\0" + text).hexdigest()[:32]
    return hashlib.pbkdf2_hmac("sha256", text, salt.encode(), 200_000, 16).hex()


def load() -> None:
    """Make OpenSSL load the algorithm that :func:`digest` needs.

    The first use releases the GIL and takes locks of OpenSSL.  A child that is forked meanwhile
    could compute no digest.
    """
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1)


def spent_hash(secret: str) -> str:
    """The hash by which a spent refresh token is remembered.

    It has no salt, because it must be found after the record is lost.  A refresh token is long and
    random.
    """
    return hashlib.sha256(b"tokenadapter spent\0" + secret.encode()).hexdigest()[:32]


# The keys at the top level of a document.
_KEYS = frozenset(Record.__annotations__) - {"others"}


def _includes(wider: Mapping[str, str], requested: Mapping[str, str]) -> bool:
    """Whether *wider* requests the same as *requested*, apart from more words in its scope."""
    # Without a scope, the server grants what it likes.  A damaged record may have no text.
    words = [set(str(one.get("scope", "")).split()) for one in (requested, wider)]
    is_same = {**requested, "scope": ""} == {**wider, "scope": ""}
    return dict(requested) == dict(wider) or (is_same and set() < words[0] <= words[1])


def _after(time: float, now: float) -> float:
    # Later than *time* even if the clock was set back, or that of another machine is behind.
    return max(now, time + _LEAST_DIFFERENCE)


def _intent(fields: Mapping[str, Any]) -> Intent:
    waiters = tuple(_made(Waiter, item) for item in fields.get("awaited", ()))
    intent: Intent = _made(Intent, {**fields, "awaited": waiters})
    return intent


def _made(kind: Any, fields: Mapping[str, Any]) -> Any:
    fields = {name: value for name, value in fields.items() if name in kind.__annotations__}
    for name, value in fields.items():
        is_number = isinstance(value, (int, float)) and abs(value) < _LARGEST_NUMBER
        if is_number != (name in _NUMBERS):
            raise TypeError(name)
        if name in _SHOWN and isinstance(value, str):
            fields[name] = one_line(value, _LONGEST_SHOWN_TEXT)
    return kind(**fields)


def _each(read: Any, value: Any) -> Any:
    return None if value is None else read(value)
