"""What a flow of :class:`~tokenadapter.TokenAuth` makes of the classes of httpx, or of httpx2.

The two libraries have the same classes under other names.  What both have in common stands here in
classes of our own; :class:`Parts` joins them with the classes of a library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from time import monotonic
from types import ModuleType
from typing import Any, ClassVar, Self

from tokenadapter.http import bodies, responses
from tokenadapter.http.bodies import Body, NotReplayable

__all__ = ["Outgoing", "Parts", "copy_of", "is_bounded", "parts_of"]


class SignedHeaders:
    """Headers with a token that no copy takes along.

    httpx copies the headers of a request for the next hop of a redirect, wherever that hop leads,
    and without asking an ``Auth``.  Who reads these headers finds the token: the transport, a mock,
    an event hook.  Who copies them (``Headers(headers)``, ``headers.copy()``) gets the others.

    :param bare: the headers without the token; they are changed as these are.
    :param full: the headers with it.
    """

    def __init__(self, bare: Any, full: Any) -> None:
        self._bare = bare
        self._full = full

    @property
    def _list(self) -> Any:
        # What a copy is made from: the one internal of httpx on which a secret depends.  Parts()
        # looks whether it is so.
        return self._bare._list

    @property
    def raw(self) -> Any:
        return self._full.raw

    @property
    def encoding(self) -> Any:
        return self._full.encoding

    @encoding.setter
    def encoding(self, encoding: str) -> None:
        self._bare.encoding = self._full.encoding = encoding

    def added(self) -> list[tuple[bytes, bytes]]:
        """What the bare headers do not have."""
        known = self._bare.raw
        return [item for item in self._full.raw if item not in known]

    def keys(self) -> Any:
        return self._full.keys()

    def values(self) -> Any:
        return self._full.values()

    def items(self) -> Any:
        return self._full.items()

    def multi_items(self) -> Any:
        return self._full.multi_items()

    def get(self, key: str, default: Any = None) -> Any:
        return self._full.get(key, default)

    def get_list(self, key: str, split_commas: bool = False) -> Any:
        return self._full.get_list(key, split_commas)

    def update(self, headers: Any = None) -> None:
        self._bare.update(headers)
        self._full.update(headers)

    def __getitem__(self, key: str) -> Any:
        return self._full[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._bare[key] = self._full[key] = value

    def __delitem__(self, key: str) -> None:
        self._bare.pop(key, None)
        del self._full[key]

    def __contains__(self, key: object) -> bool:
        return key in self._full

    def __iter__(self) -> Iterator[str]:
        return iter(self._full)

    def __len__(self) -> int:
        return len(self._full)

    def __eq__(self, other: object) -> Any:
        return self._full == other

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._bare)

    def __reduce__(self) -> Any:
        return type(self._bare), (self._bare.raw,)


class Outgoing:
    """A copy of a request on its way out, with a token; all but the headers is shared."""

    _parts: Parts
    __dict__: dict[str, Any]

    @classmethod
    def of(cls, request: Any, full: Any, stream: Any) -> Self:
        """A copy of *request* with the headers *full*."""
        outgoing = cls.__new__(cls)
        fields = outgoing.__dict__
        fields.update(request.__dict__)
        fields["headers"] = cls._parts.signed_headers(request.headers, full)
        fields["stream"] = stream
        fields["extensions"] = extensions = dict(request.extensions)
        timeout = extensions.get("timeout")
        if timeout is not None:
            extensions["timeout"] = dict(timeout)  # the timeouts of a refusal are shorter
        return outgoing

    @property
    def headers(self) -> Any:
        return self.__dict__["headers"]

    @headers.setter
    def headers(self, headers: Any) -> None:
        # Transports that trace requests put a changed copy in the place of the headers.
        mine = self.__dict__["headers"]
        if isinstance(mine, SignedHeaders) and not isinstance(headers, SignedHeaders):
            full = self._parts.library.Headers(headers)
            for name, value in mine.added():
                full[name.decode("latin-1")] = value.decode("latin-1")
            headers = self._parts.signed_headers(headers, full)
        self.__dict__["headers"] = headers

    def drop_token(self, request: Any) -> None:
        """Become what *request*, the caller's own, is."""
        self.__dict__.update(request.__dict__)


