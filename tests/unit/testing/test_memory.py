"""The fixture ``empty_memory_stores``, in a pytest of its own: it affects the whole process."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.testing.pytests import run_pytest

WITHOUT_THE_FIXTURE = """
import threading

import pytest

from tokenadapter import MemoryStore, RefreshToken, TokenKeeper
from tokenadapter.testing import empty_memory_stores

CLIENT = {"client_id": "client", "client_secret": "secret"}
kept = []  # an application may keep its keepers from one test to the next


@pytest.mark.parametrize("number", [1, 2])
def test_user(token_server, number):
    first = token_server.issue()["refresh_token"]
    kept.append(TokenKeeper(RefreshToken(token_server.token_url, first, **CLIENT), "memory:shop"))
    assert kept[-1].current().access_token
"""

WITH_THE_FIXTURE = (
    WITHOUT_THE_FIXTURE.replace(
        "@pytest", "used = pytest.mark.usefixtures('empty_memory_stores')\n\n\n@used\n@pytest"
    )
    + """

def test_the_stores_are_emptied_after_the_last_test():
    assert MemoryStore("shop").load().document is None


tokens = iter("1234")


def mint():
    return {"access_token": next(tokens), "expires_in": 3600}


SHARED = TokenKeeper(mint, "memory:shared")
UNNAMED = TokenKeeper(mint, MemoryStore())


def test_the_stores_are_emptied_before_the_first_test():
    assert SHARED.current().access_token == "1"


@used
@pytest.mark.parametrize("expected", ["2", "3"])
def test_a_keeper_that_outlives_a_test_forgets_its_token(expected):
    assert SHARED.current().access_token == expected


@used
@pytest.mark.parametrize("number", [1, 2])
def test_a_store_without_a_name_is_not_emptied(number):
    assert UNNAMED.current().access_token == "4"


@used
@pytest.mark.parametrize("number", [1, 2])
def test_spent_tokens_are_forgotten(number):
    store = MemoryStore("shared")
    assert not store.was_spent("hash")
    store.remember_spent("hash", for_good=True)


def test_a_renewal_that_is_under_way_ends_first(monkeypatch):
    begun, is_awaited = threading.Event(), threading.Event()
    wait = TokenKeeper.wait

    def mint_late():
        begun.set()
        assert is_awaited.wait(10)
        return {"access_token": "late", "expires_in": 3600}

    def wait_for_it(keeper, timeout=None):
        is_awaited.set()
        return wait(keeper, timeout)

    monkeypatch.setattr(TokenKeeper, "wait", wait_for_it)
    keeper = TokenKeeper(mint_late, "memory:late")
    request = threading.Thread(target=keeper.current)
    request.start()
    assert begun.wait(10)
    empty_memory_stores()
    request.join()
    assert MemoryStore("late").load().document is None
    assert keeper.fresh() is None
"""
)


OF_ENCRYPTED_STORES = """
import pytest

from tokenadapter import EncryptedStore, TokenKeeper
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile

KEY = EncryptedStore.generate_key()
PROFILE = f'''
[shop]
prefix = "https://shop.example.com/"
store = "memory:shop"
encryption_key = "{KEY}"

[shop.source]
callable = "test_theirs:mint"
'''

tokens = iter("1234")


def mint():
    return {"access_token": next(tokens), "expires_in": 3600}


OF_A_STORE = TokenKeeper(mint, EncryptedStore("memory:billing", KEY))
OF_A_PROFILE = Profile(ConfigFile.parsed("tokenadapter.toml", PROFILE), "shop").keeper()


@pytest.mark.usefixtures("empty_memory_stores")
@pytest.mark.parametrize("expected", ["12", "34"])
def test_a_keeper_that_outlives_a_test_forgets_its_token(expected):
    for keeper, text in zip((OF_A_STORE, OF_A_PROFILE), expected):
        assert keeper.current().access_token == text
        assert keeper.store.load().document["token"]["access_token"] == text
"""


def outcome(folder: Path, program: str) -> str:
    (folder / "test_theirs.py").write_text(program)
    done = run_pytest(folder)
    return done.stdout + done.stderr


def test_without_the_fixture_a_test_finds_the_token_of_an_earlier_one(tmp_path: Path) -> None:
    output = outcome(tmp_path, WITHOUT_THE_FIXTURE)
    assert "1 failed, 1 passed" in output, output
    assert "MemoryStore('shop') holds the token of" in output


def test_with_the_fixture_no_token_in_memory_outlives_a_test(tmp_path: Path) -> None:
    output = outcome(tmp_path, WITH_THE_FIXTURE)
    assert "11 passed" in output, output


def test_an_encrypted_token_in_memory_outlives_no_test_either(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    output = outcome(tmp_path, OF_ENCRYPTED_STORES)
    assert "2 passed" in output, output
