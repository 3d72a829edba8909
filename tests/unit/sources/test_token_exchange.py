"""Token exchange: tokens that something else keeps, for those of another party."""

from __future__ import annotations

import time
import traceback
from contextvars import ContextVar, copy_context
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import (
    ClientAssertion,
    ClientCredentials,
    JWTBearer,
    LockTimeout,
    MemoryStore,
    ReauthRequired,
    RefreshConfigError,
    RefreshTemporarilyFailed,
    RefreshToken,
    Token,
    TokenExchange,
    TokenKeeper,
)
from tokenadapter.testing import TokenServer

TYPE = "urn:ietf:params:oauth:token-type:"
CLIENT: dict[str, Any] = {"client_id": "client", "client_secret": "secret"}


def keeper_of(server: TokenServer) -> TokenKeeper:
    return TokenKeeper(ClientCredentials(server.token_url, **CLIENT))


def user_of(server: TokenServer) -> TokenKeeper:
    """The login of a user, whose access token has expired."""
    keeper = TokenKeeper(RefreshToken(server.token_url, **CLIENT), MemoryStore())
    keeper.adopt(Token.from_dict({**server.issue(), "expires_in": 60}, now=time.time() - 120))
    return keeper


def test_the_token_of_another_keeper_is_exchanged(server: TokenServer) -> None:
    subject = keeper_of(server)
    exchange = TokenExchange(
        server.token_url, subject_token=subject, audience="orders", scope="read", **CLIENT
    )
    token = TokenKeeper(exchange, MemoryStore()).current()
    assert token.scope == "read"
    assert token.extras["issued_token_type"] == f"{TYPE}access_token"
    form = server.requests[-1].form
    assert form["subject_token"] == subject.current().access_token
    assert form["subject_token_type"] == f"{TYPE}access_token"
    assert (form["audience"], form["scope"]) == ("orders", "read")
    assert "actor_token" not in form


def test_an_actor_may_act_for_the_subject(server: TokenServer, tmp_path: Path) -> None:
    path = tmp_path / "subject"
    path.write_text(server.issue()["access_token"])
    actor = keeper_of(server)
    exchange = TokenExchange(
        server.token_url,
        subject_token=path,
        subject_token_type="jwt",
        actor_token=actor.current,
        actor_token_type="urn:example:badge",
        requested_token_type="jwt",
        **CLIENT,
    )
    assert exchange().access_token
    form = server.requests[-1].form
    assert form["actor_token"] == actor.current().access_token
    assert form["actor_token_type"] == "urn:example:badge"
    assert (form["subject_token_type"], form["requested_token_type"]) == (f"{TYPE}jwt",) * 2


def test_a_renewal_exchanges_the_token_of_that_moment(server: TokenServer) -> None:
    subject = keeper_of(server)
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    keeper.current()
    subject.renew(subject.current())
    keeper.renew(keeper.current())
    forms = [it.form for it in server.requests if "subject_token" in it.form]
    assert forms[0]["subject_token"] != forms[1]["subject_token"]


def test_some_servers_know_no_client(server: TokenServer) -> None:
    server.fail_next(200, body={"access_token": "federated", "expires_in": 3600})
    assert TokenExchange(server.token_url, subject_token=lambda: "t0ken")().access_token
    assert set(server.requests[-1].form) == {"grant_type", "subject_token", "subject_token_type"}


def test_the_exchanged_tokens_are_masked(server: TokenServer) -> None:
    body = {"error": "invalid_request", "error_description": "bad s3cret-subject-t0ken"}
    server.fail_next(400, body=body)
    with pytest.raises(ReauthRequired, match="repeats a secret"):
        TokenExchange(server.token_url, subject_token=lambda: "s3cret-subject-t0ken", **CLIENT)()


def test_a_subject_without_a_token_is_explained(server: TokenServer) -> None:
    subject = TokenKeeper(RefreshToken(server.token_url, **CLIENT))
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    with pytest.raises(ReauthRequired, match="There is no subject_token to present to") as caught:
        keeper.current()
    assert caught.value.reason == "no_credential"
    assert not server.requests


