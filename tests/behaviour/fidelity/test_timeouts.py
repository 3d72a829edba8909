"""Timeouts of requests: the limit, the part of the request that exceeded it, and the
consequences."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from unit.sources.raw import answering
from urllib3.util import Timeout

from tokenadapter import (
    LockTimeout,
    RefreshTemporarilyFailed,
    RefreshToken,
    TokenAdapter,
    expired_on,
)
from tokenadapter.testing import TokenServer

from .conftest import Way


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


Mount = Callable[..., TokenAdapter]


@pytest.fixture
def mount(server: TokenServer, session: requests.Session) -> Mount:
    def mount(**settings: Any) -> TokenAdapter:
        adapter = TokenAdapter(server.api_url, Way(server).source(**settings)).mount(session)
        adapter.keeper.adopt(server.issue())
        return adapter

    return mount


TIMEOUTS = [0.2, (5, 0.2), Timeout(connect=5, read=0.2), Timeout(total=0.2)]


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=str)
@pytest.mark.parametrize("body", [None, b"body", iter([b"body"])], ids=["none", "bytes", "iter"])
def test_an_api_that_does_not_answer_causes_a_read_timeout(
    server: TokenServer, session: requests.Session, mount: Mount, timeout: Any, body: Any
) -> None:
    mount()
    with server.hold(endpoint="api"), pytest.raises(requests.ReadTimeout) as caught:
        session.put(f"{server.api_url}x", data=body, timeout=timeout)
    assert "Read timed out" in str(caught.value)
    assert server.stats.token_requests == 0


def test_a_replay_that_is_not_answered_is_a_read_timeout_too(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.fail_next(401, endpoint="api")
    server.fail_next(hang=True, endpoint="api")
    with pytest.raises(requests.ReadTimeout) as caught:
        session.put(f"{server.api_url}x", data=iter([b"body"]), timeout=(5, 1))
    assert "Authorization" not in caught.value.request.headers
    assert server.stats.renewals == 1


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=str)
def test_a_slow_renewal_times_out_with_its_own_error_and_continues(
    server: TokenServer, session: requests.Session, timeout: Any
) -> None:
    first = server.issue()["refresh_token"]
    source = RefreshToken(server.token_url, first, client_id="client", client_secret="secret")
    TokenAdapter(server.api_url, source).mount(session)
    with server.hold(processed=True) as hold:
        with pytest.raises(LockTimeout, match="renewal") as caught:
            session.put(f"{server.api_url}x", data=b"body", timeout=timeout)
        assert hold.arrived.wait(10)
    assert caught.value.request.url == f"{server.api_url}x"
    # What the renewal obtained is not lost: no second one is needed.
    assert session.put(f"{server.api_url}x", data=b"body").ok
    assert server.stats.token_requests == 1


def test_the_error_of_a_slow_renewal_after_a_refusal_has_the_refused_response(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.expire_now()
    with server.hold(processed=True), pytest.raises(LockTimeout, match="renewal") as caught:
        session.put(f"{server.api_url}x", data=iter([b"body"]), timeout=(5, 1))
    assert caught.value.response.status_code == 401
    assert caught.value.response.json() == {"error": "invalid_token"}
    assert session.put(f"{server.api_url}x", data=b"body").ok
    assert server.stats.token_requests == 1


def test_a_token_endpoint_that_does_not_answer_is_named_with_its_own_timeout(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount(timeout=1)
    server.expire_now()
    server.fail_next(hang=True)
    with pytest.raises(RefreshTemporarilyFailed, match="has not answered for 1 s") as info:
        session.get(f"{server.api_url}x", timeout=30)
    assert server.token_url in str(info.value)
    assert info.value.response.status_code == 401


# The renewal between the two has to be done within it, also on a busy machine.
@pytest.mark.parametrize(
    "timeout", [None, 60, (5, 60), Timeout(connect=5, read=60), Timeout(total=60)], ids=str
)
def test_request_and_replay_have_their_full_timeouts_each(
    server: TokenServer, session: requests.Session, timeout: Any
) -> None:
    seen: list[Any] = []

    class Watched(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            seen.append(kwargs["timeout"])
            return super().send(request, **{**kwargs, "timeout": 30})

    source = Way(server).source()
    TokenAdapter(server.api_url, source, inner=Watched()).mount(session).keeper.adopt(
        server.issue()
    )
    server.fail_next(401, endpoint="api")
    assert session.get(f"{server.api_url}x", timeout=timeout).history
    assert seen == [timeout, timeout]


def test_a_tiny_timeout_loses_no_grant(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.expire_now()
    with pytest.raises(requests.RequestException):
        session.get(f"{server.api_url}x", timeout=(5, 1e-9))
    assert session.get(f"{server.api_url}x", timeout=30).ok
    assert server.stats.families_revoked == 0
    assert server.stats.reuse_detections == 0


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals need the main thread"
)
def test_ctrl_c_while_waiting_for_a_renewal_does_not_cancel_it(
    server: TokenServer, session: requests.Session, mount: Mount
) -> None:
    mount()
    server.expire_now()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert hold.arrived.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with server.hold(processed=True) as hold:
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                session.put(f"{server.api_url}x", data=iter([b"body"]))
            thread.join()
    finally:
        signal.signal(signal.SIGINT, old)
    assert session.put(f"{server.api_url}x", data=b"body").ok
    assert server.stats.token_requests == 1
    assert server.stats.families_revoked == 0


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_verdict_waits_for_json_no_longer_than_one_read_may_take(
    secure: bool, tls: ssl.SSLContext, ca_file: str
) -> None:
    """And the caller reads on where the verdict stopped."""
    judged, too_late = threading.Event(), threading.Event()
    body = b'{"code": "expired"' + b" " * 1000 + b"}"

    def answer(connection: socket.socket) -> None:
        if secure:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 Yes\r\nContent-Type: application/json\r\nContent-Length: "
                b"%d\r\n\r\n" % len(body)
            )
            for sent in range(500):
                connection.sendall(body[sent : sent + 1])
                if judged.wait(0.02):
                    break
            else:
                too_late.set()
            connection.sendall(body[sent + 1 :])

    with answering(answer) as address, requests.Session() as session:
        session.verify = ca_file
        url = f"{'https' if secure else 'http'}://{address}/"
        verdict = expired_on(status=200, json={"code": "expired"})
        adapter = TokenAdapter(url, lambda previous: "made-up", verdict=verdict).mount(session)
        response = session.get(url, stream=True, timeout=0.5)
        judged.set()
        assert not too_late.is_set()
        assert response.raw._connection.sock.gettimeout() == 0.5
        assert response.content == body
        assert "Replayed" not in adapter.keeper.stats
