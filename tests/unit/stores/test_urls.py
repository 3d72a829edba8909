"""Stores by URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import EncryptedStore, FileStore, MemoryStore, TokenAdapter, TokenKeeper
from tokenadapter.stores import urls
from tokenadapter.stores.urls import schemes, store_from_url

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:~/state/token.json", "{home}/state/token.json"),
        ("file:///var/lib/x/token.json", "/var/lib/x/token.json"),
        ("FILE:/var/lib/x/token.json", "/var/lib/x/token.json"),
        ("file:/var/a%20b%23c%25", "/var/a b#c%"),
        ("file:token.json", "{here}/token.json"),
        ("file:a:b@c", "{here}/a:b@c"),
        ("token.json", "{here}/token.json"),
        ("./token", "{here}/token"),
        ("a b%20#?.json", "{here}/a b%20#?.json"),
        ("~/state/token.json", "{home}/state/token.json"),
        (Path("state/token"), "{here}/state/token"),
        (Path("~/token"), "{home}/token"),
    ],
)
def test_files(url: str | Path, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    store = store_from_url(url)
    assert isinstance(store, FileStore)
    assert store.path == path.format(home="/home/somebody", here=tmp_path)


def test_memory() -> None:
    store = store_from_url("memory:billing%2Fme#1")
    assert isinstance(store, MemoryStore)
    assert store.name == "billing/me#1"


@pytest.mark.parametrize(
    ("url", "module", "name", "arguments"),
    [
        (url, "redis", "RedisStore", (url.rpartition("#")[0], "billing"))
        for url in [
            "redis://localhost#billing",
            f"redis://:{SECRET}@localhost:6379/0#billing",
            f"rediss://me:{SECRET}@[::1]:6379?socket_timeout=2#billing",
            "unix:///run/redis.sock?db=0#billing",
            "valkey://localhost/0#billing",
        ]
    ]
    + [
        (url, "sql", "SQLStore", (url.rpartition("#")[0], "a slot/1#", False))
        for url in [
            f"postgresql+psycopg://me:{SECRET}@host/database#a%20slot/1%23",
            "postgresql://#a%20slot/1%23",
            "postgresql+psycopg://me@/database?host=/run/postgresql#a%20slot/1%23",
            "mysql+pymysql://me@host:3306/database?charset=utf8mb4#a%20slot/1%23",
            "sqlite:////var/lib/x/tokens.db#a%20slot/1%23",
            "sqlite:///tokens.db#a%20slot/1%23",
        ]
    ]
    + [
        (
            f"sqlite:///tokens.db{given}#x",
            "sql",
            "SQLStore",
            (f"sqlite:///tokens.db{left}", "x", is_on),
        )
        for given, left, is_on in [
            ("?create=1", "", True),
            ("?create=0", "", False),
            ("?timeout=9&create=1&cache=a%26b", "?timeout=9&cache=a%26b", True),
        ]
    ]
    + [
        ("django:default#billing", "django", "DjangoCacheStore", ("default", "billing")),
        ("django:a%23b#c%23d#e", "django", "DjangoCacheStore", ("a#b", "c#d#e")),
        ("keyring:billing/me", "keyring", "KeyringStore", ("billing", "me")),
        ("keyring:https:%2F%2Fx/me@x", "keyring", "KeyringStore", ("https://x", "me@x")),
    ],
)
def test_other_kinds(
    url: str,
    module: str,
    name: str,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The arguments are what is tested here: where they lead to has tests of its own.
    stand_in = getattr(urls, module)
    monkeypatch.setattr(stand_in, name, lambda *args, **named: (*args, *named.values()))
    assert store_from_url(url) == arguments


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "file:~/path/token.json"),
        ("token", "file:~/path/token.json"),
        ("redis", "file:~/path/token.json"),
        ("~/state/", "file:~/path/token.json"),
        (SECRET, "file:~/path/token.json"),
        ("file:", "the path of a file"),
        ("file:~/state/", "the path of a file"),
        ("file://host/token.json", "file:///var/lib"),
        ("file:a#b", "%23 for #"),
        ("file:a?b", "%3F for"),
        ("file:~nobody-at-all/token", "no such home directory"),
        ("memory:", "memory:billing"),
        ("redis://localhost", "the key after a #"),
        ("redis://localhost#", "the key after a #"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis:localhost#billing", "//host"),
        (f"redis://:{SECRET}/0#billing", "//host"),
        (f"redis://:x#{SECRET}@host/0#billing", "%XX"),
        (f"redis://:x/{SECRET}@host/0#billing", "%XX"),
        (f"redis://:{SECRET}@host:x/0#billing", ":port"),
        (f"postgresql://me:{SECRET}@host/database", "the slot after a #"),
        (f"postgresql+psycopg:me:{SECRET}@host/database#x", "//host"),
        (f"postgresql://me:{SECRET}@host:{SECRET}/database#x", ":port"),
        ("sqlite:///tokens.db?create=yes#x", "create=1, which creates the table"),
        ("django:", "settings.CACHES"),
        ("django:default", "django:default#billing"),
        ("django:#billing", "django:default#billing"),
        ("django://default#billing", "django:default#billing"),
        ("keyring:billing", "keyring:billing/me"),
        ("keyring:/me", "keyring:billing/me"),
        ("keyring:a/b/c", "%2F for /"),
        ("flie:~/token.json", "Did you mean file:?"),
        ("postgres://host/database#x", "Did you mean postgresql:?"),
        ("redis+cluster://host#x", "Did you mean redis:?"),
        (f"abc://me:{SECRET}@host/x", "unknown kind of store abc:. The kinds are django:, file:"),
        (f"vault+x@{SECRET}:x", "file:~/path/token.json"),
    ],
)
def test_an_invalid_url_is_an_error_that_says_what_was_expected(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        store_from_url(url)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__} {caught.value.__context__}"


def test_a_name_that_a_library_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Can't load plugin: .*postgresql\.made_up"):
        store_from_url(f"postgresql+made_up://me:{SECRET}@host/database#billing")
    with pytest.raises(ValueError, match=r"no-such-cache|DJANGO_SETTINGS_MODULE"):
        store_from_url("django:no-such-cache#billing")


@pytest.mark.parametrize("url", [None, b"memory:x"])
def test_a_url_that_is_not_text_is_an_error(url: Any) -> None:
    with pytest.raises(TypeError, match="the URL of a store is text, not"):
        store_from_url(url)


def test_keepers_and_adapters_take_a_url() -> None:
    keeper = TokenKeeper(lambda previous: "token", "memory:from a url")
    assert repr(keeper.store) == "MemoryStore('from a url')"
    adapter = TokenAdapter("https://a.example/", lambda previous: "x", store="file:/x/token.json")
    assert repr(adapter.keeper.store) == "FileStore('/x/token.json')"
    for path in ("/x/token.json", Path("/x/token.json")):
        keeper = TokenKeeper(lambda previous: "token", path)
        assert repr(keeper.store) == "FileStore('/x/token.json')"
        encrypted = EncryptedStore(path, EncryptedStore.generate_key(), slot="x")
        assert repr(encrypted.inner) == "FileStore('/x/token.json')"
    with pytest.raises(ValueError, match="Did you mean memory:"):
        TokenKeeper(lambda previous: "token", "memry:x")


@pytest.mark.parametrize("store", [FileStore, EncryptedStore])
def test_a_class_instead_of_a_store_is_a_clear_error(store: Any) -> None:
    advice = f"not the class {store.__name__}: call the class"
    with pytest.raises(TypeError, match=f"^store must be a store such as .*{advice}"):
        TokenAdapter("https://a.example/", lambda previous: "x", store=store)
    with pytest.raises(TypeError, match=f"^inner must be a store such as .*{advice}"):
        EncryptedStore(store, EncryptedStore.generate_key(), slot="x")


# Schemes of other packages


PACKAGE = """
from tokenadapter import MemoryStore

