"""Two users of one client on one slot are distinguished by their first refresh tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import Authority, Clockwork, Shelf
from profiles import write

from tokenadapter import FileStore, RefreshToken, TokenKeeper, errors
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.core.record import Record
from tokenadapter.testing import TokenServer
from tokenadapter.token import Token

Process = Callable[..., TokenKeeper]
REFUSED = "descends from another refresh token"


@pytest.fixture
def ada() -> Authority:
    return Authority(first="refresh-of-ada")


@pytest.fixture
def bob() -> Authority:
    bob = Authority(first="refresh-of-bob")
    bob.count = 100
    return bob


@pytest.fixture
def process(shelf: Shelf, clock: Clockwork) -> Process:
    """Each process has its own keeper, and all share the store."""
    return lambda source: TokenKeeper(source, shelf, runtime=clock)


def refuses(call: Callable[[], Any]) -> None:
    with pytest.raises(errors.RefreshConfigError, match=REFUSED):
        call()


def test_the_second_user_is_refused_and_nothing_is_changed(
    process: Process, shelf: Shelf, ada: Authority, bob: Authority
) -> None:
    token = process(ada).current()
    before = shelf.slot
    keeper = process(bob)
    refuses(keeper.current)
    refuses(lambda: keeper.renew(token))
    refuses(keeper.refresh)
    refuses(keeper.forget)
    assert keeper.fresh() is None
    assert bob.presented == []
    assert shelf.slot == before
    assert process(ada).current() == token


def test_the_second_user_is_refused_after_rotations_and_expiry(
    process: Process, ada: Authority, bob: Authority, clock: Clockwork
) -> None:
    first = process(ada)
    for _ in range(3):
        first.renew(first.current())
    clock.go_on(7200)
    refuses(process(bob).current)
    assert process(ada).current().access_token == "access-5"


def test_a_waiting_caller_takes_no_token_of_another_user(
    process: Process, shelf: Shelf, ada: Authority, bob: Authority
) -> None:
    """Bob looked while the slot was empty, and Ada's token came before he took the lock."""

    def come_first(step: str) -> bool:
        if step == "lock":
            shelf.failing = lambda step: False
            process(ada).current()
        return False

    shelf.failing = come_first
    refuses(process(bob).current)
    assert bob.presented == []


def test_a_new_login_replaces_a_refused_grant_and_the_other_user_is_refused(
    process: Process, shelf: Shelf, ada: Authority, bob: Authority, clock: Clockwork
) -> None:
    first = process(ada)
    token = first.current()
    ada.revoked = True
    with pytest.raises(errors.ReauthRequired):
        first.refresh()
    # Ada's access token is still valid, and is not used for Bob.
    assert process(bob).current().access_token == "access-101"
    assert bob.presented == ["refresh-of-bob"]
    assert process(bob).current().access_token == "access-101"
    refuses(process(ada).current)
    # Ada's own process uses its token until it expires.
    assert first.current() == token
    clock.go_on(7200)
    refuses(first.current)


def test_a_new_login_of_the_same_user_is_adopted_for_all_processes(
    process: Process, ada: Authority, clock: Clockwork
) -> None:
    before, worker = process(ada), process(ada)
    worker.current()
    # After a login by a person, nothing is configured.
    person = Authority(first=None)
    process(person).adopt({"access_token": "of-a-login", "refresh_token": "r", "expires_in": 3600})
    for keeper in (before, process(ada), process(person)):
        assert keeper.current().access_token == "of-a-login"
    clock.go_on(7200)
    ada.live = "r"
    assert process(ada).current().access_token == "access-2"
    assert process(ada).current().access_token == "access-2"


def test_a_newly_configured_login_can_be_adopted_over_a_valid_grant(
    process: Process, ada: Authority
) -> None:
    process(ada).current()
    newly = Authority(first="refresh-of-a-new-login")
    refuses(process(newly).current)
    newly.live = "refresh-of-a-new-login"
    newly.count = 50
    adopted = process(newly).adopt({"refresh_token": "refresh-of-a-new-login"})
    assert adopted.access_token == "access-51"
    assert process(newly).current() == adopted
    # The process with the old configuration may belong to the other user.
    refuses(process(ada).current)


def test_an_adopted_refresh_token_can_be_configured_afterwards(
    process: Process, clock: Clockwork
) -> None:
    person, worker = Authority(first=None), Authority(first="r")
    process(person).adopt({"access_token": "a", "refresh_token": "r", "expires_in": 3600})
    assert process(worker).current().access_token == "a"
    worker.live = "r"
    clock.go_on(7200)
    process(worker).current()
    assert process(worker).current().access_token == "access-1"