@pytest.mark.parametrize("is_function", [False, True])
def test_a_dead_login_of_the_subject_is_passed_on_and_the_next_login_ends_it(
    server: TokenServer, is_function: bool
) -> None:
    subject, store = user_of(server), MemoryStore()
    server.expire_now()
    server.revoke_all()
    place = subject.current if is_function else subject
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=place, **CLIENT), store)
    for _ in range(2):
        with pytest.raises(ReauthRequired, match="Log in with") as caught:
            keeper.current()
        assert (caught.value.reason, caught.value.error) == ("invalid_grant", "invalid_grant")
        assert isinstance(caught.value.__cause__, ReauthRequired)
    assert store.load().document is None
    subject.adopt(server.issue())
    assert keeper.current().access_token


def test_an_outage_of_the_server_of_the_subject_is_passed_on(server: TokenServer) -> None:
    subject, store = user_of(server), MemoryStore()
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), store)
    server.fail_next(503, headers={"Retry-After": "100"})
    for _ in range(2):
        with pytest.raises(RefreshTemporarilyFailed, match="There is no subject_token") as caught:
            keeper.current()
        cause = caught.value.__cause__
        assert isinstance(cause, RefreshTemporarilyFailed)
        assert caught.value.retry_at == cause.retry_at
        assert cause.retry_at is not None
    assert store.load().document is None
    subject.refresh()
    assert keeper.current().access_token


def test_a_subject_that_another_process_renews_for_too_long_is_a_temporary_failure(
    server: TokenServer,
) -> None:
    def busy() -> str:
        raise LockTimeout("another process is renewing")

    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=busy, **CLIENT))
    with pytest.raises(RefreshTemporarilyFailed, match="another process is renewing"):
        keeper.current()


def test_a_subject_that_is_configured_wrongly_has_to_be_corrected(server: TokenServer) -> None:
    subject = TokenKeeper(ClientCredentials(server.token_url, client_id="nobody"))
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    with pytest.raises(RefreshConfigError, match=r"invalid_client.*Correct subject_token") as it:
        keeper.current()
    assert isinstance(it.value.__cause__, RefreshConfigError)


def test_a_function_that_fails_keeps_its_traceback(server: TokenServer) -> None:
    def broken() -> str:
        raise KeyError("s3cret")

    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=broken, **CLIENT))
    with pytest.raises(Exception, match="subject_token raised KeyError") as caught:
        keeper.current()
    assert "s3cret" not in str(caught.value)


def test_an_account_tells_subjects_apart(server: TokenServer) -> None:
    exchange = TokenExchange(server.token_url, subject_token="token", account="ada", **CLIENT)
    assert exchange.owner["user"] == "ada"


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize("token", [JWT, "access-3yW0zqk8u5V1rQ2xJ7bTnA_hLmPdGfSe"])
@pytest.mark.parametrize("argument", ["subject_token", "actor_token"])
def test_a_token_in_place_of_its_path_is_an_error_that_does_not_show_it(
    server: TokenServer, argument: str, token: str
) -> None:
    given: dict[str, Any] = {"subject_token": "path", argument: token, **CLIENT}
    with pytest.raises(ValueError, match=f"^{argument} is not the path .* function") as caught:
        TokenExchange(server.token_url, **given)
    assert token not in str(caught.value)
    with pytest.raises(ValueError, match=r"^assertion is not the path") as caught:
        ClientAssertion(token)
    assert token not in str(caught.value)


def test_a_short_token_may_be_the_path_of_a_later_file_and_is_not_shown(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token="s3cret", **CLIENT))
    with pytest.raises(RefreshConfigError, match="pass a function that returns it") as caught:
        keeper.current()
    assert "s3cret" not in str(caught.value)
    Path("s3cret").write_text(server.issue()["access_token"])
    assert keeper.current().access_token


# --- a subject that the server refuses ----------------------------------------------------------


