"""The protocols of other programs: what they write, and what they read."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tokenadapter.cli.helper import Call, Guard, Issued
from tokenadapter.cli.helpers import bazel, docker, git, google, keyring, kubectl
from tokenadapter.config.problems import ProfileError
from tokenadapter.errors import UnsafeTarget

TOKEN = "made-up"
END = 1_800_000_000.0
Asked = list[tuple[str, ...]]


class Desk(Guard):
    """Gives a token for ``https://git.example.com/`` and whatever is below."""

    def __init__(self, *, username: str | None = None, until: float | None = END) -> None:
        self.prefixes = ["https://git.example.com"]
        self.username = username
        self.until = until
        self.scheme = "Bearer "
        self.renewed: list[tuple[str, str]] = []
        self._profile: Any = SimpleNamespace(prefixes=self.prefixes, name="code")

    def token(self, url: str) -> Issued | None:
        if not f"{url}/".startswith("https://git.example.com/"):
            return None
        return Issued(TOKEN, "Authorization", f"{self.scheme}{TOKEN}", self.until)

    def renew(self, url: str, rejected: str) -> None:
        self.renewed.append((url, rejected))


def call(*words: str, text: str = "", **environment: str) -> Call:
    return Call(words, lambda: text, environment)


def unread() -> str:
    raise AssertionError("standard input is the terminal")


def test_no_secret_is_shown() -> None:
    assert TOKEN not in repr(Desk().token("https://git.example.com/"))
    assert TOKEN not in repr(call(TOKEN, SECRET=TOKEN))


# --- git ---------------------------------------------------------------------------------

URL = "protocol=https\nhost=git.example.com\n"
BASIC = f"username=oauth2\npassword={TOKEN}\npassword_expiry_utc=1800000000"
BEARER = (
    f"capability[]=authtype\nauthtype=Bearer\ncredential={TOKEN}\nephemeral=1\n"
    "password_expiry_utc=1800000000"
)
NEWER = "capability[]=authtype\ncapability[]=state\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URL, BASIC),
        (f"{URL}path=team/code.git\n\n", BASIC),
        (URL.replace("\n", "\r\n"), BASIC),
        (f"{URL}username=ada\n", BASIC.replace("oauth2", "ada")),
        (f"{URL}wwwauth[]=Bearer\n", BASIC),
        (f"{NEWER}{URL}", BEARER),
        (f"{NEWER}{URL}wwwauth[]=Basic realm=x\nwwwauth[]=bearer realm=x\n", BEARER),
        (f"{NEWER}{URL}wwwauth[]=Basic realm=x\n", BASIC),
    ],
)
def test_git_gets_a_password_or_a_bearer_token_if_git_and_the_server_take_one(
    text: str, expected: str
) -> None:
    assert git.answer(call("get", text=text), Desk()) == (expected, 0)


def test_git_gets_a_password_if_the_profile_names_a_user() -> None:
    text, _ = git.answer(call("get", text=f"{NEWER}{URL}"), Desk(username="x-token-auth"))
    assert text == BASIC.replace("oauth2", "x-token-auth")


def test_git_gets_a_password_if_the_header_has_no_scheme() -> None:
    desk = Desk(until=None)
    desk.scheme = ""
    assert git.answer(call("get", text=f"{NEWER}{URL}"), desk)[0] == (
        f"username=oauth2\npassword={TOKEN}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host=git.example.com\n",
        "protocol=http\nhost=git.example.com\n",
        "protocol=https\nhost=git.example.com.evil.example\n",
        "protocol=https\nhost=git.example.com/.evil.example\n",
        "protocol=https\nhost=git.example.com?.evil.example\n",
        "protocol=https\nhost=git.example.com#evil.example\n",
        "protocol=https\nhost=git.example.com\\evil.example\n",
        "protocol=https\nhost=evil@git.example.com\n",
        "protocol=https\nhost=git.example%2ecom\n",
        "protocol=https://git.example.com/\nhost=evil.example\n",
    ],
)
def test_git_gets_nothing_for_another_or_an_ambiguous_host(text: str) -> None:
    desk = Desk()
    assert git.answer(call("get", text=text), desk) == ("", 0)
    git.answer(call("erase", text=f"{text}password={TOKEN}\n"), desk)
    assert [url for url, _ in desk.renewed if url.startswith("https://git.example.com/")] == []


