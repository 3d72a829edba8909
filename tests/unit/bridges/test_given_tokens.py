"""Which token an SDK means when it says that its token was refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tokenadapter import ReauthRequired, RefreshConfigError, Token, TokenAdapter, TokenKeeper
from tokenadapter.bridges import Bridge
from tokenadapter.bridges.given_tokens import GivenTokens
from tokenadapter.testing import TokenServer


class Numbered:
    """A source whose tokens are numbered."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"token {self.count}"


@pytest.fixture
def source() -> Numbered:
    return Numbered()


@pytest.fixture
def given(source: Numbered) -> GivenTokens:
    return GivenTokens(TokenKeeper(source))


def test_the_refused_token_is_the_one_that_the_thread_was_given(given: GivenTokens) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        old = [pool.submit(given.token).result() for pool in (one, two)]
        new = [pool.submit(given.replacement).result() for pool in (one, two)]
    assert [token.access_token for token in old] == ["token 1"] * 2
    assert [token.access_token for token in new] == ["token 2"] * 2


@pytest.mark.parametrize("claims", [None, "claims"])
def test_the_refused_token_is_the_one_that_the_task_was_given(
    given: GivenTokens, claims: str | None
) -> None:
    async def main() -> list[str]:
        turn = asyncio.Event()

        async def request(*, is_first: bool) -> str:
            await given.atoken()
            if not is_first:
                await turn.wait()
            new = await given.areplacement(claims)
            turn.set()
            return new.access_token

        return await asyncio.gather(request(is_first=False), request(is_first=True))

    assert asyncio.run(main()) == ["token 2"] * 2


def test_a_refusal_in_another_thread_is_one_of_the_last_token(given: GivenTokens) -> None:
    given.token()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(given.replacement).result().access_token == "token 2"


def test_before_any_token_was_given_none_is_renewed(given: GivenTokens) -> None:
    given.keeper.current()
    assert given.replacement().access_token == "token 1"
    assert asyncio.run(GivenTokens(given.keeper).areplacement()).access_token == "token 1"


def test_a_request_that_is_refused_twice_causes_one_renewal(
    given: GivenTokens, source: Numbered
) -> None:
    given.token()
    assert given.replacement().access_token == "token 2"
    assert given.token().access_token == "token 2"  # for the replay
    assert given.replacement().access_token == "token 2"
    assert source.count == 2


def test_a_replacement_that_was_good_for_a_request_is_renewed_when_it_is_refused(
    given: GivenTokens,
) -> None:
    given.token()
    given.replacement()
    given.token()  # for the replay
    given.token()
    assert given.replacement().access_token == "token 3"


def test_a_program_that_asks_for_replacements_only_gets_another_each_time(
    given: GivenTokens,
) -> None:
    asked = [given.replacement().access_token for _ in range(4)]
    assert asked == ["token 1", "token 2", "token 3", "token 4"]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_same_claims_again_cause_no_second_renewal(
    given: GivenTokens, source: Numbered, is_async: bool
) -> None:
    def refused(claims: str) -> str:
        if is_async:
            return asyncio.run(given.areplacement(claims)).access_token
        return given.replacement(claims).access_token

    given.token()
    assert refused("a") == "token 2"
    given.token()
    assert refused("a") == "token 2"
    assert source.count == 2


def test_other_claims_cause_a_renewal(given: GivenTokens) -> None:
    given.token()
    given.replacement("a")
    given.token()
    assert given.replacement("b").access_token == "token 3"


def test_a_token_that_is_no_bearer_token_is_not_given() -> None:
    keeper = TokenKeeper(lambda: Token("text", token_type="DPoP"))
    with pytest.raises(RefreshConfigError, match="DPoP"):
        GivenTokens(keeper).token()


def test_errors_are_also_those_of_the_sdk() -> None:
    class Theirs(Exception):
        pass

    def source() -> str:
        raise ReauthRequired("It was refused.", reason="invalid_grant")

    given = GivenTokens(TokenKeeper(source), raises=Theirs)
    with pytest.raises(Theirs, match="It was refused") as caught:
        given.token()
    assert isinstance(caught.value, ReauthRequired)
    assert caught.value.reason == "invalid_grant"


def test_only_a_keeper_is_a_keeper(server: TokenServer) -> None:
    adapter = TokenAdapter(server.api_url, Numbered())
    with pytest.raises(TypeError, match=r"keeper must be a TokenKeeper, not .*TokenAdapter"):
        Bridge(adapter)  # type: ignore[arg-type]
    assert "MemoryStore" in repr(Bridge(adapter.keeper))