def store(url):
    return MemoryStore(f"vault of {url}")

def no_store(url):
    return url
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers schemes."""
    (tmp_path / "their_stores.py").write_text(PACKAGE)
    info = tmp_path / "their_stores-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-stores\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tokenadapter.stores]\n"
        "vault = their_stores:store\n"
        "file = their_stores:store\n"
        "vault+odd = their_stores:no_store\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_another_package_registers_a_scheme() -> None:
    for url in ("vault://host/x?y#z", "Vault+tls://host"):
        assert repr(store_from_url(url)) == f"MemoryStore('vault of {url}')"
    assert "vault" in schemes()
    with pytest.raises(ValueError, match="Did you mean vault:"):
        store_from_url("valut:x")


@pytest.mark.usefixtures("package")
def test_no_package_can_replace_a_built_in_scheme() -> None:
    assert isinstance(store_from_url("file:/x"), FileStore)


@pytest.mark.usefixtures("package")
def test_the_object_that_another_package_makes_must_be_a_store() -> None:
    with pytest.raises(
        ValueError, match=r"what their_stores:no_store returns must be a store .* not str"
    ):
        store_from_url(f"vault+odd://{SECRET}")


def test_a_token_in_place_of_a_path_is_no_store_and_not_shown() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLXNlY3JldA"
    with pytest.raises(ValueError, match="names no kind of store") as caught:
        store_from_url(token)
    assert token not in str(caught.value)
