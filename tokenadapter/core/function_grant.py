"""A grant that wraps a token source that is a plain function."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

from tokenadapter.late_imports import late
from tokenadapter.values import Credential

if TYPE_CHECKING:
    import asyncio
    import contextvars

    from tokenadapter import spelling
    from tokenadapter.core import messages
    from tokenadapter.protocols import Answer, TokenSource
    from tokenadapter.token import Token
else:
    asyncio = late("asyncio")
    contextvars = late("contextvars")
    messages = late("tokenadapter.core.messages")
    spelling = late("tokenadapter.spelling")

__all__ = ["FunctionGrant", "function_grant"]

# Seconds that the tasks of a coroutine function, and then its generators, may take to end.
_ENDS_WITHIN = 0.5


class FunctionGrant:
    """A grant around a plain function, whose credentials can only be guessed.

    If the previous token has a refresh token, the function is assumed to spend it.  Called without
    a refresh token, the function presents an unknown credential.  Once it has returned a refresh
    token, it is assumed to have spent that credential.  The function has no time limit, so its
    requests need timeouts.

    The function may be a coroutine function: each call has an event loop of its own.

    :ivar asked_by: the thread that is in the function now.  If all sessions of the program sign
        their requests, those that the function makes are left unsigned.
    """

    client_credential = ""
    requested: Mapping[str, str] = {}
    urls: Sequence[str] = ()
    grace: float = 0.0
    deadline: float = 60.0
    asked_by: int | None = None

    def __init__(self, function: TokenSource, owner: Mapping[str, str]) -> None:
        self.function = function
        self.owner = owner
        self._spends = False

    def credentials(self, previous: Token | None) -> Sequence[Credential]:
        if previous is not None and previous.refresh_token is not None:
            self._spends = True
            return [Credential("refresh_token", previous.refresh_token, single_use=True)]
        return [Credential("function", "", single_use=self._spends, opaque=True)]

    def _function(self) -> Callable[..., Answer | Awaitable[Answer]]:
        return self.function

    def fetch(self, credential: Credential, previous: Token | None) -> Answer:
        function = self._function()
        self.asked_by = get_ident()
        try:
            said = function(previous) if spelling.takes_argument(function) else function()
            if isinstance(said, Awaitable):
                # In a copy of the caller's context, which the event loop changes.
                answer = contextvars.copy_context().run(_awaited, said)
            else:
                answer = said
        finally:
            self.asked_by = None
        if _has_refresh_token(answer):
            self._spends = True
        return answer


def _awaited(said: Awaitable[Answer]) -> Answer:
    """The result of *said*, awaited in an event loop of its own.  Changes the context.

    :raises RefreshConfigError: if this thread has an event loop already.
    """
    if asyncio._get_running_loop() is not None:
        raise messages.source_needs_thread()
    library = getattr(sys.modules.get("sniffio"), "current_async_library_cvar", None)
    if library is not None:
        library.set(None)  # the caller's may be trio, and httpx and anyio would wait with that
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await said)

    # Not asyncio.run(), which returns when all that the function left behind has ended: tasks that
    # go on after their cancellation, and threads.  A new refresh token must be saved before.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(wait())
    except BaseException:
        # Nor may what the function left behind in the event loop cost a token.
        if not answers:
            raise
    finally:
        with suppress(BaseException):
            loop.run_until_complete(_end_leftovers())
        with suppress(Exception):
            loop.close()
    return answers[0]


async def _end_leftovers() -> None:
    """Cancel what the function left behind in the event loop, and give it time to end."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_ENDS_WITHIN)
    await asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=_ENDS_WITHIN)


def _has_refresh_token(answer: Answer) -> bool:
    if isinstance(answer, Mapping):
        return bool(answer.get("refresh_token"))
    return getattr(answer, "refresh_token", None) is not None


def function_grant(source: TokenSource, owner: Mapping[str, str]) -> FunctionGrant:
    """A grant around *source*, which is not a grant itself.

    :param owner: the owner of the tokens that it obtains, since a function cannot name it.
    :raises TypeError: if *source* is not a function.
    """
    given: Any = source
    if callable(given) and not isinstance(given, type):
        return FunctionGrant(source, owner)
    raise TypeError(
        "source must be an object such as ClientCredentials(...), or a function that returns a "
        f"token, not {spelling.kind_of(given)}"
    )
