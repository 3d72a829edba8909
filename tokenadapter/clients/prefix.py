"""Decide which URLs may get a token: only those under the API's base URL.

Several parsers read a URL before a server acts on it.  requests takes the host from
:func:`urllib.parse.urlsplit`, urllib3 from :func:`urllib3.util.parse_url`.  Proxies before the API
    may decode the path again, merge slashes, or drop ``;parameters``.  A URL is under the prefix
    only if none of these readings leads outside it.

A URL also has several spellings, which this module compares too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from requests.models import PreparedRequest
from urllib3.util import parse_url

from tokenadapter.late_imports import late
from tokenadapter.values import is_loopback

if TYPE_CHECKING:
    import unicodedata

    from tokenadapter import errors
    from tokenadapter.protocols import Grant

else:
    errors = late("tokenadapter.errors")
    unicodedata = late("unicodedata")

__all__ = [
    "OwnUrls",
    "Prefix",
    "names_its_host",
    "resource",
]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

# Path segments that all servers read alike: without "%" and ";", and without a leading dot.
_PLAIN_SEGMENTS = r"(?:/(?!\.)[A-Za-z0-9_.~!$&'()*+,:=@-]*+)*+"

# Text that an honest path never contains after the last decoding: control characters, and encodings
# that only a lenient decoder reads, overlong UTF-8 (%C0%AE for ".") and %u002e.
_TRICKS = "[\x00-\x1f\x7f]|[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]|%u[0-9A-Fa-f]{4}"
_MOST_DECODINGS = 8
# Bytes of a body that are searched for a token request.
_LONGEST_FORM = 65536
# Slashes, backslashes and a full stop that look like the ASCII ones.  Lenient servers take them for
# those, although no normal form of Unicode does.
_LOOK_ALIKES = str.maketrans("\u2044\u2215\u29f8\u2216\u29f5\u29f9\u3002", "///\\\\\\.")


class Prefix:
    """An API's base URL, which decides which URLs are under it.

    ``https://api.example.com/v1`` covers itself, with or without a query, and all URLs that begin
    with ``https://api.example.com/v1/``.  It does not cover ``/v10``, or another scheme, host or
    port.  The path is case-sensitive.  A closing slash makes no difference.  A prefix without a
    path covers its whole host.

    :param url: the base URL: ``https``, a host, and optionally a port and a path.
    :param allow_http: accept plain ``http`` to a host other than this machine, although everyone
        on the way can then read the token (RFC 6750 section 5.3 asks for TLS).
    :raises UnsafeTarget: if the URL is not such a base URL, or is ambiguous.
    :ivar url: the base URL as requests spells it (host in lower case and IDNA-encoded,
        percent-encoding normalised), without the default port and without a closing slash.
    :ivar stays_here: whether requests must not leave this machine, not even to a proxy, which could
        read the token: the URL is plain ``http``, which is accepted only for the loopback host.
    :ivar near_misses: the beginnings of URLs that miss the prefix only by the spelling of its host:
        the other scheme, another port, with or without ``www.``, another name of this machine.
    :ivar matches: the fast part of :meth:`covers`, normally one call of a compiled pattern.  A
        match means yes, ``None`` means that the URL must be parsed.
    """

    __slots__ = ("_origin", "_path", "matches", "near_misses", "stays_here", "url")

    near_misses: tuple[str, ...]
    url: str
    stays_here: bool
    matches: Callable[[str], re.Match[str] | None]

    def __init__(self, url: str, *, allow_http: bool = False) -> None:
        # The message does not repeat the URL, which may contain a secret in its userinfo or query.
        if not isinstance(url, str):
            raise TypeError(f"prefix must be a str, not {type(url).__name__}")
        parts = _parts(url)
        if parts is None:
            raise _unsafe(
                "A prefix begins with https:// and a host: give the API's base URL in full, "
                "such as https://api.example.com/v1."
            )
        _, authority, path, rest = parts
        if "@" in authority:
            raise _unsafe(
                "The prefix has a user name or password before its host: remove everything up to "
                "the '@', and give credentials to the token source."
            )
        if rest:
            raise _unsafe(
                "The prefix has a query or fragment, which cannot narrow down where a token goes: "
                "end it before the '?' or '#'."
            )
        if any(char <= " " or char in "\\\x7f" for char in url):
            raise _unsafe(
                "The prefix contains a backslash, a space or a control character: remove it."
            )
        try:
            plain = all(_descent(name) == 1 for name in path.removesuffix("/").split("/")[1:])
            prepared = PreparedRequest()
            prepared.prepare_url(url, None)
            self._origin = scheme, host, port = _origin(prepared.url or "")
        except ValueError as error:
            raise _unsafe(f"The prefix cannot be used: {error}") from error
        if not plain:
            raise _unsafe(
                "The path of the prefix has a '.', '..' or empty segment, plain or encoded: write "
                "it as it is without them."
            )
        if scheme == "http" and not allow_http and not is_loopback(host):
            raise _unsafe(
                f"http://{host} would carry the token in clear text: use https, or pass "
                "allow_http=True if everyone on the way to that host may read it."
            )
        self.stays_here = scheme == "http" and not allow_http
        self._path = prepared.path_url.removesuffix("/")
        port_text = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
        self.url = f"{scheme}://{host}{port_text}{self._path}"
        self.near_misses = tuple(
            f"{scheme}://{name}{end}"
            for scheme in _DEFAULT_PORTS
            for name in _spellings(host)
            for end in ":/"
        )
        self.matches = self._leave_open

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def covers(self, url: str) -> bool:
        """Whether a request to the URL may carry the token.

        The result is exact for URLs that requests prepared.  Any other text is not covered if it
        cannot be parsed, has a userinfo, or spells the path of the prefix differently.
        """
        return self.matches(url) is not None or self.covers_when_parsed(url)

    def is_near_miss(self, url: str) -> bool:
        """Whether a URL misses the prefix only by the spelling of its host."""
        if not url.lower().startswith(self.near_misses):
            return False
        try:
            origin = _origin(url)
        except ValueError:
            return False
        return origin != self._origin and origin[1] in _spellings(self._origin[1])

    def has_same_origin(self, url: str) -> bool:
        """Whether a URL has the scheme, host and port of the prefix."""
        try:
            return _origin(url) == self._origin
        except ValueError:
            return False

    def mounts(self) -> tuple[str, ...]:
        """The spellings of the prefix for ``Session.adapters``, the most frequent first.

        They match every covered URL that requests prepared.  A path is also mounted without its
        closing slash, which matches ``/v10`` as well as ``/v1``; :meth:`covers` makes the final
        decision.  A bare host is not mounted: ``https://api.example.com`` would match
        ``https://api.example.com.evil.com/`` and take it from the session's own adapter.  The
        spellings with a slash replace an adapter that was mounted there before.
        """
        scheme, host, port = self._origin
        explicit = f"{scheme}://{host}:{port}{self._path}"
        slashed, bare = (f"{self.url}/", f"{explicit}/"), (self.url, explicit)
        pairs = zip(slashed, bare, strict=True) if self._path else [slashed]
        return tuple(dict.fromkeys(key for pair in pairs for key in pair))

    def covers_when_parsed(self, url: str) -> bool:
        """The thorough part of :meth:`covers`, for URLs that :attr:`matches` does not match."""
        parts = _parts(url)
        if parts is None:
            return False
        scheme, authority, path, _ = parts
        # "https://api.example.com\@evil.com/" is on the first host for parse_url, on the second
        # for urlsplit.  Without these two characters they agree, or parse_url fails.
        if "@" in authority or "\\" in authority:
            return False
        try:
            if _origin(f"{scheme}://{authority}") != self._origin:
                return False
            if not self._path:
                return True
            if "\\" in path or not f"{path}/".startswith(f"{self._path}/"):
                return False
            below = path[len(self._path) :].split("/")
            return min(accumulate(map(_descent, below))) >= 0
        except ValueError:
            return False

    def _leave_open(self, url: str) -> None:
        # For the first URL: a cron job sends one request, and parsing is faster than compiling.
        self.matches = self._compile_and_match

    def _compile_and_match(self, url: str) -> re.Match[str] | None:
        plain_rest = _PLAIN_SEGMENTS + r"(?:[?#]|\Z)" if self._path else r"(?:[/?#]|\Z)"
        self.matches = match = re.compile(re.escape(self.url) + plain_rest).match
        return match(url)


def _unsafe(message: str) -> errors.UnsafeTarget:
    return errors.UnsafeTarget(message)


def _parts(url: str) -> tuple[str, str, str, str] | None:
    """Scheme, authority, path and the rest of a URL; ``None`` if it is not an HTTP URL.

    Without a pattern, which each start of a cron job would have to compile.
    """
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() not in _DEFAULT_PORTS:
        return None
    resource = rest.partition("#")[0].partition("?")[0]
    authority, slash, path = resource.partition("/")
    return scheme, authority, slash + path, rest[len(resource) :]


def _spellings(host: str) -> tuple[str, ...]:
    """The names that people use for the same host."""
    if host in _LOOPBACK:
        return _LOOPBACK
    return host, host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port to which urllib3 connects for the URL."""
    scheme, _, host, port, *_ = parse_url(url)
    if not scheme or not host or "%" in host:
        raise ValueError("it has no host, or one with a zone or percent-encoding.")
    return scheme, host, _DEFAULT_PORTS[scheme] if port is None else port


