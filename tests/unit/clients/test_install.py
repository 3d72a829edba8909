"""Installed adapters: which requests are signed, by which transport, and until when."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import wraps
from typing import Any

import pytest
import requests
import requests_mock
import responses
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import Retry

from tokenadapter import (
    ClientCredentials,
    RefreshToken,
    Token,
    TokenAdapter,
    install,
    installed,
    uninstall,
)
from tokenadapter.testing import TokenServer

PLAIN = requests.Session.get_adapter, requests.Session.send


def client(server: TokenServer) -> ClientCredentials:
    return ClientCredentials(server.token_url, client_id="client", client_secret="secret")


def signed(server: TokenServer, **settings: Any) -> TokenAdapter:
    return TokenAdapter(server.api_url, client(server), **settings)


def fixed(text: str) -> Any:
    def source(previous: Token | None) -> str:
        return text

    return source


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    uninstall()
    assert (requests.Session.get_adapter, requests.Session.send) == PLAIN


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


# --- signed requests ---------------------------------------------------------------------------


class Sender(HTTPAdapter):
    """Records that it has sent a request."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sent: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.sent.append(request)
        return super().send(request, **kwargs)


class OwnLookup(requests.Session):
    """Ignores mounted adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = Sender()

    def get_adapter(self, url: str) -> BaseAdapter:
        return self.sender


class Wrapper(BaseAdapter):
    seen: tuple[tuple[bool, bool], ...] = ()

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self.inner = inner

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        is_signed, has_ours = "Authorization" in request.headers, type(self.inner) is TokenAdapter
        Wrapper.seen += ((is_signed, has_ours),)
        return self.inner.send(request, **kwargs)


class Forwarding(requests.Session):
    """Overrides both methods and calls those of its base class."""

    def get_adapter(self, url: str) -> BaseAdapter:
        return Wrapper(super().get_adapter(url))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        return super().send(request, **kwargs)


def test_module_level_calls_and_all_sessions_are_signed(
    server: TokenServer, session: requests.Session
) -> None:
    with installed(signed(server)):
        assert session.get(f"{server.api_url}x").ok
        assert requests.get(f"{server.api_url}x").ok
        with requests.Session() as later:
            assert later.post(f"{server.api_url}x", data=b"body").ok
        server.expire_now()
        answer = requests.put(f"{server.api_url}x", data=iter([b"bo", b"dy"]))
        assert [past.status_code for past in answer.history] == [401]
        assert "Authorization" not in answer.request.headers
    assert session.get(f"{server.api_url}x").status_code == 401
    assert server.stats.renewals == 2


@pytest.mark.parametrize("kind", [OwnLookup, Forwarding])
def test_sessions_that_override_methods_are_signed(
    server: TokenServer, kind: type[requests.Session]
) -> None:
    Wrapper.seen = ()
    with kind() as session, installed(signed(server)):
        assert session.get(f"{server.api_url}x").ok
        answer = session.get(f"{server.api_url}redirect?to={server.url}/api/y&status=307")
        assert answer.ok
        assert len(answer.history) == 1
    # Ours comes first, then whatever they have.
    if isinstance(session, OwnLookup):
        assert all("Authorization" in request.headers for request in session.sender.sent)
    else:
        assert Wrapper.seen == ((True, False),) * 3


def test_a_session_with_a_mocked_get_adapter_is_signed(
    server: TokenServer, session: requests.Session
) -> None:
    with requests_mock.Mocker() as mock:
        mock.get("https://elsewhere.example.com/")
        session.get("https://elsewhere.example.com/")
    assert "get_adapter" in vars(session)
    with installed(signed(server)):
        assert session.get(f"{server.api_url}x").ok


def test_other_requests_are_left_alone(server: TokenServer, session: requests.Session) -> None:
    with installed(signed(server)):
        assert session.get_adapter(server.public_url) is session.adapters["http://"]
        answer = session.get(f"{server.public_url}x")
        assert "authorization" not in answer.json()["headers"]
        # From under the prefix to a place outside it, and back.
        there = f"{server.api_url}redirect?to={server.public_url}x&status=307"
        assert "authorization" not in session.get(there).json()["headers"]


@pytest.mark.parametrize(
    "tail", ["../public/x", "%2e%2e/public/x", "..%2Fpublic", "..;/public/x", "%5C..%5Cpublic"]
)
def test_no_spelling_of_a_url_leads_outside_the_prefix(server: TokenServer, tail: str) -> None:
    with installed(TokenAdapter(server.api_url, fixed("secret-token"))), requests.Session() as ours:
        request = requests.Request("GET", server.public_url).prepare()
        request.url = server.api_url + tail
        ours.send(request)
    assert all("authorization" not in each.headers for each in server.requests)


# --- the transport -----------------------------------------------------------------------------


def test_the_adapter_of_the_session_sends_the_request(
    server: TokenServer, session: requests.Session
) -> None:
    sender = Sender(max_retries=Retry(2, status_forcelist=[503], backoff_factor=0))
    session.mount("http://", sender)
    server.fail_next(503, endpoint="api", count=2)
    with installed(signed(server)):
        assert session.get(f"{server.api_url}x").ok
        (key,) = sender.poolmanager.pools.keys()
        assert sender.poolmanager.pools[key].num_requests == 3
    assert [request.headers["Authorization"][:14] for request in sender.sent] == ["Bearer access-"]


def test_retries_repeat_a_401_only_outside_the_prefix(
    server: TokenServer, session: requests.Session
) -> None:
    retries = Retry(1, status_forcelist=[401, 503], backoff_factor=0, raise_on_status=False)
    adapter = HTTPAdapter(max_retries=retries)
    session.mount("http://", adapter)
    ours = signed(server)
    with installed(ours):
        session.get(f"{server.api_url}x")
        server.expire_now()
        before = server.stats.api_requests
        assert [past.status_code for past in session.get(f"{server.api_url}x").history] == [401]
        assert server.stats.api_requests == before + 2
        assert adapter.max_retries is retries
        server.fail_next(401, endpoint="public")
        assert session.get(f"{server.public_url}x").ok


def test_an_adapter_that_is_no_http_adapter_is_used(session: requests.Session) -> None:
    mock = requests_mock.Adapter()
    mock.register_uri("GET", "https://api.example.com/x", text="there")
    session.mount("https://", mock)
    with installed(TokenAdapter("https://api.example.com/", fixed("made-up"))):
        assert session.get("https://api.example.com/x").text == "there"
    assert mock.last_request.headers["Authorization"] == "Bearer made-up"


def test_a_mounted_token_adapter_takes_precedence(
    server: TokenServer, session: requests.Session
) -> None:
    own = TokenAdapter(f"{server.api_url}own/", fixed("own")).mount(session)
    with installed(TokenAdapter(server.api_url, fixed("installed"))):
        assert session.get_adapter(f"{server.api_url}own/x") is own
        session.get(f"{server.api_url}own/x")
        session.get(f"{server.api_url}x")
        # Mounted wider than it covers, it is what sends there, as plain adapters are.
        session.mount("http://", own)
        session.get(f"{server.api_url}x")
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer own", "Bearer installed", "Bearer installed"]


def test_the_longest_prefix_signs_and_among_equals_the_last() -> None:
    def sent(url: str) -> str:
        with responses.RequestsMock() as mock:
            mock.get(url)
            requests.get(url)
            return str(mock.calls[0].request.headers.get("Authorization"))

    url = "https://api.example.com/v1/x"
    wide = TokenAdapter("https://api.example.com/", fixed("wide"))
    narrow = TokenAdapter("https://api.example.com/v1", fixed("narrow"))
    again = TokenAdapter("https://api.example.com/v1/", fixed("again"))
    with installed(wide, narrow):
        assert sent(url) == "Bearer narrow"
        assert sent("https://api.example.com/v2") == "Bearer wide"
        with installed(again), installed(wide):
            assert sent(url) == "Bearer again"
        assert sent(url) == "Bearer narrow"
    with responses.RequestsMock() as mock:
        mock.get(url)
        requests.get(url)
        assert "Authorization" not in mock.calls[0].request.headers


# --- token requests ----------------------------------------------------------------------------


def test_the_own_call_of_legacy_code_to_the_token_url_is_left_untouched(
    server: TokenServer,
) -> None:
    first = server.issue()["refresh_token"]
    source = RefreshToken(server.token_url, first, client_id="client", client_secret="secret")
    form = {"grant_type": "client_credentials"}
    with installed(TokenAdapter(server.url, source)):
        answer = requests.post(server.token_url, data=form, auth=("client", "secret"))
        assert answer.ok
        assert requests.get(f"{server.api_url}x").ok
    assert server.stats.reuse_detections == 0
    assert {request.headers["authorization"][:6] for request in server.requests[:2]} == {"Basic "}


def test_a_token_request_gets_no_token_of_another_adapter(server: TokenServer) -> None:
    """Nor a legacy call to it, which its own adapter would not cover at all."""
    neighbour = TokenAdapter(server.url, fixed("neighbour"))
    form = {"grant_type": "client_credentials"}
    with installed(neighbour, signed(server)):
        assert requests.get(f"{server.api_url}x").ok
        assert requests.post(server.token_url, data=form, auth=("client", "secret")).ok


@pytest.mark.parametrize("inline", [False, True])
def test_a_token_function_may_send_requests_under_its_own_prefix(
    server: TokenServer, inline: bool
) -> None:
    form = {"grant_type": "client_credentials"}

    def source(previous: Token | None) -> dict[str, Any]:
        answer = requests.post(server.token_url, data=form, auth=("client", "secret"))
        answer.raise_for_status()
        assert requests.get(f"{server.api_url}motd").status_code == 401
        return answer.json()  # type: ignore[no-any-return]

    answers: list[bool] = []

    def on_refresh(token: Token) -> None:
        # By then there is a token to use.
        answers.append(requests.get(f"{server.api_url}answers").ok)

    adapter = TokenAdapter(server.url, source, on_refresh=on_refresh, inline=inline)
    with installed(adapter):
        assert requests.get(f"{server.api_url}x").ok
        server.expire_now()
        assert requests.get(f"{server.api_url}x").ok
    assert answers == [True, True]
    assert server.stats.renewals == 2


# --- uninstalling ------------------------------------------------------------------------------


def test_adapters_can_be_uninstalled_in_any_order() -> None:
    one, two = (TokenAdapter(f"https://{name}.example.com/", fixed(name)) for name in "ab")

    def covered(session: requests.Session) -> str:
        found = [session.get_adapter(f"https://{name}.example.com/") for name in "ab"]
        return "".join("+" if isinstance(adapter, TokenAdapter) else "-" for adapter in found)

    with requests.Session() as session:
        install(one, two)
        install(one)
        assert covered(session) == "++"
        uninstall(one)
        assert covered(session) == "++"
        uninstall(one)
        assert covered(session) == "-+"
        with installed(one):
            uninstall()
            assert covered(session) == "+-"
            install(one)
        assert covered(session) == "+-"
        with pytest.raises(ValueError, match=r"b\.example\.com.* is not installed"):
            uninstall(one, two)
        assert covered(session) == "+-"
        uninstall(one)
        assert covered(session) == "--"
        uninstall()
        with pytest.raises(ValueError, match="is not installed"):
            uninstall(one)
        install(one)
        with pytest.raises(ValueError, match="is not installed"):
            uninstall(one, one)
        assert covered(session) == "+-"


def test_overlapping_blocks_can_end_in_any_order(server: TokenServer) -> None:
    first, second = installed(signed(server)), installed(signed(server))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert requests.get(f"{server.api_url}x").ok
    second.__exit__(None, None, None)
    assert requests.get(f"{server.api_url}x").status_code == 401


def test_two_blocks_replace_each_method_once(server: TokenServer) -> None:
    with installed(signed(server)), installed(signed(server)):
        assert requests.Session.send.__wrapped__ is PLAIN[1]  # type: ignore[attr-defined]


def test_a_block_that_fails_undoes_itself(server: TokenServer) -> None:
    with pytest.raises(ZeroDivisionError), installed(signed(server)):
        raise ZeroDivisionError
    assert (requests.Session.get_adapter, requests.Session.send) == PLAIN


def test_a_patch_over_ours_stays_after_uninstall(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    with monkeypatch.context() as patch:
        install(signed(server))
        ours = requests.Session.send

        @wraps(ours)
        def traced(self: requests.Session, request: Any, **kwargs: Any) -> requests.Response:
            sent.append(request.url)
            return ours(self, request, **kwargs)

        patch.setattr(requests.Session, "send", traced)
        uninstall()
        assert requests.get(f"{server.api_url}1").status_code == 401
        install(signed(server))
        assert requests.get(f"{server.api_url}2").ok
        uninstall()
        assert requests.Session.send is traced
    # The restored method is our earlier one, which has no effect.
    assert requests.get(f"{server.api_url}3").status_code == 401
    assert [url[-1] for url in sent] == ["1", "2"]
    assert requests.Session.send is ours
    install(signed(server))
    uninstall()


def test_the_next_install_repairs_a_method_that_was_restored(
    server: TokenServer,
) -> None:
    with installed(signed(server)):
        requests.Session.get_adapter = PLAIN[0]  # type: ignore[method-assign]
        with installed(signed(server)):
            assert requests.get(f"{server.api_url}x").ok


def test_mocks_over_and_under_an_installation_work(server: TokenServer) -> None:
    url = "https://api.example.com/x"
    adapter = TokenAdapter("https://api.example.com/", fixed("made-up"))
    with responses.RequestsMock() as mock, installed(adapter):
        mock.get(url)
        requests.get(url)
        assert mock.calls[0].request.headers["Authorization"] == "Bearer made-up"
    with installed(adapter):
        with responses.RequestsMock() as mock:
            mock.get(url)
            requests.get(url)
            assert mock.calls[0].request.headers["Authorization"] == "Bearer made-up"
        # This mock replaces all adapters, including ours.
        with requests_mock.Mocker() as mocker:
            mocker.get(url, text="mocked")
            assert requests.get(url).text == "mocked"
    with requests_mock.Mocker(real_http=True) as mocker, installed(signed(server)):
        mocker.get(url, text="mocked")
        assert requests.get(url).text == "mocked"


def test_threads_can_install_and_send_concurrently(server: TokenServer) -> None:
    adapter = signed(server)
    failures: list[object] = []

    def use() -> None:
        try:
            for _ in range(10):
                with installed(adapter), requests.Session() as session:
                    assert session.get(f"{server.api_url}x").ok
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.stats.renewals == 1


def test_a_forked_child_can_install_and_send(server: TokenServer) -> None:
    script = """
import os, sys, requests
from tokenadapter import ClientCredentials, TokenAdapter, install, uninstall
from tokenadapter.clients.signers import change_lock
api, token_url = sys.argv[1:]
install(TokenAdapter(api, ClientCredentials(token_url, client_id="client", client_secret="secret")))
with change_lock():  # as if another thread were installing
    child = os.fork()
    if not child:
        uninstall()
        os._exit(requests.get(api).status_code == 401)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
assert requests.get(api).ok
"""
    arguments = [server.api_url, server.token_url]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=60)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("adapter", "a TokenAdapter can be installed, not of type str"),
        (HTTPAdapter(), "a TokenAdapter can be installed, not of type HTTPAdapter"),
        (
            TokenAdapter("https://api.example.com/", fixed("x"), inner=HTTPAdapter()),
            "has an inner adapter: omit inner=, because each session sends with its own adapter",
        ),
    ],
)
def test_an_object_that_cannot_be_installed_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        install(wrong)
    with pytest.raises(TypeError, match=said), installed(wrong):
        pass
