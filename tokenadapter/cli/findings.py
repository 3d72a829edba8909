"""What ``tokenadapter check`` finds: in the configuration, in stores, and on the way to servers."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any, Final
from urllib.parse import urlsplit

from tokenadapter.cli.reporting import named
from tokenadapter.cli.token_state import lock_holder, token_state
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile
from tokenadapter.errors import TokenError
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.moment import moment
from tokenadapter.sources.reply import NoReply
from tokenadapter.sources.wording import plain
from tokenadapter.stores._reading import check_directory
from tokenadapter.stores._strangers import check_database

__all__ = ["PROBLEM", "Finding", "findings"]

GOOD: Final = "ok"
NOTE: Final = "note"
"""Worth a look; what is asked for works."""
PROBLEM: Final = "problem"

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
_PATIENCE = 5.0
# Seconds by which clocks may differ: the last second of a date is anyone's, and so is the way.
_TOLERANCE = 10.0


class Finding:
    """What is as it should be, or is not.

    :param level: :data:`GOOD`, :data:`NOTE` or :data:`PROBLEM`.
    :param about: the profile, or the configuration.
    :param text: what was found and, unless that is good, what to do.
    """

    __slots__ = ("about", "level", "text")

    def __init__(self, level: str, about: str, text: str) -> None:
        self.level: str = level
        self.about: str = about
        self.text: str = text

    def __repr__(self) -> str:
        return f"<{self.level} {self.about}: {self.text}>"


def findings(config: ConfigFile, names: Sequence[str], *, offline: bool) -> Iterator[Finding]:
    """Look for what is wrong with *config* and the profiles *names* of it.

    :param offline: whether to leave the servers alone.
    """
    profiles, wrong = [], []
    for name in names:
        try:
            profile = Profile(config, name)
            profile.adapters()
            profiles.append(profile)
        except (ProfileError, ImportError) as error:
            wrong.append(Finding(PROBLEM, name, str(error)))
    yield from _check_configuration(config, profiles)
    yield from wrong
    for profile in profiles:
        about_store, has_refresh_token = _check_store(profile)
        yield from _check_references(profile, has_refresh_token=has_refresh_token)
        yield from _check_settings(profile)
        yield from about_store
        if not offline:
            yield from _check_servers(profile)


# --- the configuration -------------------------------------------------------------------


def _check_configuration(config: ConfigFile, profiles: list[Profile]) -> Iterator[Finding]:
    """About the file as a whole."""
    count = len(config.tables)
    if not count:
        yield Finding(
            PROBLEM,
            "configuration",
            f"{config.path}: There is no profile in it: begin with one, such as [billing].",
        )
        return
    yield Finding(
        GOOD, "configuration", f"{config.path}: {count} {'profile' if count == 1 else 'profiles'}"
    )
    open_to_all = stat.S_IMODE(os.stat(config.path).st_mode) & 0o044
    inline = [key for profile in profiles for key in _inline_secrets(profile)]
    if inline and open_to_all and os.name != "nt":
        yield Finding(
            PROBLEM,
            "configuration",
            f"Others can read {config.path}, and {', '.join(inline)} may be secret: run "
            f"`chmod 600 {quote(config.path)}`, or keep them elsewhere, as {{ env = … }} or "
            "{ file = … }.",
        )


def _inline_secrets(profile: Profile) -> Iterator[str]:
    """The keys of the secrets that stand in the file as they are."""
    if isinstance(profile.grant, ProfileGrant):
        for name in profile.grant.inline_secrets():
            yield f"{profile.name}.source.{name}"
    store = profile.config.table(profile.name).get("store")
    if isinstance(store, str) and urlsplit(store).password:
        yield f"{profile.name}.store"


def _check_references(profile: Profile, *, has_refresh_token: bool) -> Iterator[Finding]:
    """About the functions and the secrets that a profile names.

    No secret is read, and no program is run: it may ask a person for something, or count how often
    it is called.

    :param has_refresh_token: whether the store has one, so that the first is not needed any more.
    """
    for function in profile.named_functions():
        try:
            function.find()
        except ProfileError as error:
            yield Finding(PROBLEM, profile.name, str(error))
    if not isinstance(profile.grant, ProfileGrant):
        return
    for reference in profile.grant.references():
        try:
            reference.check()
        except ProfileError as error:
            is_first = reference.key.endswith(".source.refresh_token")
            if not (is_first and has_refresh_token):
                yield Finding(PROBLEM, profile.name, str(error))
            continue
        if os.name == "nt":
            continue
        if reference.kind == "file":
            yield from _readers(profile, reference.key, reference.path)
        elif reference.kind == "command" and reference.program is not None:
            yield from _writers(profile, reference.key, reference.program)


def _check_settings(profile: Profile) -> Iterator[Finding]:
    """About settings that give up a protection."""
    says = profile.config.table(profile.name)
    source = says["source"]
    if source.get("verify") is False:
        yield Finding(
            NOTE,
            profile.name,
            f"{profile.name}.source.verify is false: whoever is on the way to the server can pose "
            'as it and read the secrets. Name the server\'s CA instead: verify = "ca.pem".',
        )
    for table, key in ((says, "allow_http"), (source, "source.allow_http")):
        if table.get("allow_http") is True:
            yield Finding(
                NOTE,
                profile.name,
                f"{profile.name}.{key} is true: over plain http, everyone on the way can read what "
                "is sent. Use https, and remove the key.",
            )


def _readers(profile: Profile, key: str, path: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o044:
        yield Finding(
            NOTE,
            profile.name,
            f"{key}: Others can read {path} (mode {mode:04o}), unless its directory keeps them "
            f"out: run `chmod 600 {quote(path)}`.",
        )


def _others_bits(found: os.stat_result) -> int:
    """The bits of a mode by which others could put in another program."""
    if not stat.S_ISDIR(found.st_mode):
        return 0o022
    if found.st_mode & stat.S_ISVTX:
        return 0
    # A group of administrators may write to directories of the system, as on Debian.
    return 0o022 if found.st_uid else 0o002


def _writers(profile: Profile, key: str, program: str) -> Iterator[Finding]:
    """Who can write to a program, or put another one in its place, has it run as its caller."""
    real = os.path.realpath(program)
    for path in dict.fromkeys((real, os.path.dirname(program), os.path.dirname(real))):
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in (0, os.geteuid()):
            who = f"belongs to another user (number {found.st_uid}), who"
            cure = "use a program of your own"
        elif mode & _others_bits(found):
            who = f"can be written by others (mode {mode:04o}), who"
            cure = f"run `chmod go-w {quote(path)}`"
        else:
            continue
        yield Finding(
            PROBLEM, profile.name, f"{key}: {path} {who} could have you run any program: {cure}."
        )


# --- the store ---------------------------------------------------------------------------


def _check_store(profile: Profile) -> tuple[list[Finding], bool]:
    """What there is to say of the store, and whether it has a refresh token."""
    try:
        told = token_state(profile)
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
            by = lock_holder(slot)
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


# --- the servers -------------------------------------------------------------------------


def _check_servers(profile: Profile) -> Iterator[Finding]:
    """Ask each URL of the profile for its head, without any secret."""
    grant = profile.grant
    way: dict[str, Any] = {"verify": None, "cert": None, "proxies": None}
    if isinstance(grant, ProfileGrant):
        own = way | {name: value for name, value in grant.arguments.items() if name in way}
        for url in grant.urls:
            yield from _server(profile, url, own)
    for prefix in profile.prefixes:
        yield from _server(profile, prefix, way)


def _server(profile: Profile, url: str, way: dict[str, Any]) -> Iterator[Finding]:
    endpoint = Endpoint("url", url, timeout=_PATIENCE, allow_http=True, **way)
    reply = endpoint.exchange("HEAD", {"Accept": "*/*"}, None)
    now = time.time()
    name = endpoint.name
    if isinstance(reply, NoReply):
        yield Finding(
            PROBLEM,
            profile.name,
            f"{name} cannot be reached: {plain(reply.why, ())}. Check the URL, the network, and "
            "the proxies in the environment; cron has none that your login sets.",
        )
        return
    if reply.status >= 500:
        yield Finding(NOTE, profile.name, f"{name} answers {reply.status}: try again later.")
    elif url in profile.grant.urls and 300 <= reply.status < 400:
        target = plain(reply.headers.get("Location") or "no address", ())
        yield Finding(
            PROBLEM,
            profile.name,
            f"{name} redirects to {target}: no redirect is followed, since that would send the "
            "secrets on. Give the URL where it ends.",
        )
    else:
        # 401, 404 and 405 are what such a request deserves.
        yield Finding(GOOD, profile.name, f"{name} answers")
    yield from _clock(profile, name, moment(reply.headers.get("Date")), now)


def _clock(profile: Profile, name: str, theirs: float | None, now: float) -> Iterator[Finding]:
    if theirs is not None and abs(theirs - now) > _TOLERANCE:
        apart = abs(theirs - now)
        yield Finding(
            NOTE if apart < 60 else PROBLEM,
            profile.name,
            f"This machine's clock is {apart:.0f} s {'behind' if theirs > now else 'ahead of'} "
            f"that of {name}: have it set by NTP. Lifetimes are counted by it.",
        )
