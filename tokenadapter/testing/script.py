"""The script of a test for the server: the fate of requests, and holds that stop them midway."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from .wire import Answer, json_answer

Endpoint = Literal[
    "token",
    "login",
    "revoke",
    "register",
    "metadata",
    "resource_metadata",
    "authorize",
    "device_authorization",
    "api",
    "public",
]
Ending = Literal["answer", "hang", "drop", "reset"]
Body = str | bytes | dict[str, Any] | list[Any]


class Fate(NamedTuple):
    """The outcome of one request.

    :ivar ending: how the request ends: the answer is sent, never sent, or dropped, or the
        connection is reset.
    :ivar answer: a scripted answer; ``None``: the genuine one, for which the request is processed.
    :ivar processed: whether the request is processed although its answer is scripted.
    :ivar drip: seconds after each byte of the answer.
    """

    ending: Ending = "answer"
    answer: Answer | None = None
    processed: bool = False
    drip: float | None = None


SERVED = Fate()


class Hold:
    """A point at which requests wait until they are released.

    :ivar arrived: set when the first request has arrived.
    """

    def __init__(self, endpoint: Endpoint, *, processed: bool) -> None:
        self.point: tuple[str, bool] = endpoint, processed
        self.arrived: threading.Event = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Release the waiting requests.  Later ones do not stop."""
        self._released.set()

    def wait(self) -> None:
        """Wait, as a request that has reached this point, until released."""
        self.arrived.set()
        self._released.wait()


class Script:
    """The fate of the next requests, by endpoint.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fates: dict[str, deque[Iterator[Fate]]] = {}
        self._holds: tuple[Hold, ...] = ()

    def add(self, endpoint: str, fate: Fate, count: int | None) -> None:
        """Append this fate for *count* requests; ``None``: for all."""
        fates = itertools.repeat(fate) if count is None else itertools.repeat(fate, count)
        with self._lock:
            self._fates.setdefault(endpoint, deque()).append(fates)

    def forget(self, endpoint: str) -> None:
        """Drop the script of an endpoint."""
        with self._lock:
            self._fates.pop(endpoint, None)

    def next_fate(self, endpoint: str) -> Fate:
        """The fate of a request that has just arrived."""
        with self._lock:
            fates = self._fates.get(endpoint)
            while fates:
                for fate in fates[0]:
                    return fate
                fates.popleft()
            return SERVED

    def begin(self, hold: Hold) -> None:
        """Make requests wait at *hold* from now on."""
        with self._lock:
            self._holds += (hold,)

    def end(self, hold: Hold) -> None:
        """Remove *hold*, so that no request waits there."""
        with self._lock:
            self._holds = tuple(other for other in self._holds if other is not hold)
        hold.release()

    def wait_at_holds(self, endpoint: str, *, processed: bool) -> bool:
        """Wait at every hold of a request; ``False`` if there was none."""
        here = [hold for hold in self._holds if hold.point == (endpoint, processed)]
        for hold in here:
            hold.wait()
        return bool(here)

    def release_all(self) -> None:
        """Release all waiting requests."""
        for hold in self._holds:
            hold.release()


def scripted_answer(
    endpoint: Endpoint,
    *,
    status: int | None,
    error: str | None,
    body: Body | None,
    content_type: str | None,
    retry_after: float | str | None,
    redirect: str | None,
    headers: Mapping[str, str] | None,
) -> Answer:
    """The described answer, with the usual values for the rest."""
    status = status or (307 if redirect else 400 if error else 503)
    error = error or _usual_error(endpoint, status)
    said: dict[str, str] = {}
    if redirect is not None:
        said["Location"] = redirect
    if retry_after is not None:
        said["Retry-After"] = str(retry_after)
    if endpoint == "api" and status in (401, 403):
        said["WWW-Authenticate"] = f'Bearer error="{error}"'
    if isinstance(body, str | bytes):
        said["Content-Type"] = content_type or "text/html; charset=utf-8"
        content = body.encode() if isinstance(body, str) else body
        return Answer(status, content, {**said, **(headers or {})})
    if content_type is not None:
        said["Content-Type"] = content_type
    content_of_json = {"error": error} if body is None else body
    return json_answer(status, content_of_json, {**said, **(headers or {})})


def _usual_error(endpoint: Endpoint, status: int) -> str:
    match status:
        case 401:
            return "invalid_token" if endpoint == "api" else "invalid_client"
        case 403:
            return "insufficient_scope"
        case 429 | 503:
            return "temporarily_unavailable"
        case _:
            return "server_error" if status >= 500 else "invalid_request"
