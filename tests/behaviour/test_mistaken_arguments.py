"""Arguments of a wrong kind raise a clear error, or work as intended."""

from __future__ import annotations

import asyncio
import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import requests
from doubles import Clockwork, Shelf
from profiles import write
from requests.adapters import HTTPAdapter

from tokenadapter import (
    CallbackStore,
    ClientCredentials,
    Login,
    MemoryStore,
    Password,
    RefreshToken,
    RequestsAuth,
    Token,
    TokenAdapter,
    TokenAuth,
    TokenKeeper,
    TokenMiddleware,
    TokenPoolManager,
    alogin,
    expired_on,
    install,
    login,
    retrofit,
)
from tokenadapter.config.config_file import ConfigFile
from tokenadapter.config.profile import Profile
from tokenadapter.spelling import takes_argument
from tokenadapter.testing import TokenServer

API = "https://api.example.com/"
ID = "https://id.example.com/token"


refreshed = RefreshToken(ID, client_id="client")


def source(previous: Token | None) -> str:
    return "made-up"


# --- classes and modules ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RefreshToken, ClientCredentials, Login, dict])
def test_a_class_in_place_of_a_source_is_named(kind: type) -> None:
    message = rf"not the class {kind.__name__}: pass an instance, {kind.__name__}\(\.\.\.\)$"
    with pytest.raises(TypeError, match=message):
        TokenAdapter(API, kind)
    with pytest.raises(TypeError, match=message):
        TokenKeeper(kind)


def test_a_class_in_place_of_an_adapter_to_install_is_named() -> None:
    message = r"not the class TokenAdapter: pass an instance, TokenAdapter\(\.\.\.\)$"
    with pytest.raises(TypeError, match=message):
        install(TokenAdapter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (partial(ClientCredentials, ID, "client", "s3cret"), "token_url"),
        (partial(RefreshToken, ID, "s3cret", "client"), "token_url, refresh_token"),
    ],
)
def test_a_source_with_too_many_arguments_by_position_names_the_source(
    call: partial[Any], names: str
) -> None:
    message = rf"^{call.func.__name__}\(\) takes only {names} by position: pass the others by name"
    with pytest.raises(TypeError, match=message) as caught:
        call()
    assert "s3cret" not in str(caught.value)


def test_a_class_in_place_of_an_inner_adapter_is_named() -> None:
    with pytest.raises(TypeError, match=r"inner must be an adapter, not the class HTTPAdapter: "):
        TokenAdapter(API, source, inner=HTTPAdapter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (requests, "mount() takes a requests.Session, not the module requests"),
        (requests.Session, "mount() takes a requests.Session, not the class Session"),
        ("session", "mount() takes a requests.Session, not of type str"),
    ],
)
def test_an_object_that_is_not_a_session_is_named_and_unchanged(target: Any, message: str) -> None:
    adapters = requests.adapters
    with pytest.raises(TypeError) as caught:
        TokenAdapter(API, source).mount(target)
    assert str(caught.value).startswith(message)
    assert "tokenadapter.install()" in str(caught.value)
    assert requests.adapters is adapters


