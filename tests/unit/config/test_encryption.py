"""``encryption_key``: where the key is, when it is read, and what the commands show."""

from __future__ import annotations

import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from profiles import billing, write

from tokenadapter import EncryptedStore, FileStore, ProfileError, StoreError
from tokenadapter.cli.main import main
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.testing import TokenServer

pytest.importorskip("cryptography")

KEY = EncryptedStore.generate_key()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(tmp_path / "tokenadapter.toml"))
    return tmp_path


def configure(server: TokenServer, place: Path, key: str) -> Profile:
    text = billing(server, place).replace("store =", f"encryption_key = {key}\nstore =", 1)
    return Profile(ConfigFile.read(str(write(place, text))), "billing")


def program(place: Path) -> str:
    """A command that prints the key, unless a file ``locked`` is there, and counts its runs."""
    code = (
        f"import os; open({str(place / 'runs')!r}, 'a').write('x'); "
        f"assert not os.path.exists({str(place / 'locked')!r}); print({KEY!r})"
    )
    return json.dumps([sys.executable, "-c", code])


def runs(place: Path) -> int:
    path = place / "runs"
    return len(path.read_text()) if path.exists() else 0


def shown(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    main([*arguments, "--json"])
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("kind", ["inline", "env", "file", "command"])
def test_the_token_is_encrypted_with_the_key_from_its_place(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TOKEN_KEY", KEY)
    (place / "key").write_text(f"{KEY}\n")
    where = {
        "inline": f'"{KEY}"',
        "env": '{ env = "TOKEN_KEY" }',
        "file": '{ file = "key" }',
        "command": f"{{ command = {program(place)} }}",
    }[kind]
    token = configure(server, place, where).keeper().current()
    assert configure(server, place, where).keeper().current() == token
    assert server.stats.token_requests == 1
    path = place / "state" / "token.json"
    assert token.access_token not in path.read_text()
    # A program with the same key reads the token by the name of the file.
    document = EncryptedStore(FileStore(path), KEY, slot="token.json").load().document
    assert document is not None
    assert document["token"]["access_token"] == token.access_token


def test_a_list_of_keys_encrypts_with_the_first_and_decrypts_with_all(
    server: TokenServer, place: Path
) -> None:
    token = configure(server, place, f'"{KEY}"').keeper().current()
    (place / "new").write_text(EncryptedStore.generate_key())
    both = f'[{{ file = "new" }}, "{KEY}"]'
    assert configure(server, place, both).keeper().current() == token
    renewed = configure(server, place, both).keeper().renew(token)
    assert configure(server, place, '{ file = "new" }').keeper().current() == renewed


def test_a_key_from_a_program_is_read_once_and_never_to_show_a_state(
    server: TokenServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"{{ command = {program(place)} }}"
    profile = configure(server, place, where)
    for _ in range(2):
        (status,) = shown("status", capsys=capsys)
        assert status["state"] == "absent"
        shown("check", capsys=capsys)
    assert runs(place) == 0
    profile.keeper().current()
    assert runs(place) == 1
    (status,) = shown("status", capsys=capsys)
    assert status["state"] == "encrypted"
    assert "Its key is in a command or the keyring" in str(status["advice"])
    found = shown("check", "--offline", capsys=capsys)
    assert not [one for one in found if one["level"] == "problem"]
    assert runs(place) == 1


def test_a_key_that_could_not_be_read_is_not_asked_for_again_at_once(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked password manager would prompt its user for each look into the store."""
    token = configure(server, place, f'"{KEY}"').keeper().current()
    profile = configure(server, place, f"{{ command = {program(place)} }}")
    (place / "locked").touch()
    for _ in range(3):
        with pytest.raises(StoreError, match="cannot read its key: "):
            profile.store().load()
    assert runs(place) == 1
    (place / "locked").unlink()
    monkeypatch.setattr("tokenadapter.config.encryption._FAILURE_VALID", -1)
    assert profile.keeper().current() == token
    assert runs(place) == 2


def test_the_key_of_another_profile_is_read_once_for_all_exchanges_of_its_token(
    server: TokenServer, place: Path
) -> None:
    subject = configure(server, place, f"{{ command = {program(place)} }}").config.text
    exchange = billing(server, place, "token_exchange").replace("billing", "orders")
    text = exchange.replace("token.json", "orders.json") + 'subject_token = { profile = "billing" }'
    config = ConfigFile.read(str(write(place, subject + text)))
    keeper = Profile(config, "orders").keeper()
    token = keeper.current()
    for _ in range(3):
        token = keeper.renew(token)
    assert server.stats.renewals == 5
    assert runs(place) == 1
    copied = pickle.loads(pickle.dumps(keeper.grant))
    assert copied.credentials(None) == keeper.grant.credentials(None)
    assert runs(place) == 2


def test_status_decrypts_with_a_key_from_a_file(
    server: TokenServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "key").write_text(KEY)
    configure(server, place, '{ file = "key" }').keeper().current()
    (status,) = shown("status", capsys=capsys)
    assert status["state"] == "usable"
    assert status["path"] == str(place / "state" / "token.json")


def test_a_key_that_cannot_be_used_is_an_error_before_anything_is_sent(
    server: TokenServer, place: Path
) -> None:
    (place / "key").write_text("too-short")
    for where, said in (
        ('{ file = "none" }', "billing.encryption_key: The file .* does not exist"),
        ('{ file = "key" }', "billing.encryption_key: this is not a key: a key is 32 random"),
    ):
        text = configure(server, place, where).config.path
        grant = Path(text).read_text().replace("client_credentials", "refresh_token")
        first = server.issue()["refresh_token"]
        write(place, f'{grant}refresh_token = "{first}"\n')
        keeper = Profile(ConfigFile.read(text), "billing").keeper()
        with pytest.raises(StoreError, match=said) as caught:
            keeper.current()
        assert "too-short" not in str(caught.value)
    assert server.stats.token_requests == 0


def test_a_token_that_was_stored_before_is_refused_with_what_to_do(
    server: TokenServer, place: Path
) -> None:
    text = billing(server, place)
    Profile(ConfigFile.read(str(write(place, text))), "billing").keeper().current()
    with pytest.raises(StoreError, match="remove encryption_key, run `tokenadapter logout"):
        configure(server, place, f'"{KEY}"').store().load()
    write(place, text)
    assert main(["logout", "billing"]) == 0
    configure(server, place, f'"{KEY}"').keeper().current()


def test_a_token_in_clear_is_not_shown_as_encrypted(
    server: TokenServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is the key read, from wherever it comes."""
    Profile(
        ConfigFile.read(str(write(place, billing(server, place)))), "billing"
    ).keeper().current()
    configure(server, place, f"{{ command = {program(place)} }}")
    (status,) = shown("status", capsys=capsys)
    assert status["state"] == "unusable"
    found = shown("check", "--offline", capsys=capsys)
    (problem,) = [str(one["text"]) for one in found if one["level"] == "problem"]
    for text in (str(status["failure"]), problem):
        assert "it is not encrypted. Nothing was changed: remove encryption_key, run" in text
        assert "`tokenadapter logout billing`" in text
    assert runs(place) == 0


def test_what_to_do_about_a_profile_of_another_file_names_the_file(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would log out the profile of that name in the user's own file."""
    text = billing(server, place)
    path = shlex.quote(str(write(place, text)))
    Profile(ConfigFile.read(str(place / "tokenadapter.toml")), "billing").keeper().current()
    store = configure(server, place, f'"{KEY}"').store()
    monkeypatch.delenv("TOKENADAPTER_CONFIG")
    for each in (store, pickle.loads(pickle.dumps(store))):
        with pytest.raises(StoreError, match=f"`tokenadapter logout billing --config {path}`"):
            each.load()


def test_a_program_does_not_get_the_key_with_the_token(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_KEY", KEY)
    configure(server, place, '{ env = "TOKEN_KEY" }')
    code = "import os; assert 'TOKEN_KEY' not in os.environ; assert os.environ['ACCESS_TOKEN']"
    call = [sys.executable, "-m", "tokenadapter", "exec", "billing", sys.executable, "-c", code]
    assert subprocess.run(call, check=False).returncode == 0


def test_check_names_a_missing_key_and_one_that_others_can_read(
    server: TokenServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(server, place, '{ file = "key" }')
    found = shown("check", "--offline", capsys=capsys)
    (problem,) = [str(one["text"]) for one in found if one["level"] == "problem"]
    assert "billing.encryption_key: The file" in problem
    (place / "key").write_text(KEY)
    (place / "key").chmod(0o644)
    found = shown("check", "--offline", capsys=capsys)
    assert any("billing.encryption_key: Other users can read" in str(one["text"]) for one in found)
    configure(server, place, f'"{KEY}"')
    (place / "tokenadapter.toml").chmod(0o644)
    found = shown("check", "--offline", capsys=capsys)
    assert any("billing.encryption_key" in str(one["text"]) for one in found)


def test_the_error_without_the_extra_names_the_key_and_the_extra(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    monkeypatch.delattr("cryptography.hazmat.primitives.ciphers.aead", raising=False)
    profile = configure(server, place, f'"{KEY}"')
    with pytest.raises(ProfileError, match=r"billing.encryption_key: .*tokenadapter\[crypto\]"):
        profile.store()


def test_a_pickled_store_has_the_place_of_its_key(server: TokenServer, place: Path) -> None:
    (place / "key").write_text(KEY)
    profile = configure(server, place, '{ file = "key" }')
    token = profile.keeper().current()
    pickled = pickle.dumps(profile.store())
    assert KEY.encode() not in pickled
    document = pickle.loads(pickled).load().document
    assert document["token"]["access_token"] == token.access_token


def test_a_key_that_was_read_saves_also_after_its_place_is_gone(
    server: TokenServer, place: Path
) -> None:
    (place / "key").write_text(KEY)
    keeper = configure(server, place, '{ file = "key" }').keeper()
    token = keeper.current()
    (place / "key").unlink()
    renewed = keeper.renew(token)
    assert configure(server, place, f'"{KEY}"').keeper().current() == renewed


def test_a_changed_key_is_noticed_after_a_while(
    server: TokenServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "key").write_text(KEY)
    profile = configure(server, place, '{ file = "key" }')
    token = profile.keeper().current()
    both = f'[{{ file = "key" }}, "{KEY}"]'
    (place / "key").write_text(EncryptedStore.generate_key())
    configure(server, place, both).keeper().renew(token)
    with pytest.raises(StoreError, match="it was encrypted with the key"):
        profile.store().load()
    monkeypatch.setattr("tokenadapter.config.encryption._KEY_VALID", 0)
    assert profile.store().load().document is not None


def test_others_may_read_a_database_with_an_encrypted_token(
    server: TokenServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sqlalchemy")
    text = configure(server, place, f'"{KEY}"').config.text
    (old,) = (line for line in text.splitlines() if line.startswith("store"))
    new = f'store = "sqlite:///{place}/db?create=1#billing"'
    write(place, text.replace(old, new))
    assert main(["refresh", "billing"]) == 0
    (place / "db").chmod(0o644)
    found = shown("check", "--offline", capsys=capsys)
    assert not [one for one in found if one["level"] == "problem"]
    write(place, text.replace(old, new).replace("encryption_key", "# encryption_key"))
    found = shown("check", "--offline", capsys=capsys)
    assert any("others can read the tokens" in str(one["text"]) for one in found)