def revoke(server: TokenServer, keeper: TokenKeeper) -> str:
    """Have the server refuse the token of *keeper*, which takes the token for fresh."""
    token = keeper.current().access_token
    server.revoke(token)
    return token


def exchanges(server: TokenServer) -> list[str]:
    """The subject tokens that were presented."""
    forms = [request.form for request in server.requests]
    return [form["subject_token"] for form in forms if "subject_token" in form]


def test_a_refused_subject_is_renewed_once_and_exchanged_again(server: TokenServer) -> None:
    subject, store = user_of(server), MemoryStore()
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), store)
    refused = revoke(server, subject)
    assert keeper.current().access_token
    assert exchanges(server) == [refused, subject.current().access_token]
    record = store.load().document
    assert record is not None
    assert "backoff" not in record


@pytest.mark.parametrize("is_subject", [True, False])
def test_a_refused_actor_is_renewed_as_well(server: TokenServer, is_subject: bool) -> None:
    kept, other = user_of(server), server.issue()["access_token"]
    subject, actor = (kept, lambda: other) if is_subject else (lambda: other, kept)
    exchange = TokenExchange(server.token_url, subject_token=subject, actor_token=actor, **CLIENT)
    revoke(server, kept)
    assert TokenKeeper(exchange, MemoryStore()).current().access_token


@pytest.mark.parametrize("code", ["invalid_request", "invalid_grant", "invalid_token"])
def test_a_renewed_subject_that_is_refused_is_not_renewed_again(
    server: TokenServer, code: str
) -> None:
    subject, store = user_of(server), MemoryStore()
    exchange = TokenExchange(server.token_url, subject_token=subject, **CLIENT)
    first = subject.current()
    server.fail_next(400, body={"error": code})
    server.fail_next(200, body=server.issue())
    server.fail_next(400, body={"error": code, "error_description": "no such audience"})
    keepers = [TokenKeeper(exchange, store) for _ in range(2)]  # two processes
    for keeper in [*keepers, *keepers]:
        with pytest.raises(ReauthRequired, match="no such audience") as caught:
            keeper.current()
        assert caught.value.error == code
    assert exchanges(server) == [first.access_token, subject.current().access_token]
    # The back-off is that of this subject token: another one is exchanged at once.
    subject.renew(subject.current())
    assert keepers[0].current().access_token
    assert keepers[1].current().access_token == keepers[0].current().access_token


def test_a_renewed_subject_that_another_process_presented_in_vain_is_not_presented(
    server: TokenServer,
) -> None:
    store, inner = MemoryStore(), MemoryStore()
    subjects = [TokenKeeper(RefreshToken(server.token_url, **CLIENT), inner) for _ in range(2)]
    subjects[0].adopt(server.issue())
    old = subjects[1].current().access_token  # the second process goes on with it
    keepers = [
        TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), store)
        for subject in subjects
    ]
    server.fail_next(400, body={"error": "invalid_request"})
    server.fail_next(200, body=server.issue())
    server.fail_next(400, body={"error": "invalid_request"})
    with pytest.raises(ReauthRequired):
        keepers[0].current()
    new = subjects[0].current().access_token
    record = store.load().document
    server.revoke(old)
    for _ in range(2):
        with pytest.raises(ReauthRequired, match="Next attempt in"):
            keepers[1].current()
    assert exchanges(server) == [old, new]
    subjects[1].renew(subjects[1].current())  # takes what the other process has stored
    with pytest.raises(ReauthRequired, match="Next attempt in"):
        keepers[1].current()
    assert exchanges(server) == [old, new]
    assert server.stats.refreshes == 0  # the only renewal was scripted
    assert store.load().document == record


def test_the_end_of_the_login_of_a_refused_subject_is_passed_on(server: TokenServer) -> None:
    subject, store = user_of(server), MemoryStore()
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), store)
    subject.current()
    server.revoke_all()
    for said in (r"Log in with .*the subject_token is not valid", "Log in with "):
        with pytest.raises(ReauthRequired, match=said):
            keeper.current()
    assert len(exchanges(server)) == 1
    subject.adopt(server.issue())
    assert keeper.current().access_token


