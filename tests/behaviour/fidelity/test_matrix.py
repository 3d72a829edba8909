"""Every kind of body, state of the token and route to the server, in pairs: a body arrives in full
or not at all."""

from __future__ import annotations

import hashlib
import time
from itertools import combinations, count, product
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from tokenadapter import TokenAdapter, TokenKeeper
from tokenadapter.testing import TokenServer

from .bodies import KINDS, Kind, Place
from .conftest import Way

numbers = count()


class Revoking(HTTPAdapter):
    """Has the token of its first request revoked, which is signed by then and not yet sent."""

    server: TokenServer | None = None

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        if self.server is not None:
            self.server.revoke(request.headers["Authorization"].removeprefix("Bearer "))
            self.server = None
        return super().send(request, *args, **kwargs)


class Adapter(TokenAdapter, Revoking):
    pass


STATES = {
    "valid": ([], [200]),
    "expired": ([], [200]),
    "revoked before": ([401], [401, 200]),
    "revoked between": ([401], [401, 200]),
}


WAYS = ["http", "https", "proxy", "tunnel"]
# All pairs of two values, in a quarter of all combinations: there are as many states as ways, and
# the way moves on by one from state to state and from body to body.
PAIRS = [
    (kind, state, WAYS[(i + j) % len(WAYS)])
    for i, kind in enumerate(KINDS)
    for j, state in enumerate(STATES)
]


def test_each_pair_of_values_is_tested() -> None:
    values = zip(*PAIRS, strict=True)
    for wanted, found in zip(
        combinations((KINDS, STATES, WAYS), 2), combinations(values, 2), strict=True
    ):
        assert set(zip(*found, strict=True)) == set(product(*wanted))


@pytest.mark.filterwarnings("ignore::requests.exceptions.FileModeWarning")
@pytest.mark.parametrize(("kind", "state", "way"), PAIRS)
def test_a_body_arrives_in_full_or_the_401_is_handed_on(
    kind: str, state: str, way: str, ways: dict[str, Way], place: Place
) -> None:
    _, settings, repeats = KINDS[kind]
    server = ways[way].server
    past, statuses = STATES[state]
    if not repeats and past:
        past, statuses = [], [401]
    with ways[way].session() as session:
        # In clear, a proxy reads the token.
        allow_http = way == "proxy"
        source = ways[way].source()
        adapter = Adapter(server.api_url, source, allow_http=allow_http, **settings).mount(session)
        # On a new connection, and then on one that is there.
        for stream in (False, True):
            adapter.keeper = keeper = TokenKeeper(ways[way].source())
            bring_about(state, server, adapter)
            url = f"{server.api_url}{next(numbers)}"
            answer, whole = sent(session, url, KINDS[kind], place, stream=stream)

            assert [each.status_code for each in answer.history] == past
            if statuses[-1] == 200:
                assert answer.json()["sha256"] == hashlib.sha256(whole).hexdigest()
            else:
                assert answer.json() == {"error": "invalid_token"}
            arrived = [each for each in server.requests[-4:] if server.url + each.path == url]
            assert [each.status for each in arrived] == statuses
            for each in arrived:
                assert (each.method, each.length) == ("PUT", len(whole))
                assert each.sha256 == hashlib.sha256(whole).hexdigest()
            assert keeper.stats.get("Renewed", 0) == (state != "valid")
            if proxy := ways[way].proxy:
                assert proxy.requested[-1] == ("PUT", url) or proxy.requested[-1][0] == "CONNECT"


def bring_about(state: str, server: TokenServer, adapter: Adapter) -> None:
    """A token of that fate is the adapter's."""
    token = server.issue()
    if state == "expired":
        del token["expires_in"]
        token["expires_at"] = time.time() - 1
    adapter.keeper.adopt(token)
    if state in ("expired", "revoked before"):
        server.revoke(token["access_token"])
    elif state == "revoked between":
        adapter.server = server


def sent(
    session: requests.Session, url: str, kind: Kind, place: Place, *, stream: bool
) -> tuple[requests.Response, bytes]:
    """The answer to a request with a body of that kind, and what is in the body.  Neither is the
    request changed, nor a stream read beforehand."""
    kwargs, whole = kind[0](place)
    request = session.prepare_request(requests.Request("PUT", url, **kwargs))
    if whole is None:
        assert isinstance(request.body, (bytes, str))
        whole = request.body if isinstance(request.body, bytes) else request.body.encode()
    headers = dict(request.headers)
    answer = session.send(request, stream=stream, verify=session.verify, proxies=session.proxies)
    assert answer._content_consumed is not stream
    assert answer.request is request
    assert dict(request.headers) == headers
    return answer, whole
