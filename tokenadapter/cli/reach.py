"""What ``tokenadapter check`` finds on the way to servers: whether they answer, and their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tokenadapter.cli.finding import GOOD, NOTE, PROBLEM, Finding
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.profile import Profile
from tokenadapter.http.masking import masked
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.reply import NoReply

__all__ = ["servers"]

_PATIENCE = 5.0
# Seconds by which clocks may differ: the last second of a date is anyone's, and so is the way.
_TOLERANCE = 10.0


def servers(profile: Profile) -> Iterator[Finding]:
    """Ask each URL of the profile for its head, without any secret."""
    grant = profile.grant
    if isinstance(grant, ProfileGrant):
        way = ("verify", "cert", "proxies")
        own = {name: value for name, value in grant.arguments.items() if name in way}
        for url in grant.urls:
            yield from _server(profile, url, own)
    for prefix in profile.prefixes:
        yield from _server(profile, prefix, {})


def _server(profile: Profile, url: str, way: dict[str, Any]) -> Iterator[Finding]:
    endpoint = Endpoint("url", url, timeout=_PATIENCE, allow_http=True, **way)
    reply = endpoint.exchange("HEAD", {"Accept": "*/*"}, None)
    now = time.time()
    name = endpoint.name
    if isinstance(reply, NoReply):
        yield Finding(
            PROBLEM,
            profile.name,
            f"{name} cannot be reached: {masked(reply.why, ())}. Check the URL, the network, and "
            "the proxies in the environment; cron has none that your login sets.",
        )
        return
    if reply.status >= 500:
        yield Finding(NOTE, profile.name, f"{name} answers {reply.status}: try again later.")
    elif url in profile.grant.urls and 300 <= reply.status < 400:
        target = masked(reply.headers.get("Location") or "no address", ())
        yield Finding(
            PROBLEM,
            profile.name,
            f"{name} redirects to {target}: no redirect is followed, since that would send the "
            "secrets on. Give the URL where it ends.",
        )
    else:
        # 401, 404 and 405 are what such a request deserves.
        yield Finding(GOOD, profile.name, f"{name} answers")
    yield from _clock(profile, name, reply.date, now)


def _clock(profile: Profile, name: str, theirs: float | None, now: float) -> Iterator[Finding]:
    if theirs is not None and abs(theirs - now) > _TOLERANCE:
        apart = abs(theirs - now)
        yield Finding(
            NOTE if apart < 60 else PROBLEM,
            profile.name,
            f"This machine's clock is {apart:.0f} s {'behind' if theirs > now else 'ahead of'} "
            f"that of {name}: have it set by NTP. Lifetimes are counted by it.",
        )
