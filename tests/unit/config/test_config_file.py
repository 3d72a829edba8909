"""Where the configuration file is searched for, when it is refused, and the line of a key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from profiles import write

from tokenadapter import ProfileError, groups
from tokenadapter.config.config_file import ConfigFile, line_of, locate
from tokenadapter.config.profile import Profile

PROFILE = '[billing]\nprefix = "https://api.example/"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a home, both empty."""
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOKENADAPTER_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def user_file(directory: Path) -> Path:
    (directory / "tokenadapter").mkdir(parents=True)
    return write(directory / "tokenadapter", PROFILE)


def read(here: Path) -> ConfigFile:
    """The file in the working directory, which is read because it is named."""
    return ConfigFile.read(str(here / "work" / "tokenadapter.toml"))


def test_the_named_file_goes_first_then_the_variable_and_the_user(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_user = user_file(here / "home" / ".config")
    assert locate() == str(of_user)
    of_variable = write(here, PROFILE)
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(of_variable))
    assert locate() == str(of_variable)
    assert ConfigFile.read(str(of_user)).path == str(of_user)


def test_the_working_directory_is_not_searched(here: Path) -> None:
    write(here / "work", PROFILE)
    with pytest.raises(
        ProfileError, match="in the working directory is not read, since somebody else may"
    ):
        ConfigFile.read()
    of_user = user_file(here / "home" / ".config")
    assert ConfigFile.read().path == str(of_user)


def test_the_users_configuration_directory_follows_xdg_config_home(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "etc"))
    moved = user_file(here / "etc")
    assert locate() == str(moved)
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert user_file(here / "home" / ".config") == Path(locate())


def test_paths_may_begin_with_the_home_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(here / "home", PROFILE)
    assert ConfigFile.read("~/tokenadapter.toml").path == str(path)
    monkeypatch.setenv("TOKENADAPTER_CONFIG", "~/tokenadapter.toml")
    assert locate() == str(path)


def test_without_a_file_the_error_names_all_places(here: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        locate()
    message = str(caught.value)
    assert "There is no configuration file: TOKENADAPTER_CONFIG is not set" in message
    assert f"{here}/home/.config/tokenadapter/tokenadapter.toml does not exist." in message
    assert "working directory" not in message


def test_without_a_file_the_error_shows_one_that_works(here: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        locate()
    message = str(caught.value)
    assert "`tokenadapter init` to create" in message
    smallest = write(here, message.partition("\n\n")[2])
    (profile,) = (Profile(ConfigFile.read(str(smallest)), name) for name in ["billing"])
    assert profile.prefixes == ["https://api.example.com/"]


def test_a_variable_that_names_a_missing_file_is_an_error_although_another_file_exists(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file(here / "home" / ".config")
    monkeypatch.setenv("TOKENADAPTER_CONFIG", str(here / "gone.toml"))
    with pytest.raises(ProfileError, match="does not exist, but TOKENADAPTER_CONFIG names it"):
        ConfigFile.read()


def unsearchable(directory: Path) -> str:
    directory.chmod(0o600)
    return "Permission denied"


def looping(directory: Path) -> str:
    directory.rmdir()
    directory.symlink_to(directory.name)
    return "Too many levels of symbolic links"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(
            unsearchable, marks=pytest.mark.skipif(not os.geteuid(), reason="root may search it")
        ),
        looping,
    ],
)
@pytest.mark.parametrize("variable", ["TOKENADAPTER_CONFIG", "XDG_CONFIG_HOME"])
def test_a_file_that_cannot_be_reached_is_not_a_missing_one(
    spoil: Callable[[Path], str], variable: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = here / "closed"
    directory.mkdir()
    path = directory / "tokenadapter" / "tokenadapter.toml"
    monkeypatch.setenv(variable, str(path if "TOKEN" in variable else directory))
    reason = spoil(directory)
    with pytest.raises(ProfileError, match=f"The file cannot be read: {reason}"):
        ConfigFile.read()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(
    here: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_is_alone_in", lambda gid: False)
    write(here / "work", PROFILE).chmod(mode)
    with pytest.raises(
        ProfileError, match=r"Other users can write to the file \(mode 0.*Run `chmod go-w /"
    ):
        read(here)


def test_a_file_of_another_user_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "work", PROFILE)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    if uid == 0:  # every user trusts root
        os.chown(here / "work" / "tokenadapter.toml", 12345, -1)
    with pytest.raises(ProfileError, match=r"The file belongs to another user .* run any program"):
        read(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to root")
def test_a_file_of_root_is_accepted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "work", PROFILE).chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "billing" in read(here).tables


def test_a_link_is_judged_by_its_target(here: Path) -> None:
    target = write(here, PROFILE)
    (here / "work" / "tokenadapter.toml").symlink_to(target)
    assert "billing" in read(here).tables
    target.chmod(0o666)
    with pytest.raises(ProfileError, match="Other users can write to the file"):
        read(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody")
def test_a_link_of_another_user_is_refused(here: Path) -> None:
    """Relative paths of certificates and stores would lead to files of that user."""
    link = here / "work" / "tokenadapter.toml"
    link.symlink_to(write(here, PROFILE))
    os.chown(link, 12345, -1, follow_symlinks=False)
    with pytest.raises(ProfileError, match="The file belongs to another user"):
        read(here)


def test_only_a_regular_file_is_read(here: Path) -> None:
    os.mkfifo(here / "work" / "tokenadapter.toml", 0o600)
    with pytest.raises(ProfileError, match="This is not a regular file"):
        read(here)
    with pytest.raises(ProfileError, match="The file does not exist"):
        ConfigFile.read(str(here / "gone.toml"))
    with pytest.raises(ProfileError, match="The file cannot be read: Is a directory"):
        ConfigFile.read(str(here))


def test_a_broken_link_is_an_error(here: Path) -> None:
    path = user_file(here / "home" / ".config")
    path.unlink()
    path.symlink_to(here / "gone")
    with pytest.raises(ProfileError, match="The file does not exist"):
        ConfigFile.read()


def test_a_file_that_is_not_utf_8_is_refused(here: Path) -> None:
    path = write(here / "work", "")
    path.write_bytes(b'[billing]\nprefix = "\xff"\n')
    with pytest.raises(ProfileError, match=r"The file is not UTF-8 text \(byte 20\)"):
        read(here)


# --- the line of a key ---------------------------------------------------------------------

TEXT = """\
# a comment with [brackets] and a = sign
[billing]
prefix = "https://api.example/"  # [not.a.table]
"quoted key" = 1

  [ billing . source ]
  type = "login"
json.user = "ada"

[other.source]
type = "password"
inline = { env = "X" }
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("billing", 2),
        ("billing.prefix", 3),
        ("billing.quoted key", 4),
        ("billing.source", 6),
        ("billing.source.type", 7),
        ("billing.source.json.user", 8),
        ("other.source.type", 11),
        ("other.source.inline.env", 12),
        ("other.source.missing", 10),
        ("billing.missing", 2),
        ("other", None),
        ("nothing", None),
    ],
)
def test_a_missing_key_has_the_line_of_its_table(key: str, line: int | None) -> None:
    assert line_of(TEXT, key.split(".")) == line
