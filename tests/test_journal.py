"""What happens is told to the listener, the log and the counters, and costs nobody a token."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from tokenadapter import events
from tokenadapter.events import Event
from tokenadapter.journal import Journal

MESSAGES: dict[str, tuple[dict[str, Any], int, str]] = {
    "Renewed": (
        {"token": "ba7816bf", "presented": "refresh_token", "seconds": 0.25},
        logging.INFO,
        "renewed: token ba7816bf by refresh_token in 0.250 s",
    ),
    "Adopted": (
        {"token": "ba7816bf"},
        logging.DEBUG,
        "adopted: token ba7816bf from the store",
    ),
    "Waited": ({"seconds": 0.25}, logging.DEBUG, "waited 0.250 s for a renewal"),
    "Replayed": (
        {"method": "GET", "url": "https://a/b", "status": 401, "token": "ba7816bf"},
        logging.INFO,
        "replayed: GET https://a/b after 401, with token ba7816bf",
    ),
    "HandedOn": (
        {"method": "GET", "url": "https://a/b", "status": 401, "reason": "it is new"},
        logging.WARNING,
        "handed on: 401 for GET https://a/b: it is new",
    ),
    "OutsidePrefix": (
        {"prefix": "https://a/"},
        logging.WARNING,
        "asked for a URL outside https://a/: sent without a token (said once)",
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
        "token ba7816bf is not saved: Disk full.; this process keeps it and goes on trying",
    ),
    "RefreshCallbackFailed": (
        {"error": "KeyError"},
        logging.ERROR,
        "on_refresh raised KeyError; the token is saved, and is used",
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
        Journal(heard.append).tell(name, **fields)
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
        journal.tell(name, **MESSAGES[name][0])
    assert journal.counts == {"Waited": 2, "Renewed": 1}


def test_counts_are_a_copy() -> None:
    journal = Journal()
    counts = journal.counts
    journal.tell("Waited", seconds=1.0)
    assert counts == {}


def test_an_event_is_counted_before_it_is_told() -> None:
    counts: list[Any] = []
    journal = Journal(lambda event: counts.append(journal.counts))
    journal.tell("Waited", seconds=1.0)
    assert counts == [{"Waited": 1}]


def test_what_a_listener_raises_is_logged_and_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: Event) -> None:
        raise KeyError("listener")

    journal = Journal(fail)
    journal.tell("Waited", seconds=1.0)
    assert journal.counts == {"Waited": 1}
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "on_event raised for: waited 1.000 s for a renewal"
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_an_interrupted_listener_is_interrupted() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Journal(interrupt).tell("Waited", seconds=1.0)


def test_what_a_callback_raised_is_told_by_its_type_and_logged_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Event] = []
    error = KeyError("detail")
    with caplog.at_level(logging.DEBUG, "tokenadapter"):
        Journal(heard.append).tell_trouble("RefreshCallbackFailed", error)
    assert heard == [events.RefreshCallbackFailed(error="KeyError")]
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [error, None]
    assert not any("detail" in record.getMessage() for record in caplog.records)


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
    journal.tell("Waited", seconds=1.0)
    assert journal.counts == {"Waited": 1}
    counted.set()
    thread.join()
