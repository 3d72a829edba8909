"""What a token source may be, and what a plain function is taken to present."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from doubles import Authority

from tokenadapter.function_grant import FunctionGrant, function_grant
from tokenadapter.interchange import Credential
from tokenadapter.keeper import TokenKeeper
from tokenadapter.protocols import Grant
from tokenadapter.token import Token


def obtain(previous: Token | None) -> str:
    return f"after {previous and previous.access_token}"


def test_a_grant_is_taken_as_it_is_even_if_it_can_be_called() -> None:
    class Both(Authority):
        def __call__(self, previous: Token | None) -> str:
            raise AssertionError

    for grant in (Authority(), Both()):
        assert TokenKeeper(grant).grant is grant


def test_a_function_becomes_a_grant_for_whom_it_is_told() -> None:
    grant = function_grant(obtain, {"user": "me"})
    assert isinstance(grant, Grant)
    assert grant.whose == {"user": "me"}
    assert (grant.asked, grant.urls, grant.grace) == ({}, (), 0)
    assert grant.deadline > 0


@pytest.mark.parametrize("source", ["s3cr3t", None, {"access_token": "s3cr3t"}])
def test_what_is_neither_is_refused_by_its_type(source: Any) -> None:
    with pytest.raises(TypeError, match=f"not of type {type(source).__name__}$"):
        function_grant(source, {})


def test_a_function_is_given_the_previous_token() -> None:
    grant = FunctionGrant(obtain, {})
    [credential] = grant.credentials(None)
    assert grant.fetch(credential, None) == "after None"
    assert grant.fetch(credential, Token("abc")) == "after abc"


@pytest.mark.parametrize("previous", [None, Token("abc")])
def test_a_function_spends_nothing_where_there_is_no_refresh_token(previous: Token | None) -> None:
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


def test_telling_a_grant_from_a_function_loads_nothing_dear() -> None:
    program = (
        "import sys; old = {*sys.modules};"
        "from tokenadapter import TokenKeeper; TokenKeeper(lambda previous: '');"
        "print({'dataclasses', 'inspect', 'requests'} & {*sys.modules} - old)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