def test_git_has_to_name_the_path_if_the_prefix_has_one() -> None:
    desk = Desk()
    desk.token = lambda url: None  # type: ignore[method-assign]
    desk.prefixes = ["https://git.example.com/team/"]
    for text in (URL, f"{URL}path=\n"):
        with pytest.raises(ProfileError, match=r"credential\.useHttpPath true"):
            git.answer(call("get", text=text), desk)
    for text in (f"{URL}path=other/code.git\n", "protocol=https\nhost=git.example.co\n"):
        assert git.answer(call("get", text=text), desk) == ("", 0)


def test_a_decoded_path_of_git_is_encoded_again() -> None:
    """Or what comes after its question mark would not count as a part of the path."""
    desk = Desk()
    text = f"{URL}path=team?/../../other\npassword=x\n"
    git.answer(call("erase", text=text), desk)
    assert desk.renewed == [("https://git.example.com/team%3F/../../other", "x")]


def test_a_token_that_git_erases_is_renewed() -> None:
    desk = Desk()
    for lines in (f"username=oauth2\npassword={TOKEN}\n", f"authtype=Bearer\ncredential={TOKEN}\n"):
        assert git.answer(call("erase", text=URL + lines), desk) == ("", 0)
    assert desk.renewed == [("https://git.example.com/", TOKEN)] * 2
    git.answer(call("erase", text=URL), desk)
    assert len(desk.renewed) == 2


@pytest.mark.parametrize("words", [("store",), ("capability",)])
def test_other_operations_of_git_need_nothing(words: tuple[str, ...]) -> None:
    desk = Desk()
    assert git.answer(Call(words, unread, {}), desk) == ("", 0)
    assert desk.renewed == []


# --- kubectl -----------------------------------------------------------------------------

CLUSTER = {"spec": {"cluster": {"server": "https://git.example.com/k8s"}, "interactive": False}}


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_kubectl_gets_a_credential_of_its_version(version: str) -> None:
    asked = {"apiVersion": f"client.authentication.k8s.io/{version}", **CLUSTER}
    text, code = kubectl.answer(
        Call((), unread, {"KUBERNETES_EXEC_INFO": json.dumps(asked)}), Desk()
    )
    assert code == 0
    assert json.loads(text) == {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "kind": "ExecCredential",
        "status": {"token": TOKEN, "expirationTimestamp": "2027-01-15T08:00:00Z"},
    }


def test_a_token_without_an_end_has_no_expiration_timestamp() -> None:
    text, _ = kubectl.answer(call(KUBERNETES_EXEC_INFO=json.dumps(CLUSTER)), Desk(until=None))
    assert json.loads(text)["status"] == {"token": TOKEN}


def test_kubectl_has_to_name_its_cluster() -> None:
    for text in ("", "{}", '{"spec": {"cluster": {"server": 5}}}'):
        with pytest.raises(ProfileError, match="provideClusterInfo: true"):
            kubectl.answer(call(KUBERNETES_EXEC_INFO=text), Desk())
    other = {"spec": {"cluster": {"server": "https://evil.example"}}}
    with pytest.raises(UnsafeTarget, match="The URL is outside"):
        kubectl.answer(call(KUBERNETES_EXEC_INFO=json.dumps(other)), Desk())


@pytest.mark.parametrize(
    "text", ["x", "[]", "[" * 100_000, '{"spec": []}', '{"apiVersion": "v1"}', '{"apiVersion": 1}']
)
def test_invalid_input_of_kubectl_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="not an ExecCredential"):
        kubectl.answer(call(KUBERNETES_EXEC_INFO=text), Desk())


# --- bazel -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_bazel_gets_the_header_and_its_end(scheme: str) -> None:
    asked = {"uri": f"{scheme}://git.example.com/file", "more": 1}
    text, code = bazel.answer(call("get", text=json.dumps(asked)), Desk())
    assert code == 0
    assert json.loads(text) == {
        "headers": {"Authorization": [f"Bearer {TOKEN}"]},
        "expires": "2027-01-15T08:00:00Z",
    }
    text, _ = bazel.answer(call("get", text=json.dumps(asked)), Desk(until=None))
    assert "expires" not in json.loads(text)


def test_a_uri_outside_the_prefix_is_an_error_to_bazel() -> None:
    with pytest.raises(UnsafeTarget):
        bazel.answer(call("get", text='{"uri": "https://evil.example/"}'), Desk())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"uri": 5}', "[" * 100_000])
