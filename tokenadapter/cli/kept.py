"""What ``tokenadapter check`` finds in a store: whether a renewal could be done and saved now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tokenadapter.cli.finding import GOOD, NOTE, PROBLEM, Finding
from tokenadapter.cli.holder import holder
from tokenadapter.cli.journal import named
from tokenadapter.cli.standing import standing_of
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.profile import Profile
from tokenadapter.errors import TokenError
from tokenadapter.stores._reading import check_directory
from tokenadapter.stores._strangers import check_database

__all__ = ["store"]

_MOUNTS = "/proc/self/mountinfo"
# File systems that machines share, whose locks may reach no further than each of them.
_SHARED = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "9p",
    "virtiofs",
    "ceph",
    "gluster",
    "lustre",
    "afs",
    "gpfs",
)
# Seconds for which the lock is asked for, if it is a lease.
_A_MOMENT = 5.0


def store(profile: Profile) -> tuple[list[Finding], bool]:
    """What there is to say of the store, and whether it has a refresh token."""
    try:
        told = standing_of(profile)
        document = profile.store().load().document or {}
    except TokenError as error:
        return [Finding(PROBLEM, profile.name, str(error))], False
    token = document.get("token") or {}
    has_refresh_token = isinstance(token, dict) and "refresh_token" in token
    needs_login = not has_refresh_token and _begins_with_login(profile)
    found = [*_token(profile, told, needs_login=needs_login), *_directory(profile)]
    return [*found, *_lock(profile)], has_refresh_token


def _begins_with_login(profile: Profile) -> bool:
    """Whether a profile has nothing of its own that would obtain a first token."""
    grant = profile.grant
    return (
        isinstance(grant, ProfileGrant)
        and grant.owner.get("grant") == "refresh_token"
        and "refresh_token" not in grant.arguments
    )


def _token(profile: Profile, told: dict[str, Any], *, needs_login: bool) -> Iterator[Finding]:
    state, failure = told["state"], told["failure"]
    if state in ("login needed", "unusable"):
        yield Finding(PROBLEM, profile.name, f"{state}: {named(failure['cause'], profile.name)}")
        return
    if needs_login and state in ("no token", "expired"):
        yield Finding(
            PROBLEM,
            profile.name,
            f"{told['store']}: {state}, and nothing to obtain one with: log in, and hand the "
            f"answer to `tokenadapter adopt {profile.name}`.",
        )
        return
    doubt = ""
    if state in ("fresh", "stale"):
        # The store cannot know that the server has given it up.
        doubt = f"; if the API refuses it all the same, run `tokenadapter refresh {profile.name}`"
    yield Finding(GOOD, profile.name, f"{told['store']}: {state}{doubt}")
    if failure is not None:
        yield Finding(NOTE, profile.name, f"The last renewal failed: {failure['cause']}")
    if told["store"].startswith("MemoryStore"):
        yield Finding(
            NOTE,
            profile.name,
            "The token is kept in memory, so each command and each program obtains its own: give "
            "it a store that they share, such as file:~/.local/state/….",
        )


def _directory(profile: Profile) -> Iterator[Finding]:
    path = getattr(profile.store(), "path", None)
    if not isinstance(path, str) or os.name == "nt":
        return
    directory = os.path.dirname(path)
    kind = _file_system(directory)
    if kind.startswith(_SHARED):
        yield Finding(
            NOTE,
            profile.name,
            f"{directory} is on a file system that machines may share ({kind}), and its locks may "
            "not reach from one to another: then two would spend one refresh token. Let machines "
            "share the token by Redis or a database, or give each a local file and a login.",
        )
    for check, place in ((check_directory, directory), (check_database, path)):
        try:
            check(place)
        except OSError as error:
            yield Finding(PROBLEM, profile.name, f"{path}: {error}.")


def _file_system(directory: str) -> str:
    """The type of the file system that a directory is on; empty where that cannot be told."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    place, kind = os.path.realpath(directory), ""
    longest = -1
    for parts in lines:
        # "36 35 98:0 /root /mount rw,noatime shared:1 - ext4 /dev/sda1 rw": spaces are "\\040".
        mount = parts[4].replace("\\040", " ")
        is_above = mount in ("/", place) or place.startswith(f"{mount}/")
        # Of two at one place, the later one hides the other.
        if is_above and len(mount) >= longest:
            longest, kind = len(mount), parts[parts.index("-", 6) + 1]
    return kind


def _lock(profile: Profile) -> Iterator[Finding]:
    """Take the lock and make ready to save, as a renewal does, and let go of it."""
    slot = profile.store()
    lock = slot.lock()
    try:
        if not lock.acquire(_A_MOMENT):
            by = holder(slot)
            yield Finding(
                NOTE,
                profile.name,
                f"A renewal is under way, or hangs: the lock is held{f' by {by}' if by else ''}.",
            )
            return
        slot.prepare()
    except TokenError as error:
        yield Finding(PROBLEM, profile.name, str(error))
    finally:
        lock.release()
