"""How a test makes a server fail: scripted failures, outages, and holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from .script import Body, Ending, Endpoint, Fate, Hold, Script, scripted_answer


class Faults:
    """The methods of :class:`~tokenadapter.testing.TokenServer` that make it fail."""

    def __init__(self) -> None:
        self._script = Script()

    def fail_next(
        self,
        status: int | None = None,
        *,
        count: int | None = 1,
        endpoint: Endpoint = "token",
        error: str | None = None,
        body: Body | None = None,
        content_type: str | None = None,
        retry_after: float | str | None = None,
        redirect: str | None = None,
        headers: Mapping[str, str] | None = None,
        processed: bool = False,
        hang: bool = False,
        drop: bool = False,
        reset: bool = False,
        drip: float | None = None,
    ) -> None:
        """Make the next requests to an endpoint fail, in the given order.

        ::

            server.fail_next(503, retry_after=30)
            server.fail_next(drop=True)                        # the answer is lost
            server.fail_next(200, body="<h1>Maintenance</h1>")
            server.fail_next(200, body={"access_token": None})
            server.fail_next(200, body="{", content_type="application/json")

        :param status: the HTTP status of the answer.  By default 307 with ``redirect``, 400 with
            ``error``, else 503.
        :param count: how many requests; ``None``: all, until :meth:`recover`.
        :param endpoint: ``"token"``, ``"login"``, ``"revoke"``, ``"metadata"``, ``"authorize"``,
            ``"device_authorization"``, ``"api"`` or ``"public"``.
        :param error: the OAuth error code of a JSON answer; by default one that suits the status.
            At the API it is in ``WWW-Authenticate`` as well.
        :param body: another body: text or bytes unchanged (as HTML unless ``content_type`` is
            given), a dict or list as JSON.
        :param content_type: the ``Content-Type`` header.
        :param retry_after: the ``Retry-After`` header: seconds, or an HTTP date.
        :param redirect: the ``Location`` header.
        :param headers: more headers, or replacements for the above.
        :param processed: process the request (rotate!) before the failure.
        :param hang: never answer; ends when the client closes the connection or the server stops.
        :param drop: process the request, then close the connection: the answer is lost.
        :param reset: reset the connection without processing the request.
        :param drip: send the answer one byte at a time, with this many seconds after each; the
            genuine answer unless another one is described.
        :raises ValueError: if several of ``hang``, ``drop`` and ``reset`` are given.
        """
        if hang + drop + reset > 1:
            raise ValueError("hang, drop and reset exclude each other")
        described = bool(status or error or redirect) or body is not None
        genuine = drop or (drip is not None and not described)
        answer = (
            None
            if genuine
            else scripted_answer(
                endpoint,
                status=status,
                error=error,
                body=body,
                content_type=content_type,
                retry_after=retry_after,
                redirect=redirect,
                headers=headers,
            )
        )
        ending: Ending = "hang" if hang else "drop" if drop else "reset" if reset else "answer"
        self._script.add(endpoint, Fate(ending, answer, processed, drip), count)

    def recover(self, endpoint: Endpoint = "token") -> None:
        """Remove the failures of an endpoint that have not happened yet."""
        self._script.forget(endpoint)

    @contextlib.contextmanager
    def outage(
        self,
        status: int = 503,
        *,
        retry_after: float | str | None = None,
        endpoint: Endpoint = "token",
    ) -> Iterator[None]:
        """Make every request to an endpoint fail until the block ends."""
        self.fail_next(status, count=None, retry_after=retry_after, endpoint=endpoint)
        try:
            yield
        finally:
            self.recover(endpoint)

    @contextlib.contextmanager
    def hold(self, *, processed: bool = False, endpoint: Endpoint = "token") -> Iterator[Hold]:
        """Stop requests midway, so that a test can act while one is in progress.

        ::

            with server.hold() as hold:
                thread.start()
                assert hold.arrived.wait(10)
                ...                           # a renewal is in progress
            thread.join()

        The requests continue at the end of the block or at :meth:`Hold.release`.

        :param processed: stop requests after processing and before the answer; by default before
            processing.
        """
        hold = Hold(endpoint, processed=processed)
        self._script.begin(hold)
        try:
            yield hold
        finally:
            self._script.end(hold)
