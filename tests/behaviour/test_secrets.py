"""The output of a full scenario has no secret."""

from __future__ import annotations

import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
import requests

from tokenadapter import (
    ClientCredentials,
    FileStore,
    Password,
    RefreshToken,
    TokenAdapter,
    TokenError,
)
from tokenadapter.testing import TokenServer

CLIENT_SECRET = "client-secret-of-this-test"
PASSWORD = "password-of-this-test"


def test_no_secret_in_anything_a_full_scenario_emits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    secrets: set[str] = {CLIENT_SECRET, PASSWORD}

    def show(*things: Any) -> None:
        for thing in things:
            shown.extend((repr(thing), str(thing), f"{thing}"))

    def fail(session: requests.Session, url: str) -> None:
        with pytest.raises(requests.RequestException) as info:
            session.get(url, timeout=5)
        error = info.value
        show(error, error.args, error.request.headers, error.request.url, error.__dict__)
        shown.append("".join(traceback.format_exception(error)))
        shown.append(repr(pickle.dumps(error)) if isinstance(error, TokenError) else "")
        cause: BaseException | None = error
        while cause is not None:
            show(cause, cause.__dict__)
            cause = cause.__cause__ or cause.__context__

    with (
        TokenServer(clients={"client": CLIENT_SECRET}, users={"user": PASSWORD}) as server,
        requests.Session() as session,
    ):
        settings: dict[str, Any] = {"client_id": "client", "client_secret": CLIENT_SECRET}
        first = server.issue()
        secrets.add(first["refresh_token"])
        for number, source in enumerate(
            [
                RefreshToken(server.token_url, first["refresh_token"], **settings),
                Password(server.token_url, "user", PASSWORD, **settings),
                ClientCredentials(server.token_url, client_auth="client_secret_post", **settings),
            ]
        ):
            store = FileStore(tmp_path / f"{number}.json")
            events: list[Any] = []

            def on_refresh(token: Any) -> None:
                secrets.update(filter(None, (token.access_token, token.refresh_token)))
                raise ValueError("in this test")

            adapter = TokenAdapter(
                server.api_url, source, store=store, on_event=events.append, on_refresh=on_refresh
            ).mount(session)
            url = server.api_url + "x"
            answer = session.get(url)
            server.expire_now()
            replayed = session.get(url, stream=True)
            shown.append(repr(pickle.dumps(replayed)))
            show(answer, answer.request.headers, replayed, replayed.history)
            server.expire_now()
            server.fail_next(503)
            fail(session, url)
            fail(session, url)
            server.expire_now()
            store_text = Path(tmp_path / f"{number}.json").read_text()
            show(adapter, adapter.keeper, source, store, adapter.keeper.current, events)
            assert CLIENT_SECRET not in store_text
            assert PASSWORD not in store_text
            shown.append(repr(pickle.dumps(adapter.keeper.store)))

        # A grant that is refused, and one whose client is.
        dead = TokenAdapter(
            server.api_url,
            RefreshToken(server.token_url, "refresh-dead-of-this-test", **settings),
            store=FileStore(tmp_path / "dead.json"),
        ).mount(session)
        secrets.add("refresh-dead-of-this-test")
        fail(session, server.api_url + "x")
        show(dead)
        with server.hold(endpoint="api"):
            TokenAdapter(server.api_url, ClientCredentials(server.token_url, **settings)).mount(
                session
            )
            with pytest.raises(requests.ReadTimeout) as info:
                session.get(server.api_url + "x", timeout=0.05)
            show(info.value, info.value.request.headers)
            shown.append("".join(traceback.format_exception(info.value)))

    shown.extend(record.getMessage() for record in caplog.records)
    shown.append(caplog.text)
    shown.extend(capfd.readouterr())
    everything = "\n".join(shown)
    assert len(secrets) >= 8
    assert len(everything) > 10_000
    assert [secret[:12] for secret in secrets if secret in everything] == []
