"""Servers that refuse a request while its body is still being sent, or stop taking it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests_toolbelt import MultipartEncoder
from urllib3.exceptions import ProtocolError

from tokenadapter import Token, TokenAdapter

from .bodies import Place, Reader, chunks
from .gate import Gate

# More than the buffers of a loopback connection hold.
WHOLE = bytes(range(256)) * 16 * 1024
DIGEST = hashlib.sha256(WHOLE).hexdigest()

BODIES: dict[str, Callable[[Place], Any]] = {
    "bytes": lambda place: WHOLE,
    "BytesIO": lambda place: io.BytesIO(WHOLE),
    "file": lambda place: place.file(WHOLE),
    "generator": lambda place: chunks(WHOLE, 50_000),
    "reader": lambda place: Reader(WHOLE),
}
WAYS = ["close", "close at once", "say close", "stay", "late"]


def source(previous: Token | None) -> str:
    return "first" if previous is None else "second"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def mount(gate: Gate, session: requests.Session, **settings: Any) -> TokenAdapter:
    settings = {"pool_block": True, "pool_maxsize": 1, **settings}
    adapter = TokenAdapter(gate.url, source, **settings).mount(session)
    # A token that is refused when it is new is not renewed: this one has been there before.
    adapter.keeper.current()
    return adapter


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("how", WAYS)
def test_after_an_early_refusal_the_body_arrives_in_full(
    how: str, kind: str, place: Place, session: requests.Session
) -> None:
    with Gate(how) as gate:
        adapter = mount(gate, session)
        answer = session.put(gate.url, data=BODIES[kind](place), timeout=30)
        assert answer.status_code == 200
        assert [past.content for past in answer.history] == [b"refused"]
        assert gate.taken == [DIGEST]
        assert gate.heads == 2
        assert adapter.keeper.stats["Replayed"] == 1
        assert session.put(gate.url, data=b"next").ok


def test_after_an_early_refusal_an_encoder_arrives_in_full(
    place: Place, session: requests.Session
) -> None:
    def encoder() -> MultipartEncoder:
        return MultipartEncoder({"file": ("name", io.BytesIO(WHOLE))}, "boundary")

    with Gate("close") as gate:
        mount(gate, session)
        answer = session.put(gate.url, data=encoder(), timeout=30)
        assert answer.ok
        assert gate.taken == [hashlib.sha256(encoder().to_string()).hexdigest()]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("limit", [0, 1_000_000, len(WHOLE) - 1])
def test_beyond_the_limit_a_replay_depends_on_how_much_was_sent(
    how: str, limit: int, session: requests.Session
) -> None:
    with Gate(how) as gate:
        mount(gate, session, replay_limit=limit)
        answer = session.put(gate.url, data=chunks(WHOLE, 50_000), timeout=30)
        # Whole, or not at all.
        assert gate.taken == ([DIGEST] if answer.ok else [])
        assert answer.status_code in (200, 401)
        if how in ("stay", "late", "say close"):
            assert answer.status_code == 401
            assert answer.content == b"refused"


def test_a_body_is_not_read_ahead_of_sending(session: requests.Session) -> None:
    drawn: list[int] = []

    def body() -> Iterator[bytes]:
        for chunk in chunks(WHOLE, 50_000):
            drawn.append(len(chunk))
            yield chunk

    with Gate("close at once") as gate:
        adapter = mount(gate, session, max_replays=0)
        answer = session.put(gate.url, data=body(), timeout=30)
        assert answer.status_code == 401
        assert sum(drawn) < len(WHOLE)
        assert adapter.keeper.current().access_token == "second"


@pytest.mark.parametrize("how", ["stop reading", "answer and stop reading"])
@pytest.mark.parametrize("kind", ["bytes", "generator"])
def test_a_server_that_stops_reading_is_a_connection_error(
    how: str, kind: str, place: Place, session: requests.Session
) -> None:
    def failure(session: requests.Session) -> requests.ConnectionError:
        with pytest.raises(requests.ConnectionError) as caught:
            session.put(gate.url, data=BODIES[kind](place), timeout=(0.2, 30))
        return caught.value

    with Gate(how) as gate:
        plain = failure(session)
        adapter = mount(gate, session)
        ours = failure(session)
        assert type(ours) is type(plain)
        assert isinstance(ours.args[0], ProtocolError)
        assert str(ours) == str(plain)
        assert "Authorization" not in ours.request.headers
        assert adapter.keeper.stats["Renewed"] == 1
        assert gate.taken == []
        # The connection is not used again, and its place in the pool is free.
        gate.how = "late"
        assert session.put(gate.url, data=b"next", timeout=30).ok


@pytest.mark.parametrize("kind", ["iterable", "reader"])
def test_an_error_of_a_body_is_raised_and_causes_no_renewal(
    kind: str, session: requests.Session
) -> None:
    class Own(Exception):
        pass

    def body() -> Iterator[bytes]:
        yield b"some"
        raise Own

    class Broken(Reader):
        def read(self, size: int = -1) -> Any:
            raise Own

    with Gate("late") as gate:
        adapter = mount(gate, session)
        with pytest.raises(Own):
            session.put(gate.url, data=body() if kind == "iterable" else Broken(b""))
        assert adapter.keeper.stats["Renewed"] == 1
        assert session.put(gate.url, data=b"next").ok