def test_users_are_distinguished_if_the_server_keeps_the_refresh_token(
    process: Process, shelf: Shelf, clock: Clockwork, bob: Authority
) -> None:
    def kept(previous: Token | None) -> dict[str, Any]:
        return {"access_token": f"a-{clock.now}", "expires_in": 3600}

    ada = Authority(first="refresh-of-ada")
    ada.fetch = lambda credential, previous: kept(previous)  # type: ignore[method-assign]
    process(ada).current()
    clock.go_on(7200)
    assert process(ada).current().refresh_token == "refresh-of-ada"
    refuses(process(bob).current)


def test_an_adopted_access_token_is_kept_for_its_user_while_it_is_valid(
    process: Process, bob: Authority, clock: Clockwork
) -> None:
    process(Authority(first=None)).adopt({"access_token": "of-ada", "expires_in": 60})
    refuses(process(bob).current)
    clock.go_on(61)
    assert process(bob).current().access_token == "access-101"


def test_named_accounts_are_distinguished_only_by_name(
    process: Process, ada: Authority, bob: Authority
) -> None:
    for source in (ada, bob):
        source.owner = {**source.owner, "user": "ada"}
    assert process(ada).current() == process(bob).current()


def test_a_refused_process_does_not_restore_the_token_of_another_user(
    process: Process, shelf: Shelf, ada: Authority, bob: Authority
) -> None:
    process(ada).current()
    keeper = process(bob)
    refuses(keeper.current)
    shelf.slot = None  # the file was deleted
    assert keeper.current().access_token == "access-101"


def test_a_record_without_an_origin_is_matched_by_its_spent_tokens(
    process: Process, shelf: Shelf, ada: Authority, bob: Authority
) -> None:
    token = process(ada).current()
    assert shelf.slot is not None
    document, tag = shelf.slot
    shelf.slot = {key: document[key] for key in document.keys() - {"seeds", "origin"}}, tag
    assert process(ada).current() == token
    refuses(process(bob).current)


def test_the_record_contains_origins_only_as_hashes(
    process: Process, shelf: Shelf, ada: Authority
) -> None:
    process(ada).current()
    assert shelf.slot is not None
    record = Record.from_document(shelf.slot[0])
    assert len(record.seeds) == 1
    assert record.seeds == (record.origin,)
    assert "refresh-of-ada" not in str(shelf.slot)


# --- real servers, real files ----------------------------------------------------------------


def test_two_sources_of_one_client_on_one_file_are_kept_apart(tmp_path: Path) -> None:
    with TokenServer(users={"ada": "a", "bob": "b"}) as server:

        def keeper(user: str) -> TokenKeeper:
            first = server.issue(user=user)["refresh_token"]
            source = RefreshToken(
                server.token_url, first, client_id="client", client_secret="secret"
            )
            return TokenKeeper(source, FileStore(tmp_path / "token.json"))

        ada, bob = keeper("ada"), keeper("bob")
        token = ada.current()
        refuses(bob.current)
        assert ada.renew(token) != token
        assert server.stats.renewals == 2


PROFILE = """
[{name}]
prefix = "{server.api_url}"
store = "file:{place}/state/both.json"

[{name}.source]
type = "refresh_token"
token_url = "{server.token_url}"
client_id = "client"
client_secret = "secret"
refresh_token = {kept}
"""


@pytest.mark.parametrize("kind", ["env", "file", "command"])
def test_two_profiles_of_one_client_on_one_store_are_kept_apart(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TokenServer(users={"ada": "a", "bob": "b"}) as server:
        text = ""
        for name in ("ada", "bob"):
            first = server.issue(user=name)["refresh_token"]
            path = tmp_path / name
            path.write_text(first)
            monkeypatch.setenv(f"REFRESH_{name}", first)
            kept = {
                "env": f'{{ env = "REFRESH_{name}" }}',
                "file": f'{{ file = "{path}" }}',
                "command": f'{{ command = ["cat", "{path}"] }}',
            }[kind]
            text += PROFILE.format(name=name, server=server, place=tmp_path, kept=kept)
        config = ConfigFile.read(str(write(tmp_path, text)))

        def keeper(name: str) -> TokenKeeper:
            return Profile(config, name).keeper()

        token = keeper("ada").current()
        refuses(keeper("bob").current)
        assert keeper("ada").current() == token
        assert server.stats.renewals == 1


def test_no_password_manager_is_called_for_a_valid_token(tmp_path: Path) -> None:
    with TokenServer() as server:
        path, requested = tmp_path / "first", tmp_path / "asked"
        path.write_text(server.issue()["refresh_token"])
        kept = f'{{ command = ["sh", "-c", "echo >> {requested}; cat {path}"] }}'
        text = PROFILE.format(name="ada", server=server, place=tmp_path, kept=kept)
        config = ConfigFile.read(str(write(tmp_path, text)))
        token = Profile(config, "ada").keeper().current()
        requested.unlink()
        assert Profile(config, "ada").keeper().current() == token
        assert not requested.exists()
