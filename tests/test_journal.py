"""What happens is told to the listener, the log and the counters, and costs nobody a token."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tokenadapter import events
from tokenadapter.core.journal import Journal
from tokenadapter.events import Event

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
        "token ba7816bf is not saved: Disk full.; this process uses it and goes on trying",
    ),
    "StoreFailed": (
        {"error": "Disk full."},
        logging.WARNING,
        "the token is kept in memory only: Disk full. (said once)",
    ),
    "FirstTokenUnused": (
        {"store": "MemoryStore()"},
        logging.WARNING,
        (
            "MemoryStore() holds a token that did not begin with the configured refresh token: "
            "the stored one is used. To use the configured one, hand it to TokenKeeper.adopt() or "
            "`tokenadapter adopt NAME` (logged once)"
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
        (
            "more than a token needed: 403 for GET https://a/b: insufficient_scope, "
            "scope 'write', max_age 60"
        ),
    ),
    "ScopeNarrowed": (
        {"missing": "admin write"},
        logging.WARNING,
        (
            "the server granted less than was asked for: the token is without the scope "
            "'admin write' (logged once)"
        ),
    ),
    "ExtrasDropped": (
        {"token": "ba7816bf"},
        logging.WARNING,
        (
            "token ba7816bf is saved without the other fields of its response: they are too "
            "large, too deeply nested, or no JSON"
        ),
    ),
    "RefreshCallbackFailed": (
        {"error": "KeyError"},
        logging.ERROR,
        "on_refresh raised KeyError (traceback at DEBUG); the new token is used",
    ),
}


def test_every_event_is_tried_here() -> None:
    assert sorted(["Event", *MESSAGES]) == sorted(events.__all__)


@pytest.mark.parametrize("name", MESSAGES)
def test_an_event_is_told_to_the_listener_and_as_a_sentence_to_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fields, level, sentence = MESSAGES[name]
    heard: list[Event] = []
    with caplog.at_level(logging.DEBUG, "tokenadapter"):
        Journal(heard.append).emit(name, **fields)
    assert heard == [getattr(events, name)(**fields)]
    assert caplog.record_tuples == [("tokenadapter", level, sentence)]


def test_a_token_that_ends_with_the_process_is_told_as_lost() -> None:
    event = events.SaveFailed(token="ba7816bf", error="Disk full.", lost=True)
    assert str(event).endswith("Disk full.; the process ends, and it is lost")


def test_an_event_cannot_be_changed() -> None:
    event = events.Waited(seconds=1.0)
    with pytest.raises(AttributeError):
        event.seconds = 2.0  # type: ignore[misc]


def test_each_kind_of_event_is_counted() -> None:
    journal = Journal()
    for name in ("Waited", "Waited", "Renewed"):
        journal.emit(name, **MESSAGES[name][0])
    assert journal.counts == {"Waited": 2, "Renewed": 1}


def test_what_nobody_hears_is_counted_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenadapter.core.journal.events", None)
    logging.getLogger("tokenadapter").setLevel(logging.WARNING)
    try:
        journal = Journal()
        journal.count("Waited", seconds=1.0)
    finally:
        logging.getLogger("tokenadapter").setLevel(logging.NOTSET)
    assert journal.counts == {"Waited": 1}


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_what_the_log_hears_is_logged(caplog: pytest.LogCaptureFixture, level: int) -> None:
    with caplog.at_level(level, "tokenadapter"):
        Journal().count("Renewed", **MESSAGES["Renewed"][0])
    assert len(caplog.records) == 1


def test_what_a_listener_hears_is_told_whatever_the_log_hears() -> None:
    heard: list[Event] = []
    Journal(heard.append).count("Waited", seconds=1.0)
    assert heard == [events.Waited(seconds=1.0)]


def test_nothing_that_is_noted_is_a_warning() -> None:
    """Where nobody listens, it goes unheard."""
    code = "".join(path.read_text() for path in Path(events.__file__).parent.rglob("*.py"))
    noted = set(re.findall(r"journal\.count\(\s*\"(\w+)\"", code))
    told = set(re.findall(r"journal\.emit(?:_once)?\(\s*\"(\w+)\"", code))
    assert {name for name in MESSAGES if MESSAGES[name][1] < logging.WARNING} == noted
    assert noted | told == set(MESSAGES)


def test_what_is_told_once_is_not_told_again() -> None:
    heard: list[Event] = []
    journal = Journal(heard.append)
    for error in ("first", "second"):
        journal.emit_once("StoreFailed", error=error)
    assert heard == [events.StoreFailed(error="first")]
    assert journal.counts == {"StoreFailed": 1}


def test_counts_are_a_copy() -> None:
    journal = Journal()
    counts = journal.counts
    journal.emit("Waited", seconds=1.0)
    assert counts == {}


def test_an_event_is_counted_before_it_is_told() -> None:
    counts: list[Any] = []
    journal = Journal(lambda event: counts.append(journal.counts))
    journal.emit("Waited", seconds=1.0)
    assert counts == [{"Waited": 1}]


def test_what_a_listener_raises_is_logged_by_its_type_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: Event) -> None:
        raise KeyError("s3cr3t")

    journal = Journal(fail)
    with caplog.at_level(logging.INFO, "tokenadapter"):
        journal.emit("Waited", seconds=1.0)
    assert journal.counts == {"Waited": 1}
    told = "on_event raised KeyError (traceback at DEBUG) for: waited 1.000 s for a renewal"
    assert caplog.record_tuples == [("tokenadapter", logging.ERROR, told)]
    assert "s3cr3t" not in caplog.text


def test_its_traceback_is_there_for_who_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("detail")

    def fail(event: Event) -> None:
        raise error

    with caplog.at_level(logging.DEBUG, "tokenadapter"):
        Journal(fail).emit("Waited", seconds=1.0)
    traced = [record for record in caplog.records if record.exc_info]
    assert [(record.levelno, record.getMessage()) for record in traced] == [
        (logging.DEBUG, "on_event raised")
    ]
    assert traced[0].exc_info is not None
    assert traced[0].exc_info[1] is error


def test_an_interrupted_listener_is_interrupted() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Journal(interrupt).emit("Waited", seconds=1.0)


def test_a_forked_child_can_count_although_a_thread_of_its_parent_was_counting() -> None:
    journal = Journal()
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
