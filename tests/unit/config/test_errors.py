"""Mistakes in a profile: the message names the file, the line, the key and the remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from profiles import write

from tokenadapter import ProfileError
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.config.schema import PROFILE, SOURCES, VERDICT, Kind

START = '[billing]\nprefix = "https://api.example/"\n'
SOURCE = """[billing.source]
type = "client_credentials"
token_url = "https://id.example/token"
client_id = "app"
"""
LOGIN = '[billing.source]\ntype = "login"\nurl = "https://id.example/login"\n'


def error_of(directory: Path, text: str, name: str = "billing") -> ProfileError:
    """The error that *text* raises before there are adapters."""
    path = write(directory, text)
    with pytest.raises(ProfileError) as caught:
        Profile(ConfigFile.read(str(path)), name).adapters()
    assert caught.value.file == str(path)
    assert str(caught.value).startswith(f"{path}")
    return caught.value


# For each mistake: the text of the file; and the line, the key and the message in the error.
MISTAKES: Mapping[str, tuple[str, int | None, str | None, str]] = {
    "a syntax error": ("[billing\n", None, None, r"The file is not valid TOML: .*line 1"),
    "a text without quotes": (
        "[billing]\nprefix = https://api.example/\n",
        None,
        None,
        r'line 2, column 10\)\. A text needs quotes: "\.\.\."\.',
    ),
    "a key twice": (
        '[billing]\nprefix = "a"\nprefix = "b"\n',
        None,
        None,
        "not valid TOML.*line 3",
    ),
    "no such profile": (
        START.replace("billing", "biling") + SOURCE.replace("billing", "biling"),
        None,
        None,
        "There is no profile 'billing'. Did you mean 'biling'\\? Profiles in this file: biling.",
    ),
    "no profile at all": ("", None, None, "Profiles in this file: none."),
    "settings outside of a profile": (
        'prefix = "https://api.example/"\n',
        1,
        "prefix",
        r"The key is outside any profile: put it below the header of one, such as \[billing\]",
    ),
    "a name that is no file name": (
        '["a/b"]\n',
        1,
        "a/b",
        "The name of a profile consists of letters",
    ),
    "an unknown key": (
        START + 'stoer = "memory:x"\n' + SOURCE,
        3,
        "billing.stoer",
        "This key is unknown. Did you mean 'store'\\? Valid keys: prefix, prefixes, source",
    ),
    "an unknown key of a source": (
        START + SOURCE + 'client_secrt = "s3cret"\n',
        7,
        "billing.source.client_secrt",
        "Did you mean 'client_secret'\\?",
    ),
    "a key of another source": (
        START + SOURCE + 'username = "ada"\n',
        7,
        "billing.source.username",
        "This key is unknown.* Valid keys: token_url, issuer, provider,",
    ),
    "a key of the source in the profile": (
        START + 'client_id = "x"\n' + SOURCE,
        3,
        "billing.client_id",
        r"This key is unknown. It is a key of sources: put it below \[billing.source\]. Valid keys",
    ),
    "a key of the profile in the source": (
        START + SOURCE + 'store = "memory:x"\n',
        7,
        "billing.source.store",
        r"This key is unknown. It is a key of profiles: put it below \[billing\]. Valid keys",
    ),
    "no prefix": (
        "[billing]\n" + SOURCE,
        1,
        "billing.prefix",
        "Give the API's base URL as 'prefix', or several as 'prefixes', but not both",
    ),
    "prefix and prefixes": (
        START + 'prefixes = ["https://api2.example/"]\n' + SOURCE,
        2,
        "billing.prefix",
        "but not both",
    ),
    "an empty list of prefixes": (
        "[billing]\nprefixes = []\n" + SOURCE,
        2,
        "billing.prefixes",
        "Expected a list of strings, not an empty list",
    ),
    "a prefix in clear": (
        START.replace("https", "http") + SOURCE,
        2,
        "billing.prefix",
        "http://api.example would carry the token in clear text",
    ),
    "a prefix that is none": (
        START.replace("https://api", "api") + SOURCE,
        2,
        "billing.prefix",
        "A prefix begins with https:// and a host",
    ),
    "a header that cannot be": (
        START + 'header = "X Token"\n' + SOURCE,
        3,
        "billing.header",
        "header",
    ),
    "a scheme that cannot be": (
        START + 'scheme = "a\\nb"\n' + SOURCE,
        3,
        "billing.scheme",
        "scheme",
    ),
    "no source": (
        START,
        1,
        "billing.source",
        r"This key is missing: give a table, such as \[billing\.source\]",
    ),
    "a source without type": (
        START + '[billing.source]\ntoken_url = "https://id.example/"\n',
        3,
        "billing.source.type",
        'missing: give one of "client_credentials", .*, or give callable = "module:function"',
    ),
    "a misspelt type": (
        START + '[billing.source]\ntype = "refresh-token"\n',
        4,
        "billing.source.type",
        "Expected one of .*Did you mean 'refresh_token'\\?",
    ),
    "a type that is no text": (
        START + "[billing.source]\ntype = 5\n",
        4,
        "billing.source.type",
        'Expected one of "client_credentials"',
    ),
    "a type that is a list": (
        START + '[billing.source]\ntype = ["login"]\n',
        4,
        "billing.source.type",
        'Expected one of "client_credentials"',
    ),
    "a type beside a callable": (
        START + '[billing.source]\ncallable = "a:b"\ntype = "login"\n',
        5,
        "billing.source.type",
        "This key is unknown",
    ),
    "a token URL in clear": (
        START + SOURCE.replace("https", "http"),
        3,
        "billing.source",
        "The secrets would be sent to http://id.example/token in clear text",
    ),
    "a token URL that is none": (
        START + SOURCE.replace("https://", ""),
        5,
        "billing.source.token_url",
        "token_url must begin with https:// and a host",
    ),
    "an authentication method that is none": (
        START + SOURCE + 'client_auth = "basic"\n',
        7,
        "billing.source.client_auth",
        "client_auth must be one of client_secret_basic",
    ),
    "a method that needs a secret": (
        START + SOURCE + 'client_auth = "client_secret_post"\n',
        7,
        "billing.source.client_auth",
        "needs a client_secret",
    ),
    "a reserved parameter": (
        START + SOURCE + '[billing.source.extra]\nscope = "x"\n',
        7,
        "billing.source.extra",
        "extra must not contain scope",
    ),
    "a place of no known kind": (
        START + SOURCE + 'client_secret = { evn = "SECRET" }\n',
        7,
        "billing.source.client_secret",
        "its place: env, file, command or keyring, not a table with evn. Did you mean 'env'\\?",
    ),
    "two places": (
        START + SOURCE + 'client_secret = { env = "A", file = "b" }\n',
        7,
        "billing.source.client_secret",
        "not a table with env, file",
    ),
    "a command that is no list": (
        START + SOURCE + 'client_secret = { command = "pass show x" }\n',
        7,
        "billing.source.client_secret.command",
        "Expected a list of strings: the program and its arguments, not a string",
    ),
    "a keyring entry without a user": (
        START + SOURCE + 'client_secret = { keyring = "billing" }\n',
        7,
        "billing.source.client_secret.keyring",
        'Expected a string such as "service/user"',
    ),
    "a variable without a name": (
        START + SOURCE + "client_secret = { env = 5 }\n",
        7,
        "billing.source.client_secret.env",
        "Expected a string, not a number",
    ),
    "what is no secret, and not there": (
        START + SOURCE.replace('"app"', '{ env = "NO_SUCH_VARIABLE" }'),
        None,
        "billing.source.client_id",
        "The environment variable NO_SUCH_VARIABLE is not set",
    ),
    "a program for what is no secret": (
        START + SOURCE.replace('"app"', '{ command = ["pass", "show", "id"] }'),
        6,
        "billing.source.client_id",
        "Only a secret may come from command, because reading a profile runs no program",
    ),
    "a store in the keyring": (
        START + 'store = { keyring = "store/billing" }\n' + SOURCE,
        3,
        "billing.store",
        "Only a secret may come from keyring.*: env or file",
    ),
    "a login with two bodies": (
        START + LOGIN + 'data = "x"\njson = { a = 1 }\n',
        7,
        "billing.source.json",
        "json and data are two bodies",
    ),
    "a login with half an auth": (
        START + LOGIN + 'auth = ["ada"]\n',
        6,
        "billing.source.auth",
        "Expected a list of user and password",
    ),
    "a function that has no name": (
        START + 'verdict = "verdicts.py"\n' + SOURCE,
        3,
        "billing.verdict",
        'Expected a table, or a string such as "module:function", not a string',
    ),
    "an empty verdict": (
        START + "[billing.verdict]\n" + SOURCE,
        3,
        "billing.verdict",
        "needs a status, JSON, or both",
    ),
    "a status that is none": (
        START + "[billing.verdict]\nstatus = 4\n" + SOURCE,
        3,
        "billing.verdict",
        "4 is not an HTTP status",
    ),
    "an unknown key of a verdict": (
        START + "[billing.verdict]\nstat = 419\n" + SOURCE,
        4,
        "billing.verdict.stat",
        "Did you mean 'status'\\?",
    ),
    "a store of no known kind": (
        START + 'store = "rediss5://localhost"\n' + SOURCE,
        3,
        "billing.store",
        "unknown kind of store rediss5:",
    ),
    "a store without a kind": (
        START + 'store = "token"\n' + SOURCE,
        3,
        "billing.store",
        "this names no kind of store. A file is file:~/path/token.json",
    ),
    "a lease that outlasts the grace": (
        START
        + 'store = "redis://localhost#billing"\n'
        + '[billing.source]\ntype = "refresh_token"\ngrace = 5\n'
        + 'token_url = "https://id.example/token"\nclient_id = "app"\n',
        6,
        "billing.source.grace",
        "grace is 5 s, and the lease on the lock of RedisStore.* is 5 s: .*shorter than the grace",
    ),
    "neither a token endpoint nor an issuer": (
        START + '[billing.source]\ntype = "client_credentials"\nclient_id = "app"\n',
        3,
        "billing.source",
        "token_url and issuer are both missing: pass one of them",
    ),
    "a file store without a path": (
        START + 'store = "file:"\n' + SOURCE,
        3,
        "billing.store",
        "after file: expected the path of a file",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_error_names_the_file_the_line_and_the_key(mistake: str, tmp_path: Path) -> None:
    text, line, key, said = MISTAKES[mistake]
    error = error_of(tmp_path, text)
    assert (error.line, error.key) == (line, key)
    assert re.search(said, str(error), re.DOTALL), str(error)
    assert key is None or f": {key}: " in str(error)
    assert line is None or f", line {line}: " in str(error)


def test_one_error_names_all_mistakes_of_a_profile(tmp_path: Path) -> None:
    error = error_of(
        tmp_path,
        '[billing]\nprefx = "https://api.example/"\nlock_timeout = "long"\n'
        + SOURCE.replace("client_id", "cleint_id")
        + 'scoep = "a"\n[billing.verdict]\nstat = 419\n',
    )
    first, *others = str(error).split("\n  ")
    assert first == f"{error.file}: 5 problems:"
    assert [line.partition(": This")[0].partition(": Exp")[0] for line in others] == [
        "line 2: billing.prefx",
        "line 3: billing.lock_timeout",
        "line 7: billing.source.cleint_id",
        "line 8: billing.source.scoep",
        "line 10: billing.verdict.stat",
    ]
    assert (error.line, error.key) == (2, "billing.prefx")
    assert [part.line for part in error.parts] == [2, 3, 7, 8, 10]


def test_a_misspelt_key_is_not_reported_as_missing_too(tmp_path: Path) -> None:
    error = error_of(tmp_path, START + SOURCE.replace("client_id", "cleint_id"))
    assert "Did you mean 'client_id'?" in str(error)
    assert "missing" not in str(error)


def every_key() -> list[tuple[str, str, Kind]]:
    keys = [("", name, kind) for name, kind in PROFILE.items()]
    keys += [("verdict", name, kind) for name, kind in VERDICT.items()]
    for source, (kinds, _) in SOURCES.items():
        keys += [(source, name, kind) for name, kind in kinds.items()]
    return keys


@pytest.mark.parametrize(
    ("table", "name", "kind"), every_key(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_the_error_for_a_value_of_the_wrong_type_names_the_expected_type(
    table: str, name: str, kind: Kind, tmp_path: Path
) -> None:
    wrong = f"{name} = 2020-01-01\n"
    if table == "":
        rest = "" if name == "prefix" else 'prefix = "https://api.example/"\n'
        text, key = f"[billing]\n{wrong}{rest}", f"billing.{name}"
        text += "" if name == "source" else SOURCE
    elif table == "verdict":
        text, key = f"{START}[billing.verdict]\n{wrong}{SOURCE}", f"billing.verdict.{name}"
    else:
        kind_line = f'type = "{table}"\n'
        if table == "callable":
            kind_line = "" if name == "callable" else 'callable = "a:b"\n'
        text, key = f"{START}[billing.source]\n{wrong}{kind_line}", f"billing.source.{name}"
    error = error_of(tmp_path, text)
    assert error.key == key
    assert error.line is not None
    assert wrong.strip() in text.splitlines()[error.line - 1]
    assert f"Expected {kind.expected}, not a date or time." in str(error)


@pytest.mark.parametrize(
    ("source", "name"),
    [(source, name) for source in SOURCES for name in SOURCES[source][1] if source != "callable"],
)
def test_the_error_for_a_missing_key_names_the_key(source: str, name: str, tmp_path: Path) -> None:
    given = {
        "type": source,
        "token_url": "https://id.example/",
        "url": "https://id.example/",
        "client_id": "app",
        "username": "ada",
        "password": "s3cret",
        "path": "account.json",
        "scope": "read",
        "app_id": "app",
        "key": "key.pem",
        "installation": "1",
    }
    kinds, _ = SOURCES[source]
    lines = [
        f'{key} = "{value}"'
        for key, value in given.items()
        if key != name and (key in kinds or key == "type")
    ]
    error = error_of(tmp_path, "\n".join([START, "[billing.source]", *lines, ""]))
    assert error.key == f"billing.source.{name}"
    assert f"This key is missing: give {kinds[name].expected}." in str(error)


def test_no_message_repeats_a_value_that_may_be_secret(tmp_path: Path) -> None:
    for wrong in ("client_secret = ['s3cret']", "extra = 's3cret'", "cert = {s3cret = 's3cret'}"):
        error = error_of(tmp_path, START + SOURCE + wrong + "\n")
        assert "'s3cret'" not in str(error)


def test_a_mistake_in_one_profile_does_not_affect_another(tmp_path: Path) -> None:
    path = write(tmp_path, START + SOURCE + "[broken]\nprefx = 5\n")
    Profile(ConfigFile.read(str(path)), "billing")


def test_the_error_survives_pickling(tmp_path: Path) -> None:
    import pickle

    error = error_of(tmp_path, START + 'stoer = "x"\n' + SOURCE)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.file, twin.line, twin.key) == (
        str(error),
        error.file,
        error.line,
        error.key,
    )
