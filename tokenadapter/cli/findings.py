"""What ``tokenadapter check`` finds: in the configuration, in stores, and on the way to servers."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from tokenadapter.cli.common import LOST_LOGIN
from tokenadapter.cli.sharing import profiles_by_store
from tokenadapter.cli.token_state import lock_holder, standing, token_state
from tokenadapter.config.config_file import ConfigFile, xdg_directory
from tokenadapter.config.grants import ProfileGrant
from tokenadapter.config.problems import ProfileError
from tokenadapter.config.profile import Profile, shared_prefixes
from tokenadapter.errors import TokenError
from tokenadapter.groups import lets_others
from tokenadapter.http.masking import masked
from tokenadapter.keys.key import Key
from tokenadapter.sources.endpoint import Endpoint
from tokenadapter.sources.outcome import CLOCK_TOLERANCE
from tokenadapter.sources.reply import NoReply
from tokenadapter.stores._reading import check_directory
from tokenadapter.stores._strangers import check_database
from tokenadapter.stores.encrypted import EncryptedStore

__all__ = ["PROBLEM", "Finding", "findings"]

GOOD: Final = "ok"
NOTE: Final = "note"
"""Worth a look, but everything works."""
PROBLEM: Final = "problem"

_MOUNTS = "/proc/self/mountinfo"
# File systems that machines share, whose locks may work on each machine only.
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
# Seconds for which a lease on the lock lasts.
_LEASE = 5.0
# Seconds that a server may take.
_SERVER_TIMEOUT = 5.0
# How a source reaches its servers, as arguments of it and of an Endpoint.
_WAY = ("verify", "cert", "proxies")

# The URLs of endpoints that take only POST requests, by their keys, and what they are.
_ENDPOINTS: Final = {
    "token_url": "token",
    "revocation_url": "revocation",
    "device_authorization_url": "device authorization",
}
_LOGIN_URLS: Final = frozenset({"device_authorization_url", "authorization_url"})


class Finding(NamedTuple):
    """One thing that was found.

    :ivar level: :data:`GOOD`, :data:`NOTE` or :data:`PROBLEM`.
    :ivar about: the name of the profile, or ``configuration``.
    :ivar text: what was found and, unless it is good, what to do.
    """

    level: str
    about: str
    text: str


_Found: TypeAlias = tuple[str, str]  # a level and a text


def _good(text: str) -> _Found:
    return GOOD, text


def _note(text: str) -> _Found:
    return NOTE, text


def _problem(text: str) -> _Found:
    return PROBLEM, text


def findings(config: ConfigFile, names: Sequence[str], *, offline: bool) -> Iterator[Finding]:
    """Check *config* and its profiles *names*.

    :param offline: whether to contact no server.
    """
    profiles, wrong = [], []
    for name in names:
        try:
            profile = Profile(config, name)
            profile.adapters()
            profiles.append(profile)
        except (ProfileError, ImportError) as error:
            wrong.append(Finding(PROBLEM, name, str(error)))
    for level, text in (*_check_configuration(config, profiles), *_check_prefixes(profiles)):
        yield Finding(level, "configuration", text)
    yield from wrong
    yield from _check_sharing(config, profiles)
    for profile in profiles:
        for level, text in _check_profile(profile, offline=offline):
            yield Finding(level, profile.name, text)


def _check_profile(profile: Profile, *, offline: bool) -> Iterator[_Found]:
    about_store, has_refresh_token = _check_store(profile)
    yield from _check_references(profile, has_refresh_token=has_refresh_token)
    yield from _check_keys(profile)
    yield from _check_settings(profile)
    yield from about_store
    if not offline:
        yield from _check_servers(profile)


# --- the configuration -------------------------------------------------------------------


def _check_configuration(config: ConfigFile, profiles: list[Profile]) -> Iterator[_Found]:
    """Check the file as a whole."""
    count = len(config.tables)
    if not count:
        yield _problem(f"{config.path}: The file has no profile: add one, such as [billing].")
        return
    yield _good(f"{config.path}: {count} {'profile' if count == 1 else 'profiles'}")
    open_to_all = lets_others(os.stat(config.path), 0o044)
    inline = [key for profile in profiles for key in _inline_secrets(profile)]
    if inline and open_to_all and os.name != "nt":
        yield _problem(
            f"Other users can read {config.path}, and {', '.join(inline)} may be secret. Run "
            f"`chmod 600 {quote(config.path)}`, or keep secrets elsewhere, as {{ env = … }} or "
            "{ file = … }."
        )


def _inline_secrets(profile: Profile) -> Iterator[str]:
    """The keys whose secrets the file itself contains."""
    if isinstance(profile.grant, ProfileGrant):
        for name in profile.grant.inline_secrets():
            yield f"{profile.name}.source.{name}"
    if "encryption_key" in profile.config.table(profile.name) and not profile.encryption_references:
        yield f"{profile.name}.encryption_key"
    store = profile.config.table(profile.name).get("store")
    if isinstance(store, str) and urlsplit(store).password:
        yield f"{profile.name}.store"


def _check_sharing(config: ConfigFile, profiles: list[Profile]) -> Iterator[Finding]:
    """Check for profiles that share a store and must not, or cannot be told apart in it."""
    mine = {profile.name for profile in profiles}
    for first, *others in profiles_by_store(config).values():
        for other in others:
            if mine.isdisjoint((first.name, other.name)):
                continue
            about, sharer = (other, first) if other.name in mine else (first, other)
            if _obtains(about) != _obtains(sharer):
                text = (
                    f"{sharer.name} uses this store too ({about.store()!r}), with another source, "
                    f"so only one of the two profiles works. Give {about.name} or {sharer.name} "
                    "another `store`."
                )
            elif _is_ambiguous(first, other):
                text = (
                    f"The profiles {first.name} and {other.name} share {about.store()!r}, and "
                    "nothing tells their users apart: each would use the token of the other. Give "
                    "each user a profile with its own store, and name the user: "
                    '`account = "…"` in its source. If both are for one user, name that user in '
                    "both. `account` does not apply to a token that is already stored: run "
                    f"`tokenadapter logout {about.as_arguments}` before the change, and "
                    f"`tokenadapter forget {about.as_arguments} --force` after it, then log in."
                )
            else:
                continue
            yield Finding(PROBLEM, about.name, text)


def _check_prefixes(profiles: list[Profile]) -> Iterator[_Found]:
    for prefix, names in shared_prefixes(profiles).items():
        yield _note(
            f"The profiles {' and '.join(names)} have the same prefix, {prefix}: `tokenadapter "
            "run` needs --profile to choose one of them."
        )


def _obtains(profile: Profile) -> tuple[dict[str, str], dict[str, str]]:
    """The owner of the tokens that *profile* obtains, and what it requests, such as a scope."""
    return dict(profile.grant.owner), dict(profile.grant.requested)


def _is_ambiguous(one: Profile, other: Profile) -> bool:
    """Whether either would use the token of the other without noticing."""
    owner = dict(one.grant.owner)
    if owner != dict(other.grant.owner) or owner.get("grant") != "refresh_token":
        return False
    # A user is known by a name, or by a first refresh token.
    return "user" not in owner and (one.grant.begins_with_login or other.grant.begins_with_login)


def _check_references(profile: Profile, *, has_refresh_token: bool) -> Iterator[_Found]:
    """Check the functions and the places of secrets that a profile names.

    No secret is read and no program is run: the program may ask a person for something, or count
    its calls.

    :param has_refresh_token: whether the store has one, so that the first is no longer needed.
    """
    for function in profile.named_functions():
        try:
            function.find()
        except ProfileError as error:
            yield _problem(str(error))
    for reference in profile.references():
        try:
            reference.check()
        except ProfileError as error:
            is_first = reference.key.endswith(".source.refresh_token")
            if not (is_first and has_refresh_token):
                yield _problem(str(error))
            continue
        if os.name == "nt":
            continue
        if reference.kind == "file":
            yield from _readers(reference.key, reference.path)
        elif reference.kind == "command" and reference.program is not None:
            yield from _writers(reference.key, reference.program)


def _check_keys(profile: Profile) -> Iterator[_Found]:
    """Sign something with each key that is in a file, and verify the signature."""
    if not isinstance(profile.grant, ProfileGrant):
        return
    for argument, said in profile.grant.key_files():
        place = f"{profile.name}.source.{argument}"
        try:
            key = Key(**said)
            key.check()
        except (ImportError, TypeError, ValueError) as error:
            yield _problem(f"{place}: {error}.")
        else:
            yield _good(f"{place}: {said['key']} signs with {key.alg}, thumbprint {key.thumbprint}")
    cert = profile.grant.cert
    if cert is not None and os.name != "nt":
        with suppress(FileNotFoundError):  # the request will say so
            yield from _readers(
                f"{profile.name}.source.cert", cert if isinstance(cert, str) else cert[1]
            )


def _check_settings(profile: Profile) -> Iterator[_Found]:
    """Check for settings that turn off a protection."""
    table = profile.config.table(profile.name)
    source = table["source"]
    if source.get("verify") is False:
        yield _note(
            f"{profile.name}.source.verify is false: anyone on the network path can impersonate "
            'the server and read the secrets. Name the CA of the server: verify = "ca.pem".',
        )
    for place, key in ((table, "allow_http"), (source, "source.allow_http")):
        if place.get("allow_http") is True:
            yield _note(
                f"{profile.name}.{key} is true: over plain http, anyone on the network path can "
                "read the secrets. Use https, and remove this key."
            )


def _readers(key: str, path: str) -> Iterator[_Found]:
    found = os.stat(path)
    mode = stat.S_IMODE(found.st_mode)
    if lets_others(found, 0o044):
        yield _note(
            f"{key}: Other users can read {path} (mode {mode:04o}) unless its directory keeps "
            f"them out. Run `chmod 600 {quote(path)}`."
        )


def _others_bits(found: os.stat_result) -> int:
    """The mode bits by which others could replace a program."""
    if not stat.S_ISDIR(found.st_mode):
        return 0o022
    if found.st_mode & stat.S_ISVTX:
        return 0
    # A group of administrators may write to directories of the system, as on Debian.
    return 0o022 if found.st_uid else 0o002


def _writers(key: str, program: str) -> Iterator[_Found]:
    """Check who could change or replace a program, and so make its caller run anything."""
    real = os.path.realpath(program)
    for path in dict.fromkeys((real, os.path.dirname(program), os.path.dirname(real))):
        found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in (0, os.geteuid()):
            problem = f"{path} belongs to another user (uid {found.st_uid}), who"
            cure = "Use a program of your own"
        elif lets_others(found, _others_bits(found)):
            problem = f"other users can write to {path} (mode {mode:04o}), and so"
            cure = f"Run `chmod go-w {quote(path)}`"
        else:
            continue
        yield _problem(f"{key}: {problem} could make you run any program. {cure}.")


# --- the store ---------------------------------------------------------------------------


def _check_store(profile: Profile) -> tuple[list[_Found], bool]:
    """The findings about the store, and whether it has a refresh token."""
    try:
        state = token_state(profile)
        is_hidden = state["state"] == "encrypted"
        document = {} if is_hidden else profile.store().load().document or {}
    except TokenError as error:
        return [_problem(str(error))], False
    token = document.get("token") or {}
    has_refresh_token = is_hidden or (isinstance(token, dict) and "refresh_token" in token)
    found = [*_token(profile, state), *_directory(profile), *_lock(profile)]
    return found, has_refresh_token


def _token(profile: Profile, found: dict[str, Any]) -> Iterator[_Found]:
    state, failure, store = found["state"], found["failure"], found["store"]
    if state == "unusable" or found["reason"] is not None:
        cause = "no credential to obtain a token" if failure is None else failure["cause"]
        advice = "" if found["advice"] is None else f". {found['advice']}"
        if advice and profile.is_in_memory:
            advice = f". {LOST_LOGIN}"
        yield _problem(f"{standing(found)}: {cause.rstrip('.')}{advice or '.'}")
        return
    doubt = ""
    if state == "usable":
        # The store cannot know whether the server has revoked the token.
        doubt = (
            "; if the API refuses the token anyway, run `tokenadapter refresh "
            f"{profile.as_arguments}`"
        )
    yield _good(f"{store}: {state}{doubt}")
    if failure is not None:
        # An earlier failure affects nothing while the token is good.
        is_failing = failure["retry_in"] is not None or state != "usable"
        found_so = _problem if is_failing else _note
        yield found_so(f"The last renewal failed: {failure['cause']}")
    if found["advice"] is not None:
        yield _note(found["advice"])
    if profile.is_in_memory:
        yield _note(
            "The token is stored in memory, so each command and each program obtains its own. "
            "Give the profile a store that they can share, such as file:~/.local/state/…."
        )


def _directory(profile: Profile) -> Iterator[_Found]:
    store = profile.store()
    path = getattr(store, "path", None)
    if not isinstance(path, str) or os.name == "nt":
        return
    directory = os.path.dirname(path)
    real = Path(os.path.realpath(directory))
    place = next((each for each in _cleaned() if real.is_relative_to(os.path.realpath(each))), None)
    if place is not None:
        yield _note(
            f"{path} is in {place}, where files are deleted: when they are old, at a logout, or at "
            "a reboot. That would delete the login, too. Use a state directory, such as "
            "~/.local/state."
        )
    kind = _file_system(directory)
    if kind.startswith(_SHARED):
        yield _note(
            f"{directory} is on a file system that machines may share ({kind}). Its locks may "
            "work on each machine only, and then two machines would spend one refresh token. "
            "Share the token through Redis or a database, or give each machine a local file and "
            "a login of its own."
        )
    checks: list[tuple[Callable[[str], object], str]] = [(check_directory, directory)]
    if not isinstance(store, EncryptedStore):
        checks.append((check_database, path))
    for check, place in checks:
        try:
            check(place)
        except OSError as error:
            yield _problem(f"{path}: {error}.")


def _cleaned() -> Iterator[str]:
    """The directories from which programs delete old files, or all at a logout or reboot."""
    yield from ("/tmp", "/var/tmp", "/run", "/dev/shm", tempfile.gettempdir())  # noqa: S108
    yield xdg_directory("XDG_CACHE_HOME", "~/.cache")
    yield os.path.expanduser("~/Library/Caches")


def _file_system(directory: str) -> str:
    """The type of the file system of a directory; empty if that cannot be found out."""
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


def _lock(profile: Profile) -> Iterator[_Found]:
    """Take the lock and prepare to save, as a renewal does, then release the lock."""
    slot = profile.store()
    lock = slot.lock()
    try:
        if not lock.acquire(_LEASE):
            by = lock_holder(slot)
            yield _note(
                f"The lock is taken{f' by {by}' if by else ''}: a renewal is under way, or hangs."
            )
            return
        slot.prepare()
    except TokenError as error:
        yield _problem(str(error))
    finally:
        lock.release()


# --- the servers -------------------------------------------------------------------------


def _check_servers(profile: Profile) -> Iterator[_Found]:
    """Send a HEAD request, without any secret, to each URL of the profile, and read the metadata of
    its issuer."""
    grant = profile.grant
    way: dict[str, Any] = {"timeout": _SERVER_TIMEOUT, "allow_http": True}
    if isinstance(grant, ProfileGrant):
        own = way | {name: grant.arguments[name] for name in _WAY if name in grant.arguments}
        try:
            if grant.discovers:
                server = grant.discover()
                names = (grant.arguments.get(key) for key in ("issuer", "provider", "url"))
                yield _good(f"{next(filter(None, names))} names its endpoints")
                yield from _check_algorithm(profile, grant, server)
        except TokenError as error:
            yield _problem(str(error))
        for url in grant.urls:
            if "/.well-known/" not in url:  # one of these URLs has the metadata
                yield from _server(profile, url, own)
        given = {**grant.arguments, **grant.login_settings}
        # Not the URLs of a known provider.
        keys = given.keys() & profile.config.table(profile.name)["source"].keys()
        for key in sorted(keys & _LOGIN_URLS):
            is_page = key == "authorization_url"
            for level, text in _server(profile, given[key], own, is_page=is_page):
                yield level, f"{profile.name}.source.{key}: {text}"
        for key in sorted(keys & _ENDPOINTS.keys()):
            yield from _endpoint(key, given[key], own)
    for prefix in profile.prefixes:
        yield from _server(profile, prefix, way)


def _check_algorithm(profile: Profile, grant: ProfileGrant, server: Any) -> Iterator[_Found]:
    """Check whether the *server*, by its metadata, accepts what the keys in files sign."""
    accepts = {
        "client_auth.key": (
            server.token_endpoint_auth_signing_alg_values_supported,
            "Set alg, or use another key.",
        ),
        "dpop": (server.dpop_signing_alg_values_supported, "Use another key, or set dpop = true."),
    }
    for argument, said in grant.key_files():
        accepted, advice = accepts.get(argument, ((), ""))
        # What is wrong with the key has been reported already.
        with suppress(ImportError, TypeError, ValueError):
            alg = Key(**said).alg
            if accepted and alg not in accepted:
                yield _problem(
                    f"{profile.name}.source.{argument}: the key signs with {alg}, and the server "
                    f"accepts {masked(', '.join(accepted), ())}. {advice}"
                )


def _server(
    profile: Profile, url: str, way: dict[str, Any], *, is_page: bool = False
) -> Iterator[_Found]:
    """Check that the server answers.

    :param is_page: whether a person opens the URL in a browser.
    """
    endpoint = Endpoint("url", url, **way)
    reply = endpoint.exchange("HEAD", {"Accept": "*/*"}, None)
    now = time.time()
    name = endpoint.name
    if isinstance(reply, NoReply):
        yield _problem(
            f"{name} cannot be reached: {masked(reply.why, ())}. Check the URL, the network, and "
            "the proxy variables of the environment, which cron does not take from your login."
        )
        return
    if reply.status >= 500:
        yield _note(f"{name} answers with status {reply.status}: try again later.")
    elif url in profile.grant.urls and 300 <= reply.status < 400:
        target = masked(reply.headers.get("Location") or "no address", ())
        yield _problem(
            f"{name} redirects to {target}. Redirects are not followed, since that would send the "
            "secrets to another URL. Give the final URL."
        )
    elif is_page and reply.status == 404:
        # Only a note: a server may answer 404 because the request has no client_id.
        yield _note(
            f"{name} answers with status 404: compare the URL with the server's documentation."
        )
    else:
        # A request without a token may well get 401, 404 or 405.
        yield _good(f"{name} answers")
    yield from _clock(name, reply.date, now)


def _endpoint(key: str, url: str, way: dict[str, Any]) -> Iterator[_Found]:
    """Check that an endpoint is at *url*, the value of *key*, by an empty POST request.

    The response to a HEAD request does not say that: an endpoint that takes only POST may answer
    with any status.  An endpoint answers an empty request with an error of status 400 or 401 (RFC
    6749 section 5.2, RFC 7009 section 2.2.1, RFC 8628 section 3.2).
    """
    endpoint = Endpoint("url", url, **way)
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    reply = endpoint.exchange("POST", headers, b"")
    if isinstance(reply, NoReply):
        return  # reported already
    if reply.is_not_here:
        why = f"answers an empty POST request with status {reply.status}"
    elif 200 <= reply.status < 300 and reply.shape == "HTML":
        why = "answers an empty POST request with an HTML page"
    else:
        return
    yield _problem(
        f"{endpoint.name} {why}: there is no {_ENDPOINTS[key]} endpoint at it. Correct {key}; the "
        "server's documentation has the URL."
    )


def _clock(name: str, theirs: float | None, now: float) -> Iterator[_Found]:
    if theirs is not None and abs(theirs - now) > CLOCK_TOLERANCE:
        apart = abs(theirs - now)
        found = _note if apart < 60 else _problem
        yield found(
            f"This machine's clock is {apart:.0f} s {'behind' if theirs > now else 'ahead of'} "
            f"that of {name}. Lifetimes are counted by the clock: synchronize it with NTP."
        )