def test_invalid_input_of_bazel_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="no JSON object with a uri"):
        bazel.answer(call("get", text=text), Desk())
    with pytest.raises(ProfileError, match="the word get"):
        bazel.answer(call("set", text=text), Desk())


# --- docker ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["git.example.com", "https://git.example.com/v1/"])
def test_docker_gets_the_token_as_a_password(server: str) -> None:
    text, code = docker.answer(call("get", text=f"{server}\n"), Desk(username="AWS"))
    assert code == 0
    assert json.loads(text) == {"ServerURL": server, "Username": "AWS", "Secret": TOKEN}


@pytest.mark.parametrize("server", ["", "evil.example", "http://git.example.com/", "a@evil"])
def test_docker_gets_nothing_for_another_registry(server: str) -> None:
    text, code = docker.answer(call("get", text=server), Desk())
    assert (text, code) == ("credentials not found in native keychain", 1)


def test_docker_lists_the_prefixes_and_no_token() -> None:
    text, code = docker.answer(Call(("list",), unread, {}), Desk())
    assert (json.loads(text), code) == ({"https://git.example.com": "oauth2"}, 0)


@pytest.mark.parametrize("word", ["store", "erase", "version"])
def test_the_error_for_docker_names_the_alternative(word: str) -> None:
    text, code = docker.answer(Call((word,), unread, {}), Desk())
    assert code == 1
    assert text.startswith(f"tokenadapter does not {word}: use ")


# --- google ------------------------------------------------------------------------------

JWT = "urn:ietf:params:oauth:token-type:jwt"


def google_call(**changes: str) -> Call:
    names = {"AUDIENCE": "//git.example.com/provider", "TOKEN_TYPE": JWT, "INTERACTIVE": "0"}
    names |= changes
    return Call((), unread, {f"GOOGLE_EXTERNAL_ACCOUNT_{name}": names[name] for name in names})


@pytest.mark.parametrize("kind", ["jwt", "id_token"])
def test_google_gets_the_token_for_its_audience(kind: str) -> None:
    kind = f"urn:ietf:params:oauth:token-type:{kind}"
    text, code = google.answer(google_call(TOKEN_TYPE=kind), Desk())
    assert code == 0
    assert json.loads(text) == {
        "version": 1,
        "success": True,
        "token_type": kind,
        "id_token": TOKEN,
        "expiration_time": 1_800_000_000,
    }
    assert "expiration_time" not in google.answer(google_call(), Desk(until=None))[0]


def test_google_gets_nothing_for_another_audience() -> None:
    for audience in ("", "//evil.example/", "evil"):
        with pytest.raises(UnsafeTarget):
            google.answer(google_call(AUDIENCE=audience), Desk())


def test_google_gets_no_other_type_and_no_login() -> None:
    with pytest.raises(ProfileError, match="of the type saml2"):
        google.answer(google_call(TOKEN_TYPE="saml2"), Desk())
    with pytest.raises(ProfileError, match="expects this command to log in"):
        google.answer(google_call(INTERACTIVE="1"), Desk())


# --- keyring -----------------------------------------------------------------------------

INDEX = "https://git.example.com/simple/"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["get", INDEX, "ada"], TOKEN),
        (["get", INDEX, "--mode", "creds"], f"oauth2\n{TOKEN}"),
        (
            ["--mode=creds", "--output=json", "get", INDEX],
            f'{{"username": "oauth2", "password": "{TOKEN}"}}',
        ),
        (
            ["--mode=creds", "--output=json", "get", INDEX, "ada"],
            f'{{"username": "ada", "password": "{TOKEN}"}}',
        ),
    ],
)
def test_pip_and_uv_get_the_token_in_the_ways_they_ask(words: list[str], expected: str) -> None:
    assert keyring.answer(Call(words, unread, {}), Desk()) == (expected, 0)


@pytest.mark.parametrize(
    "words",
    [
        ["get", "https://evil.example/", "ada"],
        ["get", "git.example.com", "ada"],
        ["set", INDEX, "ada"],
        ["del", INDEX, "ada"],
    ],
)
def test_pip_and_uv_get_nothing_for_another_index(words: list[str]) -> None:
    assert keyring.answer(Call(words, unread, {}), Desk()) == ("", 1)
