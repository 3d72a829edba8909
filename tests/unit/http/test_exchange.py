"""The flow of a request after a refusal: each way through it, and laws for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenadapter.http.exchange import (
    Distrust,
    HandOn,
    Obtain,
    Rewind,
    Send,
    Step,
    Verdict,
    after_refusal,
)
from tokenadapter.token import Token

OLD, THEIRS, NEW = (Token(name, issued_at=0.0) for name in ("old", "theirs", "new"))
FINE, DEAD, PROOF = Verdict.HAND_ON, Verdict.RENEW, Verdict.SEND_AGAIN


def test_a_verdict_that_has_to_be_awaited_is_a_mistake() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            raise AssertionError

    with pytest.raises(TypeError, match=r"^verdict returned an awaitable \(Awaitable\)"):
        Verdict.of(Awaitable())
    assert [Verdict.of(said) for said in (None, "dead", PROOF)] == [FINE, DEAD, PROOF]


def walk(
    *answers: Any,
    verdict: Verdict = DEAD,
    is_new: bool = False,
    most: int = 1,
    is_own: bool = False,
) -> list[Step]:
    """The steps, if *answers* come back; a body that can be sent again is left out of both."""
    flow = after_refusal(OLD, verdict, is_new=is_new, max_replays=most, is_own=is_own)
    left, steps = list(answers), []
    step = next(flow)
    while True:
        if not isinstance(step, Rewind):
            steps.append(step)
        if isinstance(step, HandOn):
            assert not left
            return steps
        step = flow.send(None if isinstance(step, Rewind) else left.pop(0))


def reasons(steps: list[Step]) -> str | None:
    last = steps[-1]
    assert isinstance(last, HandOn)
    return last.reason


def test_a_dead_token_is_renewed_and_the_request_sent_again() -> None:
    assert walk((NEW, True), FINE) == [Obtain(OLD), Send(NEW), HandOn()]


def test_the_token_of_another_process_costs_no_renewal() -> None:
    assert walk((THEIRS, False), FINE) == [Obtain(OLD), Send(THEIRS), HandOn()]


def test_a_refused_token_of_another_process_is_renewed() -> None:
    steps = walk((THEIRS, False), DEAD, (NEW, True), FINE)
    assert steps == [Obtain(OLD), Send(THEIRS), Obtain(THEIRS), Send(NEW), HandOn()]


def test_tokens_of_other_processes_are_tried_twice() -> None:
    steps = walk((THEIRS, False), DEAD, (NEW, False), DEAD, (OLD, False))
    assert [type(step) for step in steps] == [Obtain, Send, Obtain, Send, Obtain, HandOn]
    assert reasons(steps) == "every token of others was refused too"


def test_a_token_that_was_renewed_for_the_request_is_not_renewed_again() -> None:
    steps = walk((NEW, True), DEAD, None)
    assert steps[:3] == [Obtain(OLD), Send(NEW), Distrust(NEW)]
    assert str(reasons(steps)).startswith("the token was refused although it is new: see that")


def test_the_successor_of_a_refused_new_token_is_tried() -> None:
    assert walk(THEIRS, FINE, is_new=True) == [Distrust(OLD), Send(THEIRS), HandOn()]


def test_a_token_that_was_refused_when_it_was_new_is_not_sent_again() -> None:
    steps = walk((OLD, False))
    assert str(reasons(steps)).startswith("the token was refused when it was new: see that")


@pytest.mark.parametrize("is_own", [True, False])
def test_without_replays_the_token_is_renewed_and_the_refusal_handed_on(is_own: bool) -> None:
    assert walk((NEW, True), most=0, is_own=is_own) == [Obtain(OLD), HandOn("max_replays is 0")]


def test_a_verdict_of_the_program_is_met_again_with_the_same_token() -> None:
    steps = walk((NEW, True), DEAD, DEAD, None, most=2, is_own=True)
    assert steps[:-1] == [Obtain(OLD), Send(NEW), Send(NEW), Distrust(NEW)]


def test_more_replays_are_for_verdicts_of_the_program_only() -> None:
    steps = walk((NEW, True), DEAD, None, most=9)
    assert steps[:-1] == [Obtain(OLD), Send(NEW), Distrust(NEW)]


def test_a_refused_proof_costs_no_renewal_and_is_replaced_once() -> None:
    assert walk(FINE, verdict=PROOF) == [Send(OLD), HandOn()]
    steps = walk(PROOF, verdict=PROOF)
    assert steps[0] == Send(OLD)
    assert reasons(steps) == "the proof that goes with the token was refused twice"
    assert walk(DEAD, (NEW, True), FINE, verdict=PROOF)[1:] == [Obtain(OLD), Send(NEW), HandOn()]


def test_each_token_has_a_second_proof() -> None:
    steps = walk((NEW, True), PROOF, FINE)
    assert steps == [Obtain(OLD), Send(NEW), Send(NEW), HandOn()]
    # The nonce may have changed again while the token was renewed.
    steps = walk(DEAD, (NEW, True), PROOF, FINE, verdict=PROOF)
    assert steps == [Send(OLD), Obtain(OLD), Send(NEW), Send(NEW), HandOn()]
    steps = walk(DEAD, THEIRS, PROOF, FINE, verdict=PROOF, is_new=True)
    assert steps == [Send(OLD), Distrust(OLD), Send(THEIRS), Send(THEIRS), HandOn()]


def test_a_body_that_cannot_be_sent_again_ends_the_flow() -> None:
    flow = after_refusal(OLD, is_new=False, max_replays=1, is_own=False)
    assert next(flow) == Obtain(OLD)
    assert flow.send((NEW, True)) == Rewind()
    assert flow.send("it is gone") == HandOn("the request cannot be sent again: it is gone")
    with pytest.raises(StopIteration):
        next(flow)


@given(
    st.data(),
    st.sampled_from([DEAD, PROOF]),
    st.booleans(),
    st.integers(0, 4),
    st.booleans(),
)
def test_whatever_comes_back_the_flow_ends_and_renews_once(
    data: st.DataObject, verdict: Verdict, is_new: bool, most: int, is_own: bool
) -> None:
    flow = after_refusal(OLD, verdict, is_new=is_new, max_replays=most, is_own=is_own)
    tokens = st.builds(Token, st.sampled_from("abc"), issued_at=st.integers(0, 9).map(float))
    renewals, sent, body_is_ready = int(is_new), [OLD], False
    step = next(flow)
    while not isinstance(step, HandOn):
        match step:
            case Obtain(rejected):
                assert rejected is sent[-1]
                token, minted = data.draw(st.tuples(tokens, st.booleans()))
                renewals += minted
                step = flow.send((token, minted))
            case Distrust(token):
                assert token is sent[-1]
                step = flow.send(data.draw(st.none() | tokens))
            case Rewind():
                body_is_ready = True
                step = flow.send(data.draw(st.none() | st.just("gone")))
            case Send(token):
                assert body_is_ready
                body_is_ready = False
                sent.append(token)
                step = flow.send(data.draw(st.sampled_from(Verdict)))
    assert renewals <= 1
    # The replays after a renewal, two tokens of others, their successor, and a new proof for each
    # token.
    tokens_sent = 1 + renewals + 3
    assert len(sent) - 1 <= max(most if is_own else min(most, 1), 0) + 3 + tokens_sent


@pytest.mark.parametrize(
    ("said", "verdict"),
    [(True, DEAD), (False, FINE), (1, DEAD), (None, FINE), ([], FINE), ("x", DEAD), (PROOF, PROOF)],
)
def test_a_verdict_may_be_any_value_that_is_true_or_false(said: object, verdict: Verdict) -> None:
    assert Verdict.of(said) is verdict