def _descent(segment: str) -> int:
    """How many levels a path segment leads down, in the reading that leads down least.

    A name counts 1.  A segment that a server may drop (empty, ``.``, only parameters) counts 0.
    Each ``..`` that can be read in the segment counts -1, and then the names beside it do not
    count.
    """
    # The usual segments, without the patterns below, which each start would have to compile.
    if not segment:
        return 0
    name = segment.replace("-", "").replace("_", "").replace(".", "")
    if name.isascii() and name.isalnum():
        return 1
    for _ in range(_MOST_DECODINGS):
        encoded, decoded = segment, unquote_to_bytes(segment)
        if re.search(_TRICKS, decoded.decode("latin-1")):
            raise ValueError("its path hides a control character or an overlong encoding.")
        segment = _folded(decoded.decode("utf-8", "replace"))
        if segment == encoded:
            break
    else:
        raise ValueError("its path is percent-encoded too many times over.")
    names = [re.split("[;?#]", part)[0] for part in re.split(r"[/\\]", segment)]
    ups = sum(name.count(".") > 1 and not name.strip(". ") for name in names)
    return -ups or int(re.split("[;?#]", segment)[0].strip("/\\. ") != "")


def _folded(text: str) -> str:
    """*text* with ASCII for characters that a server may take for it, such as full-width dots."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)


def names_its_host(url: str, named: object) -> bool:
    """Whether a ``Host`` header names the host of a request's URL.

    A connection leads to the host of the URL.  A request whose header names another host may be
    routed elsewhere from there.
    """
    try:
        return parse_url(f"//{named!s}").host == parse_url(url).host
    except ValueError:
        return False


# --- spellings ---------------------------------------------------------------------------


def resource(url: str) -> str:
    """The URL without query, fragment and default port."""
    scheme, mark, rest = url.partition("#")[0].partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    host = host.removesuffix(":443" if scheme == "https" else ":80")
    return f"{scheme}{mark}{host}{slash}{path}"


class OwnUrls:
    """The URLs that a grant itself requests.  No request to them gets a token.

    A grant with an issuer learns some of them when it reads the issuer's metadata, and then has
    another sequence of URLs.

    :param covers: which of them matter: those under a prefix.  By default all.
    :ivar may_match: ``False`` if no URL is or will be one of them.
    """

    __slots__ = ("_covers", "_grant", "_spelt", "_urls", "may_match")

    def __init__(self, grant: Grant, covers: Callable[[str], bool] | None = None) -> None:
        self._grant = grant
        self._covers = covers
        self._urls: Sequence[str] = grant.urls
        # As resource() spells them.
        self._spelt: frozenset[str] = frozenset(self._spell(grant.urls))
        self.may_match: bool = getattr(grant, "discovers", False) or bool(self._spelt)

    def __contains__(self, url: str) -> bool:
        if not self.may_match:
            return False
        urls = self._grant.urls
        if urls is not self._urls:
            self._spelt = frozenset(self._spell(urls))
            self._urls = urls
        return resource(url) in self._spelt

    def _spell(self, urls: Sequence[str]) -> Iterator[str]:
        for url in urls:
            prepared = PreparedRequest()
            prepared.prepare_url(url, None)
            spelt = prepared.url or ""
            if self._covers is None or self._covers(spelt):
                yield resource(spelt)

    def may_include(self, method: str | None, body: object) -> bool:
        """Whether a request may go to an endpoint that only the issuer's metadata names.

        It is a form that looks like a request for a token, or for its revocation.
        """
        return (
            getattr(self._grant, "discovers", False)
            and method == "POST"
            and _is_token_request(body)
        )

    def include(self, url: str) -> bool:
        """Whether *url* is one of them.  The grant reads the metadata, unless it has done so.

        If it cannot, the URL counts as one of them.
        """
        grant: Any = self._grant
        try:
            grant.discover()
        except errors.TokenError:
            return True
        return url in self


def _is_token_request(body: object) -> bool:
    """Whether *body* is a form that asks for a token, or revokes one (RFC 6749 section 4, RFC 7009
    section 2.1)."""
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    return isinstance(body, bytes) and any(
        piece.startswith((b"grant_type=", b"token=")) for piece in body[:_LONGEST_FORM].split(b"&")
    )