def test_an_outage_during_the_renewal_of_a_refused_subject_makes_that_subject_wait(
    server: TokenServer,
) -> None:
    subject, store = user_of(server), MemoryStore()
    exchange = TokenExchange(server.token_url, subject_token=subject, **CLIENT)
    refused = revoke(server, subject)
    server.fail_next(400, body={"error": "invalid_request"})
    server.fail_next(503, retry_after=30)
    ends = []
    for _ in range(5):  # as many processes
        with pytest.raises(RefreshTemporarilyFailed, match="There is no subject_token") as caught:
            TokenKeeper(exchange, store).current()
        ends.append(caught.value.retry_at)
    assert exchanges(server) == [refused]
    with pytest.raises(RefreshTemporarilyFailed) as inner:
        subject.renew(subject.current())
    assert ends == [pytest.approx(inner.value.retry_at, abs=2.0)] * 5
    subject.refresh()
    assert TokenKeeper(exchange, store).current().access_token
    assert len(exchanges(server)) == 2


def test_a_refused_subject_that_cannot_be_renewed_as_configured_waits_too(
    server: TokenServer,
) -> None:
    subject, store = keeper_of(server), MemoryStore()
    exchange = TokenExchange(server.token_url, subject_token=subject, **CLIENT)
    refused = revoke(server, subject)
    server.fail_next(400, body={"error": "invalid_request"})
    server.fail_next(401, error="invalid_client")
    for _ in range(3):
        with pytest.raises(RefreshConfigError, match=r"invalid_client.*Correct subject_token"):
            TokenKeeper(exchange, store).current()
    assert exchanges(server) == [refused]


def test_without_a_store_a_subject_that_cannot_be_renewed_waits_in_this_process(
    server: TokenServer, tmp_path: Path
) -> None:
    subject, path = user_of(server), tmp_path / "token.json"
    path.write_text("not a record")
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), path)
    refused = revoke(server, subject)
    server.fail_next(400, body={"error": "invalid_request"})
    server.fail_next(503)
    for _ in range(3):
        with pytest.raises(RefreshTemporarilyFailed, match="There is no subject_token"):
            keeper.current()
    assert exchanges(server) == [refused]
    subject.refresh()
    assert keeper.current().access_token


def refused_subject(number: count[int]) -> TokenKeeper:
    """A keeper of a program of its own, whose tokens the server refuses."""
    return TokenKeeper(lambda previous: f"refused-{next(number)}", MemoryStore())


@pytest.mark.parametrize(("programs", "presented"), [(3, 6), (7, 10)])
def test_programs_with_subjects_of_their_own_present_each_once_per_backoff(
    server: TokenServer, programs: int, presented: int
) -> None:
    store, number = MemoryStore(), count()
    keepers = [
        TokenKeeper(TokenExchange(server.token_url, subject_token=one, **CLIENT), store)
        for one in [refused_subject(number) for _ in range(programs)]
    ]
    for keeper in keepers * 3:
        with pytest.raises(ReauthRequired, match="the subject_token is not valid"):
            keeper.current()
    # Beyond some number of tokens, all programs wait.
    assert sorted(exchanges(server)) == sorted(f"refused-{each}" for each in range(presented))


def test_programs_with_files_of_their_own_share_a_backoff(
    server: TokenServer, tmp_path: Path
) -> None:
    store, keepers = MemoryStore(), []
    for number in range(3):
        path = tmp_path / str(number)
        path.write_text(f"refused-{number}")
        exchange = TokenExchange(server.token_url, subject_token=path, account="a", **CLIENT)
        keepers.append(TokenKeeper(exchange, store))
    for keeper in keepers * 2:
        with pytest.raises(ReauthRequired, match="the subject_token is not valid"):
            keeper.current()
    assert exchanges(server) == ["refused-0"]


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_function_that_makes_an_assertion_for_each_call_waits(
    server: TokenServer, tmp_path: Path, is_saved: bool
) -> None:
    path, number = tmp_path / "token.json", count()
    if not is_saved:
        path.write_text("not a record")
    source = JWTBearer(
        server.token_url, assertion=lambda: f"assertion-{next(number)}", client_id="client"
    )
    keeper = TokenKeeper(source, path)
    server.fail_next(400, body={"error": "invalid_grant"})
    for _ in range(3):
        with pytest.raises(ReauthRequired):
            keeper.current()
    assert len(server.requests) == 1


