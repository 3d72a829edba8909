"""From an API to the authorization server of its users (RFC 9728).

An API that is called without a token answers 401, and names its metadata.  Without that, the
metadata is at a URL that follows from the API's own.  It is used only if it is the API's
(section 3.3): otherwise an API could have a user log in for another API, and receive that token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tokenadapter.late_imports import late
from tokenadapter.sources.discovery import Issuer, Published, texts
from tokenadapter.values import Value

if TYPE_CHECKING:
    from tokenadapter.http import challenges
    from tokenadapter.sources import reply
else:
    challenges = late("tokenadapter.http.challenges")
    reply = late("tokenadapter.sources.reply")

__all__ = ["ProtectedResource", "ResourceMetadata", "well_known", "without_slash"]

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_ALGORITHMS = "dpop_signing_alg_values_supported"


class ResourceMetadata(Value):
    """What an API says of itself, under the names of RFC 9728 section 2."""

    resource: str
    """The identifier of the API: the ``resource`` of token requests (RFC 8707)."""
    authorization_servers: tuple[str, ...]
    """The issuers whose tokens the API accepts."""
    scopes_supported: tuple[str, ...] = ()
    scope: str | None = None
    """The scope that the API's challenge asks for (RFC 6750 section 3)."""
    dpop_bound_access_tokens_required: bool = False
    """Whether the API accepts only tokens that are bound to a key (RFC 9449)."""
    dpop_signing_alg_values_supported: tuple[str, ...] = ()
    """The algorithms of proofs that the API accepts.  Empty if it does not say."""


class ProtectedResource(Published[ResourceMetadata]):
    """An API.

    :param url: its base URL, or one below it.  A request without a token is sent there.
    """

    kind = "API"
    advice = (
        "Check the URL. If the API publishes no metadata (RFC 9728), use RefreshToken with the "
        "issuer or the token_url that its documentation names."
    )

    def __init__(self, url: str, **connection: Any) -> None:
        super().__init__("url", url, **connection)
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        candidates = map(well_known, (url, url.rstrip("/"), origin))
        self.locations: tuple[str, ...] = tuple(dict.fromkeys(candidates))
        self._scope: str | None = None

    def _candidates(self, end: float) -> Iterator[str]:
        named = self._named((end - time.monotonic()) / 2)
        if named is not None:
            yield named
        yield from (url for url in self.locations if url != named)

    def _named(self, seconds: float) -> str | None:
        """The URL of the metadata that the API names in a 401 (RFC 9728 section 5.1)."""
        answer = self.endpoint.exchange("GET", {"Accept": "*/*"}, None, seconds=seconds)
        if isinstance(answer, reply.NoReply) or answer.status != 401:
            return None
        for challenge in challenges.parse_challenges(answer.headers.get("WWW-Authenticate", "")):
            named = challenge.params.get("resource_metadata")
            if named is not None:
                self._scope = challenge.params.get("scope")
                try:
                    self._check_endpoint("resource_metadata", named)
                except ValueError:
                    return None
                return named
        return None

    def _checked(self, location: str, said: Mapping[str, Any]) -> ResourceMetadata:
        resource = said.get("resource")
        if not isinstance(resource, str) or not self._is_ours(resource, location):
            raise ValueError(f"it is the metadata of another resource, {resource!r:.200}")
        servers = texts("authorization_servers", said.get("authorization_servers", []))
        if not servers:
            raise ValueError("authorization_servers is missing")
        for server in servers:
            self._check_endpoint("authorization_servers", server)
            Issuer(server, **self._connection)
        return ResourceMetadata(
            resource,
            servers,
            texts("scopes_supported", said.get("scopes_supported") or []),
            self._scope,
            said.get("dpop_bound_access_tokens_required") is True,
            texts(_ALGORITHMS, said.get(_ALGORITHMS) or []),
        )

    def _is_ours(self, resource: str, location: str) -> bool:
        """Whether *location* may say what the API is if it calls the API *resource*.

        An API may describe itself from any location.  A resource whose URL is shorter is a whole
        host or a part of it: only its own well-known URL may describe it.
        """
        url = self.endpoint.url
        if "#" in resource:
            return False  # RFC 9728 section 1.2
        if without_slash(resource) == without_slash(url):
            return True
        ours, theirs = urlsplit(url), urlsplit(resource)
        is_above = f"{ours.path}/".startswith(f"{theirs.path.rstrip('/')}/")
        is_one_host = (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
        return is_above and is_one_host and not theirs.query and location == well_known(resource)


def well_known(resource: str) -> str:
    """The URL of the metadata of *resource* (RFC 9728 section 3.1)."""
    parts = urlsplit(resource)
    path = parts.path if parts.path != "/" else ""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{_WELL_KNOWN}{path}{query}"


def without_slash(url: str) -> str:
    """*url* without a slash after the host, which changes nothing (RFC 3986 section 6.2.3)."""
    parts = urlsplit(url)
    return url.removesuffix("/") if parts.path == "/" else url
