"""Events go to the listener, the log and the counters, and never cost a request."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import events
from tokenadapter.core import messages
from tokenadapter.core.journal import Journal
from tokenadapter.events import Event
from tokenadapter.stores.memory import MemoryStore

STORE = MemoryStore("user-42")

MESSAGES: dict[str, tuple[dict[str, Any], int, str]] = {
    "Renewed": (
        {"token": "ba7816bf", "presented": "refresh_token", "seconds": 0.25},
        logging.INFO,
        "renewed: token ba7816bf by refresh_token in 0.250 s",
    ),
    "Found": ({"token": "ba7816bf"}, logging.DEBUG, "found: token ba7816bf in the store"),
    "Adopted": ({"token": "ba7816bf"}, logging.INFO, "adopted: token ba7816bf"),
    "Waited": ({"seconds": 0.25}, logging.DEBUG, "waited 0.250 s for a renewal"),
    "RenewalStarted": (
        {"presented": "refresh_token"},
        logging.DEBUG,
        "renewal started: by refresh_token",
    ),
    "ReplayStarted": (
        {"method": "GET", "url": "https://a/b", "status": 401, "token": "ba7816bf"},
        logging.DEBUG,
        "replay started: GET https://a/b after 401, with token ba7816bf",
    ),
    "Replayed": (
        {"method": "GET", "url": "https://a/b", "status": 401, "token": "ba7816bf", "answer": 200},
        logging.INFO,
        "replayed: GET https://a/b after 401, with token ba7816bf: 200",
    ),
    "HandedOn": (
        {"method": "GET", "url": "https://a/b", "status": 401, "reason": "it is new"},
        logging.WARNING,
        "handed on: 401 for GET https://a/b: it is new",
    ),
    "OutsidePrefix": (
        {"prefix": "https://a", "url": "https://b/c"},
        logging.WARNING,
        "https://b/c is outside the prefix https://a; sent without a token (logged once)",
    ),
    "RenewalFailed": (
        {"error": "No answer.", "retry_at": 5.0},
        logging.WARNING,
        "renewal failed: No answer.",
    ),
    "ReauthNeeded": (
        {"reason": "invalid_grant", "error": "Refused."},
        logging.ERROR,
        "login needed (invalid_grant): Refused.",
    ),
    "SaveFailed": (
        {"token": "ba7816bf", "error": "Disk full."},
        logging.CRITICAL,
        (
            "token ba7816bf could not be saved: Disk full.; this process uses the token and "
            "retries the save"
        ),
    ),
    "StoreFailed": (
        {"error": "Disk full."},
        logging.WARNING,
        "the token is kept in memory only: Disk full. (logged once)",
    ),
    "FirstTokenUnused": (
        {},
        logging.WARNING,
        (
            f"{STORE!r} holds a token that does not descend from the configured refresh token. "
            "The stored token is used. To use the configured refresh token, pass it to "
            "TokenKeeper.adopt() or `tokenadapter adopt NAME` (logged once)"
        ),
    ),
    "StepUpNeeded": (
        {
            "method": "GET",
            "url": "https://a/b",
            "status": 403,
            "error": "insufficient_scope",
            "scope": "write",
            "acr_values": None,
            "max_age": 60,
        },
        logging.WARNING,
        ("step-up needed: 403 for GET https://a/b: insufficient_scope, scope 'write', max_age 60"),
    ),
    "ScopeNarrowed": (
        {"missing": "admin write"},
        logging.WARNING,
        (
            "the server granted less than was requested: the token lacks the scope "
            "'admin write' (logged once)"
        ),
    ),
    "ExtrasDropped": (
        {"token": "ba7816bf"},
        logging.WARNING,
        (
            "token ba7816bf is saved without the extra fields of its response: they are too "
            "large, too deeply nested, or not JSON"
        ),
    ),
    "RefreshCallbackFailed": (
        {"error": "KeyError"},
        logging.ERROR,
        "on_refresh raised KeyError (traceback at DEBUG); the new token is used",
    ),
}


def test_every_event_has_a_test_case() -> None:
    assert sorted(["Event", *MESSAGES]) == sorted(events.__all__)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(level, text) for name, level, text in caplog.record_tuples if name == "tokenadapter"]


@pytest.mark.parametrize("name", MESSAGES)
def test_an_event_goes_to_the_listener_and_as_text_to_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fields, level, sentence = MESSAGES[name]
    heard: list[Event] = []
    with caplog.at_level(logging.DEBUG, "tokenadapter"):
        Journal(STORE, heard.append).emit(name, **fields)
    assert heard == [getattr(events, name)(**fields, store=repr(STORE))]
    assert heard[0].level == level
    [(logged_at, line)] = lines(caplog)
    assert logged_at == level
    assert line.startswith(sentence)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_line_of_an_event_names_its_store_once(name: str) -> None:
    fields, _, sentence = MESSAGES[name]
    event = getattr(events, name)(**fields, store=repr(STORE))
    assert str(event).count(repr(STORE)) == 1
    assert str(event) in (sentence, f"{sentence} [MemoryStore('user-42')]")


def test_the_line_of_an_event_does_not_repeat_the_store_that_its_error_names() -> None:
    error = messages.no_credential(STORE)
    event = events.ReauthNeeded(reason=error.reason, error=str(error), store=repr(STORE))
    assert str(event) == f"login needed (no_credential): {error}"


def test_the_login_of_a_new_user_is_routine_and_the_login_after_a_refusal_is_an_error() -> None:
    reasons = "no_credential", "invalid_grant", "uncertain_rotation", "store_lost", "private_copy"
    levels = [events.ReauthNeeded(each, "Log in.", store="").level for each in reasons]
    assert levels == [logging.INFO, *[logging.ERROR] * 4]


def test_a_store_that_cannot_be_shown_costs_no_request() -> None:
    class Nameless(MemoryStore):
        def __repr__(self) -> str:
            raise OSError("its name is in a database that is down")

    heard: list[Event] = []
    Journal(Nameless(), heard.append).emit("Waited", seconds=1.0)
    assert "Nameless object at 0x" in heard[0].store


def test_the_event_of_an_unsaved_token_at_process_end_says_lost() -> None:
    event = events.SaveFailed(token="ba7816bf", error="Disk full.", lost=True, store="")
    assert str(event).endswith("Disk full.; this process is ending, and the token is lost")


def test_an_event_cannot_be_changed() -> None:
    event = events.Waited(1.0, store=repr(STORE))
    with pytest.raises(AttributeError):
        event.seconds = 2.0  # type: ignore[misc]


def test_each_kind_of_event_is_counted() -> None:
    journal = Journal(STORE)
    for name in ("Waited", "Waited", "Renewed"):
        journal.emit(name, **MESSAGES[name][0])
    assert journal.counts == {"Waited": 2, "Renewed": 1}


def test_an_event_without_listener_or_log_is_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenadapter.core.journal.events", None)
    logging.getLogger("tokenadapter").setLevel(logging.WARNING)
    try:
        journal = Journal(STORE)
        journal.count("Waited", seconds=1.0)
    finally:
        logging.getLogger("tokenadapter").setLevel(logging.NOTSET)
    assert journal.counts == {"Waited": 1}


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_a_counted_event_is_logged_if_the_level_is_enabled(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    with caplog.at_level(level, "tokenadapter"):
        Journal(STORE).count("Renewed", **MESSAGES["Renewed"][0])
    assert len(caplog.records) == 1


def test_a_counted_event_goes_to_the_listener_whatever_the_log_level() -> None:
    heard: list[Event] = []
    Journal(STORE, heard.append).count("Waited", seconds=1.0)
    assert heard == [events.Waited(1.0, store=repr(STORE))]


def test_no_counted_event_is_a_warning() -> None:
    """Without a listener, the event is only logged."""
    code = "".join(path.read_text() for path in Path(events.__file__).parent.rglob("*.py"))
    noted = set(re.findall(r"journal\.count\(\s*\"(\w+)\"", code))
    emitted = set(re.findall(r"journal\.emit(?:_once)?\(\s*\"(\w+)\"", code))
    assert {name for name in MESSAGES if MESSAGES[name][1] < logging.WARNING} == noted
    assert noted | emitted == set(MESSAGES)


def test_emit_once_emits_once() -> None:
    heard: list[Event] = []
    journal = Journal(STORE, heard.append)
    for error in ("first", "second"):
        journal.emit_once("StoreFailed", error=error)
    assert heard == [events.StoreFailed("first", store=repr(STORE))]
    assert journal.counts == {"StoreFailed": 1}


def test_counts_are_a_copy() -> None:
    journal = Journal(STORE)
    counts = journal.counts
    journal.emit("Waited", seconds=1.0)
    assert counts == {}


def test_an_event_is_counted_before_it_is_emitted() -> None:
    counts: list[Any] = []
    journal = Journal(STORE, lambda event: counts.append(journal.counts))
    journal.emit("Waited", seconds=1.0)
    assert counts == [{"Waited": 1}]


def test_an_exception_of_a_listener_is_logged_by_its_type_and_suppressed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: Event) -> None:
        raise KeyError("s3cr3t")

    journal = Journal(STORE, fail)
    with caplog.at_level(logging.INFO, "tokenadapter"):
        journal.emit("Waited", seconds=1.0)
    assert journal.counts == {"Waited": 1}
    message = (
        "on_event raised KeyError (traceback at DEBUG) for: waited 1.000 s for a renewal "
        "[MemoryStore('user-42')]"
    )
    assert lines(caplog) == [(logging.ERROR, message)]
    assert "s3cr3t" not in caplog.text


def test_the_traceback_of_a_listeners_exception_is_logged_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = KeyError("detail")

    def fail(event: Event) -> None:
        raise error

    with caplog.at_level(logging.DEBUG, "tokenadapter"):
        Journal(STORE, fail).emit("Waited", seconds=1.0)
    traced = [record for record in caplog.records if record.exc_info]
    assert [(record.levelno, record.getMessage()) for record in traced] == [
        (logging.DEBUG, "on_event raised [MemoryStore('user-42')]")
    ]
    assert traced[0].exc_info is not None
    assert traced[0].exc_info[1] is error


def test_a_keyboard_interrupt_in_a_listener_is_raised() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Journal(STORE, interrupt).emit("Waited", seconds=1.0)


def test_a_forked_child_can_count_although_a_thread_of_its_parent_was_counting() -> None:
    journal = Journal(STORE)
    held, counted = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._lock:
            held.set()
            counted.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    journal.reset()
    journal.emit("Waited", seconds=1.0)
    assert journal.counts == {"Waited": 1}
    counted.set()
    thread.join()