def test_a_module_cannot_be_retrofitted() -> None:
    with pytest.raises(TypeError, match=r"not the module requests$"):
        retrofit(requests, API, source)  # type: ignore[arg-type]


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(ClientCredentials, ID, clientid="a", client_secret="b"),
         "ClientCredentials() takes no argument 'clientid'. Did you mean 'client_id'?"),
        (partial(ClientCredentials, ID, client_id="a", client_secrets="b"),
         "ClientCredentials() takes no argument 'client_secrets'. Did you mean 'client_secret'?"),
        (partial(RefreshToken, ID, client_id="a", acount="ada"),
         "RefreshToken() takes no argument 'acount'. Did you mean 'account'?"),
        (partial(RefreshToken, ID, client_id="a", scopes="ada"),
         "RefreshToken() takes no argument 'scopes'. Did you mean 'scope'?"),
        (partial(Password, ID, client_id="a", user_name="ada", password="p"),
         "Password() takes no argument 'user_name'. Did you mean 'username'?"),
        (partial(Login, ID, jsn={}),
         "Login() takes no argument 'jsn'. Did you mean 'json'?"),
        (partial(TokenAdapter, API, source, stor=None),
         "TokenAdapter() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(TokenAdapter, API, source, pool_size=4),
         "TokenAdapter() takes no argument 'pool_size'. Did you mean 'pool_maxsize'?"),
        (partial(TokenAuth, API, source, stor=None),
         "TokenAuth() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(TokenMiddleware, API, source, stor=None),
         "TokenMiddleware() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(RequestsAuth, API, source, stor=None),
         "RequestsAuth() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(TokenPoolManager, API, source, stor=None),
         "TokenPoolManager() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(TokenPoolManager, API, source, max_size=3),
         "TokenPoolManager() takes no argument 'max_size'. Did you mean 'maxsize'?"),
        (partial(retrofit, requests.Session(), API, source, stor=None),
         "retrofit() takes no argument 'stor'. Did you mean 'store'?"),
        (partial(ClientCredentials, ID, client_id="a", zzz=1),
         "ClientCredentials() takes no argument 'zzz'."),
    ],
)  # fmt: skip
def test_a_misspelt_name_raises_an_error_with_the_class_and_the_closest_match(
    call: Any, message: str
) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


def test_a_class_of_ones_own_has_its_own_names() -> None:
    class Mine(RefreshToken):
        def __init__(self, *, tenant: str, **options: Any) -> None:
            super().__init__(f"https://{tenant}.example.com/token", **options)

    class Adapter(TokenAdapter):
        def __init__(self, tenant: str, **settings: Any) -> None:
            super().__init__(f"https://{tenant}.example.com/", source, **settings)

    assert Mine(tenant="a", client_id="b", account="c").owner["user"] == "c"
    with pytest.raises(TypeError, match=r"Mine\(\) takes no argument 'tennant'. Did you mean 'te"):
        Mine(tennant="a", client_id="b")
    assert Adapter("a", pool_maxsize=3).prefix == "https://a.example.com"
    with pytest.raises(TypeError, match=r"Adapter\(\) takes no argument 'pool_maxsze'"):
        Adapter("a", pool_maxsze=3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ClientCredentials, "client_id"),
        (RefreshToken, "refresh_token"),
        (TokenAdapter, "verdict"),
        (TokenAuth, "verdict"),
        (TokenMiddleware, "verdict"),
        (RequestsAuth, "verdict"),
        (TokenPoolManager, "num_pools"),
    ],
)
def test_the_signatures_are_still_those_of_the_constructors(kind: type, name: str) -> None:
    assert name in inspect.signature(kind).parameters


# --- functions -------------------------------------------------------------------------------


async def coroutine_function(*_: object) -> bool:
    raise AssertionError


class Asynchronous:
    async def __call__(self, *_: object) -> None:
        raise AssertionError

    async def method(self, *_: object) -> None:
        raise AssertionError

    async def generator(self, *_: object) -> Any:
        yield


@pytest.mark.parametrize(
    "function",
    [
        coroutine_function,
        partial(partial(coroutine_function), 1),
        Asynchronous(),
        partial(Asynchronous(), 1),
        Asynchronous().method,
        Asynchronous().generator,
        AsyncMock(),
    ],
)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (partial(TokenAdapter, API, source), "verdict"),
        (partial(RequestsAuth, API, source), "verdict"),
        (partial(TokenPoolManager, API, source), "verdict"),
        (partial(TokenAdapter, API, source), "attach"),
        (partial(TokenAuth, API, source), "attach"),
        (partial(TokenMiddleware, API, source), "attach"),
        (partial(TokenKeeper, source), "on_refresh"),
        (partial(TokenKeeper, source), "on_event"),
        (partial(TokenAuth, API, source), "on_event"),
        (partial(CallbackStore, save=print, lock=None), "load"),
        (partial(CallbackStore, load=print, lock=None), "save"),
        (partial(CallbackStore, load=print, save=print), "lock"),
        (partial(login, refreshed, MemoryStore()), "show"),
        (partial(login, refreshed, MemoryStore()), "browser"),
        (lambda **how: asyncio.run(alogin(refreshed, MemoryStore(), **how)), "show"),
    ],
)
def test_a_coroutine_function_that_would_never_run_is_refused(
    call: partial[Any], name: str, function: Any
) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a plain function, .* Define it with def"):
        call(**{name: function})