class _Sent:
    """A body as it is sent: each sending begins where the body stood."""

    def __init__(self, body: Body, consumed: Callable[[], Exception]) -> None:
        self.body = body
        self._consumed = consumed
        self._has_begun = False

    def _begin(self) -> Any:
        if self._has_begun:
            try:
                self.body.rewind()
            except NotReplayable:
                # As httpx says where it follows a redirect with such a body.
                raise self._consumed() from None
        self._has_begun = True
        return self.body.payload


class _SyncSent(_Sent):
    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._begin():  # noqa: UP028 - which would close what belongs to the caller
            yield chunk


class _AsyncSent(_Sent):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._begin():
            yield chunk


class Held:
    """The body of an answer, the beginning of which has been read ahead.

    :ivar is_whole: whether all of it has been read.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.chunks: list[bytes] = []
        self.is_whole: bool = False
        self._size = 0
        self._rest: Any = None
        self._failure: Exception | None = None

    @property
    def elapsed(self) -> Any:
        """As httpx2 looks for it."""
        return getattr(self.stream, "elapsed", None)

    @property
    def content(self) -> bytes | None:
        """The encoded body, if it is whole."""
        return b"".join(self.chunks) if self.is_whole else None

    @property
    def is_begun(self) -> bool:
        """Whether it has been read ahead before."""
        return self._rest is not None

    def empty(self) -> None:
        """Be an empty body: the rest was given up."""
        self.chunks.clear()
        self.is_whole, self._failure = True, None

    def _is_enough(self, chunk: bytes, limit: int, deadline: float) -> bool:
        self.chunks.append(chunk)
        self._size += len(chunk)
        return self._size > limit or monotonic() >= deadline


class SyncHeld(Held):
    """The same for a client that blocks."""

    def read(self, limit: int, seconds: float, errors: tuple[type[Exception], ...]) -> None:
        """Read ahead, as far as the limits allow."""
        deadline = monotonic() + seconds
        self._rest = iter(self.stream)
        try:
            for chunk in self._rest:
                if self._is_enough(chunk, limit, deadline):
                    return
            self.is_whole = True
        except errors as failure:
            self._failure = failure

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self._failure is not None:
            raise self._failure
        if not self.is_whole:
            yield from self._rest

    def close(self) -> None:
        self.stream.close()


class AsyncHeld(Held):
    """The same for a client of an event loop."""

    async def read(self, limit: int, seconds: float, errors: tuple[type[Exception], ...]) -> None:
        """Read ahead, as far as the limits allow."""
        deadline = monotonic() + seconds
        self._rest = aiter(self.stream)
        try:
            async for chunk in self._rest:
                if self._is_enough(chunk, limit, deadline):
                    return
            self.is_whole = True
        except errors as failure:
            self._failure = failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self._failure is not None:
            raise self._failure
        if not self.is_whole:
            async for chunk in self._rest:
                yield chunk

    async def aclose(self) -> None:
        close = getattr(self._rest, "aclose", None)
        if close is not None and not self.is_whole:
            await close()
        await self.stream.aclose()


class Parts:
    """Our classes joined with those of *library*, httpx or httpx2.

    :raises ImportError: if the library is not as known: then a redirect could take a token along.
    """

    def __init__(self, library: ModuleType) -> None:
        self.library: Any = library
        self.errors: tuple[type[Exception], ...] = (library.HTTPError, library.StreamError)
        self.signed_headers: Any = _joined(SignedHeaders, library.Headers)
        self._sync_sent: Any = _joined(_SyncSent, library.SyncByteStream)
        self._async_sent: Any = _joined(_AsyncSent, library.AsyncByteStream)
        self._sync_held: Any = _joined(SyncHeld, library.SyncByteStream)
        self._async_held: Any = _joined(AsyncHeld, library.AsyncByteStream)
        self._outgoing: dict[type, type[Outgoing]] = {}
        probe = self.signed_headers(library.Headers(), library.Headers({"authorization": "x"}))
        request = library.Request("GET", "https://a.example/", headers=probe)
        if "authorization" in library.Headers(probe) or "authorization" in request.headers:
            raise ImportError(
                f"{library.__name__} {library.__version__} copies headers in a way that this "
                "version of tokenadapter does not know: a redirect could take a token along. "
                "Install a newer tokenadapter."
            )

    def outgoing(self, request: Any, full: Any, stream: Any) -> Outgoing:
        """A copy of *request* with the headers *full*, which no redirect takes along."""
        kind = type(request)
        made = self._outgoing.get(kind)
        if made is None:
            made = self._outgoing.setdefault(kind, _joined(Outgoing, kind, _parts=self))
        return made.of(request, full, stream)

    def body(self, request: Any, limit: int, *, is_async: bool) -> tuple[Any, Body | None]:
        """The stream of *request*, made ready to be sent again, and its body; no body if the
        stream repeats as it is.

        :param limit: how many bytes of a body that cannot be rewound are recorded.
        """
        stream, library = request.stream, self.library
        if isinstance(stream, library.ByteStream):
            return stream, None
        if isinstance(stream, _Sent):
            return stream, stream.body
        if not isinstance(stream, library.AsyncByteStream if is_async else library.SyncByteStream):
            return stream, None  # the client refuses it
        body = _rewindable(stream)
        if body is None:
            record = bodies.AsyncRecorder if is_async else bodies.Recorder
            body = bodies.recorded(stream, record, limit)
        sent = self._async_sent if is_async else self._sync_sent
        return sent(body, library.StreamConsumed), body

    def held(self, response: Any, *, is_async: bool) -> Any:
        """The body of *response*, ready to be read ahead; it stays to be read."""
        if not isinstance(response.stream, Held):
            held = self._async_held if is_async else self._sync_held
            response.stream = held(response.stream)
        return response.stream

    def add_cookies(self, request: Any, response: Any) -> Any:
        """*request* with the cookies that *response* set, for the replay."""
        if "set-cookie" not in response.headers:
            return request
        probe = self.library.Request(request.method, request.url)
        self.library.Cookies(response.cookies).set_cookie_header(probe)
        named = probe.headers.get("cookie")
        if not named:
            return request
        cookies = {**_cookies(request.headers.get("cookie", "")), **_cookies(named)}
        twin = copy_of(request, self.library.Headers(request.headers))
        twin.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return twin


def copy_of(request: Any, headers: Any) -> Any:
    """A copy of *request* with other *headers*; all else is shared."""
    copy = object.__new__(request.__class__)
    copy.__dict__.update(request.__dict__)
    copy.headers = headers
    return copy


def is_bounded(response: Any, content: bytes) -> bool:
    """Whether the encoded body *content* may be decoded: httpx decodes without a limit."""
    encodings = response.headers.get("content-encoding", "").lower().split(",")
    known = {"", "identity", *responses.DECODERS}
    if not known.issuperset(encoding.strip() for encoding in encodings):
        return False
    return responses.bounded_content(content, response.headers) is not None


def _joined(ours: type, theirs: Any, **names: Any) -> Any:
    return type(theirs.__name__, (ours, theirs), {"__module__": theirs.__module__, **names})


def _rewindable(stream: Any) -> Body | None:
    """The body behind *stream*, if it is nothing but files and bytes."""
    fields = getattr(stream, "fields", None)
    if isinstance(fields, list):  # multipart: httpx itself rewinds the files
        sources = [field.file for field in fields if hasattr(field, "file")]
    elif hasattr(stream, "_stream") and not hasattr(stream, "__aiter__"):
        sources = [stream._stream]  # without this internal it would be recorded
    else:
        return None
    found = [bodies.prepare(source, limit=0) for source in sources]
    if any(body.one_shot for body in found):
        return None

    def rewind() -> None:
        for body in found:
            body.rewind()

    return Body(stream, rewind=rewind)


def _cookies(header: str) -> dict[str, str]:
    pairs = (pair.strip().partition("=") for pair in header.split(";") if pair.strip())
    return {name: value for name, _, value in pairs}


@cache
def parts_of(library: ModuleType) -> Parts:
    """The same for each library."""
    return Parts(library)
