"""Errors are caught as errors of requests, and carry their evidence to threads and processes."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest
import requests

from tokenadapter import errors
from tokenadapter.errors import (
    LockTimeout,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    StoreError,
    TokenError,
    TokenNotPersisted,
    UnsafeTarget,
)

EVIDENCE: dict[type[TokenError], dict[str, Any]] = {
    TokenError: {},
    ReauthRequired: {"reason": "uncertain_rotation", "error": "invalid_grant"},
    RefreshTemporarilyFailed: {
        "retry_at": 1_700_000_000.0,
        "error": "temporarily_unavailable",
        "retry_after": 30.0,
        "processed": False,
    },
    RefreshConfigError: {"error": "invalid_client"},
    StoreError: {},
    TokenNotPersisted: {},
    LockTimeout: {},
    UnsafeTarget: {},
}
every_error = pytest.mark.parametrize("kind", EVIDENCE, ids=lambda kind: kind.__name__)


def test_every_error_has_a_test_case() -> None:
    assert sorted(kind.__name__ for kind in EVIDENCE) == sorted(errors.__all__)


@every_error
def test_every_error_is_a_requests_exception(kind: type[TokenError]) -> None:
    with pytest.raises(requests.RequestException, match=r"^What happened\.$"):
        raise kind("What happened.")
    assert issubclass(kind, TokenError)


def test_token_not_persisted_is_a_store_error() -> None:
    assert issubclass(TokenNotPersisted, StoreError)


def test_unsafe_target_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="plain http"):
        raise UnsafeTarget("plain http")


@every_error
def test_evidence_has_a_default_and_can_be_given(kind: type[TokenError]) -> None:
    bare, full = kind("What happened."), kind("What happened.", **EVIDENCE[kind])
    for name, value in EVIDENCE[kind].items():
        assert getattr(bare, name) == ("invalid_grant" if name == "reason" else None)
        assert getattr(full, name) == value


COPIES = {
    "again": lambda error: error.again(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
}


@every_error
@pytest.mark.parametrize("way", COPIES)
def test_a_copied_or_pickled_error_has_all_attributes(kind: type[TokenError], way: str) -> None:
    error = kind("What happened.", **EVIDENCE[kind])
    error.add_note("In the test.")
    twin = COPIES[way](error)
    assert twin is not error
    assert type(twin) is kind
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert vars(twin) is not vars(error)


@every_error
def test_again_returns_a_separate_copy(kind: type[TokenError]) -> None:
    error, cause = kind("What happened."), ValueError("the cause")
    with pytest.raises(kind):
        raise error from cause
    depth = len(traceback.extract_tb(error.__traceback__))
    twin = error.again()
    assert twin.__traceback__ is None
    assert twin.__cause__ is cause
    with pytest.raises(kind):
        raise twin
    assert len(traceback.extract_tb(error.__traceback__)) == depth