def test_a_refused_subject_is_renewed_in_the_context_of_the_caller(server: TokenServer) -> None:
    request: ContextVar[str] = ContextVar("request")
    seen = []

    def issued(previous: Token | None) -> str:
        seen.append(request.get("none"))
        return str(server.issue()["access_token"])

    subject = TokenKeeper(issued, MemoryStore())
    exchange = TokenExchange(server.token_url, subject_token=subject, **CLIENT)
    revoke(server, subject)
    context = copy_context()
    context.run(request.set, "of the caller")
    assert context.run(TokenKeeper(exchange, MemoryStore()).current).access_token
    assert seen == ["none", "of the caller"]


def test_a_refused_subject_of_a_file_waits_even_for_another_one(
    server: TokenServer, tmp_path: Path
) -> None:
    path = tmp_path / "subject"
    path.write_text("refused")
    store = MemoryStore()
    exchange = TokenExchange(server.token_url, subject_token=path, **CLIENT)
    for _ in range(2):
        with pytest.raises(ReauthRequired, match="the subject_token is not valid"):
            TokenKeeper(exchange, store).current()
    assert exchanges(server) == ["refused"]
    path.write_text(server.issue()["access_token"])
    with pytest.raises(ReauthRequired, match="Next attempt in"):
        TokenKeeper(exchange, store).current()
    assert TokenKeeper(exchange, store).refresh().access_token


def test_a_refused_client_waits_whatever_the_subject_is(server: TokenServer) -> None:
    subject, store = user_of(server), MemoryStore()
    exchange = TokenExchange(server.token_url, subject_token=subject, client_id="nobody")
    for _ in range(2):
        with pytest.raises(RefreshConfigError, match="invalid_client"):
            TokenKeeper(exchange, store).current()
        subject.renew(subject.current())
    assert len(exchanges(server)) == 1


def test_without_a_store_the_backoff_is_that_of_the_subject_too(
    server: TokenServer, tmp_path: Path
) -> None:
    subject, path = user_of(server), tmp_path / "token.json"
    path.write_text("not a record")
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT), path)
    first = subject.current()
    server.fail_next(400, body={"error": "invalid_request"})
    server.fail_next(200, body=server.issue())
    server.fail_next(400, body={"error": "invalid_request"})
    for _ in range(2):
        with pytest.raises(ReauthRequired):
            keeper.current()
    assert exchanges(server) == [first.access_token, subject.current().access_token]
    subject.renew(subject.current())
    assert keeper.current().access_token


def test_an_assertion_of_another_keeper_is_renewed_too(server: TokenServer) -> None:
    issued = iter(["one", "two"])
    kept = TokenKeeper(lambda previous: next(issued), MemoryStore())
    source = JWTBearer(server.token_url, assertion=kept, client_id="client")
    server.fail_next(400, body={"error": "invalid_grant"})
    server.fail_next(200, body={"access_token": "exchanged", "expires_in": 60})
    assert TokenKeeper(source, MemoryStore()).current().access_token == "exchanged"
    assert [request.form["assertion"] for request in server.requests] == ["one", "two"]


def test_no_frame_of_an_error_has_a_subject_token(server: TokenServer) -> None:
    subject = user_of(server)
    keeper = TokenKeeper(TokenExchange(server.token_url, subject_token=subject, **CLIENT))
    token = subject.current().access_token
    server.revoke_all()
    with pytest.raises(ReauthRequired) as caught:
        keeper.current()
    error: BaseException | None = caught.value
    assert isinstance(caught.value.__cause__, ReauthRequired)
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("tokenadapter."):
                assert token not in repr(frame.f_locals)
        error = error.__cause__
