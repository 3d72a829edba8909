"""Which objects are token sources, and which credential a function is assumed to present."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doubles import Authority

from tokenadapter import MemoryStore, RefreshConfigError, StoreError, TokenError
from tokenadapter.core.function_grant import FunctionGrant, function_grant
from tokenadapter.core.keeper import TokenKeeper
from tokenadapter.protocols import Grant
from tokenadapter.token import Token
from tokenadapter.values import Credential


def obtain(previous: Token | None) -> str:
    return f"after {previous and previous.access_token}"


def test_a_callable_grant_is_used_as_a_grant() -> None:
    class Both(Authority):
        def __call__(self, previous: Token | None) -> str:
            raise AssertionError

    for grant in (Authority(), Both()):
        assert TokenKeeper(grant).grant is grant


def test_a_function_becomes_a_grant_with_the_given_owner() -> None:
    grant = function_grant(obtain, {"user": "me"})
    assert isinstance(grant, Grant)
    assert grant.owner == {"user": "me"}
    assert (grant.requested, grant.urls, grant.grace) == ({}, (), 0)
    assert grant.deadline > 0


@pytest.mark.parametrize("source", ["s3cr3t", None, {"access_token": "s3cr3t"}])
def test_a_source_of_another_type_is_refused(source: Any) -> None:
    kind = type(source).__name__
    with pytest.raises(TypeError, match=f"that returns a token, not of type {kind}$"):
        function_grant(source, {})


def test_a_function_is_given_the_previous_token() -> None:
    grant = FunctionGrant(obtain, {})
    [credential] = grant.credentials(None)
    assert grant.fetch(credential, None) == "after None"
    assert grant.fetch(credential, Token("abc")) == "after abc"


@pytest.mark.parametrize("previous", [None, Token("abc")])
def test_a_function_without_a_refresh_token_spends_nothing(previous: Token | None) -> None:
    [credential] = FunctionGrant(obtain, {}).credentials(previous)
    assert credential == Credential("function", "", opaque=True)


@pytest.mark.parametrize(
    "answer",
    [{"access_token": "abc", "refresh_token": "def"}, Token("abc", refresh_token="def")],
    ids=["mapping", "token"],
)
def test_a_function_that_has_returned_a_refresh_token_counts_as_spending(answer: Any) -> None:
    grant = FunctionGrant(lambda previous: answer, {})
    grant.fetch(*grant.credentials(None), None)
    [credential] = grant.credentials(None)
    assert credential == Credential("function", "", single_use=True, opaque=True)


def test_a_function_that_was_given_a_refresh_token_counts_as_spending() -> None:
    grant = FunctionGrant(obtain, {})
    grant.credentials(Token("abc", refresh_token="def"))
    assert grant.credentials(None)[0].single_use


def test_a_function_is_taken_to_spend_the_refresh_token() -> None:
    [credential] = FunctionGrant(obtain, {}).credentials(Token("abc", refresh_token="def"))
    assert credential == Credential("refresh_token", "def", single_use=True)


class Source:
    """A function that fails until its bug is fixed."""

    def __init__(self, fault: Any) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, previous: Token | None) -> Any:
        self.calls += 1
        if isinstance(self.fault, Exception):
            raise self.fault
        return self.fault


MISTAKES = [
    TypeError("s3cr3t"),
    AttributeError("s3cr3t"),
    NameError("s3cr3t"),
    ModuleNotFoundError("s3cr3t"),
    SyntaxError("s3cr3t"),
    5,
]


@pytest.mark.parametrize("fault", MISTAKES, ids=repr)
def test_a_bug_in_a_function_causes_no_backoff(fault: Any, tmp_path: Path) -> None:
    source, store = Source(fault), f"file:{tmp_path}/token.json"
    keeper = TokenKeeper(source, store)
    for _ in range(2):
        with pytest.raises(RefreshConfigError) as caught:
            keeper.current()
        assert caught.value.is_local
        assert "s3cr3t" not in str(caught.value)
    assert source.calls == 2
    source.fault = "corrected"
    assert TokenKeeper(source, store).current().access_token == "corrected"


@pytest.mark.parametrize(
    "fault",
    [
        OSError("down"),
        KeyError("access_token"),
        ValueError("no JSON"),
        AssertionError(),
        {"error": "busy"},
    ],
    ids=repr,
)
def test_errors_caused_by_an_outage_are_not_treated_as_bugs(fault: Any, tmp_path: Path) -> None:
    source = Source(fault)
    keeper = TokenKeeper(source, f"file:{tmp_path}/token.json")
    for _ in range(2):
        with pytest.raises(TokenError):
            keeper.current()
    assert source.calls == 1


def test_after_a_bug_the_outcome_of_the_presentation_is_unknown(
    tmp_path: Path,
) -> None:
    """It is presented again, without waiting for an answer."""
    source = Source({"access_token": "a", "refresh_token": "r", "expires_in": 3600})
    keeper = TokenKeeper(source, f"file:{tmp_path}/token.json")
    first = keeper.current()
    source.fault = TypeError()
    with pytest.raises(RefreshConfigError):
        keeper.renew(first)
    intent = (keeper.store.load().document or {})["intent"]
    assert (intent["attempt"], intent["awaited"]) == (1, [])
    source.fault = {"access_token": "b", "refresh_token": "s", "expires_in": 3600}
    assert keeper.renew(first).access_token == "b"
    assert "intent" not in (keeper.store.load().document or {})


def test_a_bug_causes_no_backoff_while_the_store_fails(tmp_path: Path) -> None:
    class Broken(MemoryStore):
        def load(self) -> Any:
            raise StoreError("It is down. Nothing was lost.")

    source = Source(TypeError())
    keeper = TokenKeeper(ClientGrant(source), Broken())
    for _ in range(2):
        with pytest.raises(RefreshConfigError):
            keeper.current()
    assert source.calls == 2


class ClientGrant(Authority):
    """A grant that spends nothing and calls *source*."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def credentials(self, previous: Token | None) -> list[Credential]:
        return [Credential("client", "secret")]

    def fetch(self, credential: Credential, previous: Token | None) -> Any:
        return self.source(previous)


def test_distinguishing_a_grant_from_a_function_imports_nothing_expensive() -> None:
    program = (
        "import sys; old = {*sys.modules};"
        "from tokenadapter import TokenKeeper; TokenKeeper(lambda previous: '');"
        "print({'dataclasses', 'inspect', 'requests'} & {*sys.modules} - old)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