@pytest.mark.parametrize("kind", [TokenAuth, TokenMiddleware])
def test_a_verdict_that_is_awaited_may_be_a_coroutine_function(kind: Any) -> None:
    for verdict in (coroutine_function, Asynchronous(), expired_on(status=403)):
        kind(API, source, verdict=verdict)


class Awaitable:
    """What a plain function that calls a coroutine function returns."""

    def __await__(self) -> Any:
        raise AssertionError


def test_a_verdict_that_has_to_be_awaited_does_not_count_as_true() -> None:
    with TokenServer() as server, requests.Session() as session:
        mine = ClientCredentials(server.token_url, client_id="client", client_secret="secret")
        TokenAdapter(server.api_url, mine, verdict=lambda response: Awaitable()).mount(session)
        with pytest.raises(TypeError, match=r"^verdict returned an awaitable \(Awaitable\)"):
            session.post(f"{server.api_url}pay")
        assert (server.stats.api_requests, server.stats.renewals) == (1, 1)


class Mine:
    def without(self) -> str:
        return "made-up"

    def __call__(self, previous: Token | None) -> str:
        return "made-up"


class Bare:
    def __call__(self) -> str:
        return "made-up"


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda: "made-up", False),
        (lambda previous: "made-up", True),
        (lambda previous=None: "made-up", True),
        (lambda *previous: "made-up", True),
        (Mine().without, False),
        (Mine(), True),
        (Bare(), False),
        (Mine().__call__, True),
        (partial(source), True),
        (str, True),
        (len, True),
    ],
)
def test_the_parameter_of_a_function_is_detected(function: Any, takes: bool) -> None:
    assert takes_argument(function) is takes


@pytest.mark.parametrize("function", [lambda: "made-up", Mine().without, Bare(), Mine(), source])
def test_a_source_without_a_parameter_just_works(function: Any) -> None:
    clock = Clockwork()
    keeper = TokenKeeper(function, Shelf(clock), runtime=clock)
    assert keeper.current().access_token == "made-up"


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_named_source_without_a_parameter_just_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    code = f"{kind} token():\n    return 'made-up'\n"
    (tmp_path / "source_without_a_parameter.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "source_without_a_parameter", raising=False)
    config = write(
        tmp_path,
        f'[billing]\nprefix = "{API}"\nstore = "memory:without-a-parameter"\n'
        '[billing.source]\ncallable = "source_without_a_parameter:token"\n',
    )
    keeper = Profile(ConfigFile.read(str(config)), "billing").keeper()
    assert keeper.current().access_token == "made-up"


@pytest.mark.parametrize("text", ["Bearer made-up", "bearer made-up", "BEARER  made-up"])
def test_a_function_may_return_the_text_of_the_header(text: str) -> None:
    with TokenServer() as server, requests.Session() as session:
        TokenAdapter(server.api_url, lambda previous: text).mount(session)
        session.get(f"{server.api_url}x")
        assert server.requests[-1].headers["authorization"] == "Bearer made-up"


@pytest.mark.parametrize(
    ("text", "settings", "header", "value"),
    [
        ("Bearer made-up", {"scheme": ""}, "authorization", "Bearer made-up"),
        ("Token made-up", {"scheme": "Token"}, "authorization", "Token made-up"),
        ("Bearer", {}, "authorization", "Bearer Bearer"),
        ("Bearer-made-up", {}, "authorization", "Bearer Bearer-made-up"),
        ("made-up", {"header": "X-Key", "scheme": ""}, "x-key", "made-up"),
    ],
)
def test_only_the_scheme_of_the_header_is_removed(
    text: str, settings: Any, header: str, value: str
) -> None:
    with TokenServer() as server, requests.Session() as session:
        TokenAdapter(server.api_url, lambda previous: text, **settings).mount(session)
        session.get(f"{server.api_url}x")
        assert server.requests[-1].headers[header] == value
