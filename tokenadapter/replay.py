"""Whether the body of a request can be sent again, and how.

A request whose token turned out dead is sent again whole, or not at all.

* ``None``, bytes and other buffers, ``str``, and lists or tuples of parts repeat as they are.
* A body whose ``seekable()`` is true is rewound to where it stood.  A file must have kept its size:
  the ``Content-Length`` stands, and more or fewer bytes would not be the request that was refused.
* Everything else (generators, pipes, sockets, encoders) is *recorded while it is sent*.  That an
  iterable gives a new iterator proves nothing: raw responses and generator classes do, and are
  empty the second time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from tokenadapter.recorder import NotReplayable, record

__all__ = ["Body", "NotReplayable", "prepare"]


class Body:
    """The body of one request, and the way back to where it stood.

    :ivar payload: what to send: the body itself, or a recorder of the same shape around it.  It is
        good for any number of sendings, each after the first preceded by :meth:`rewind`.
    :ivar one_shot: whether the body can be drawn but once, so that a replay depends on how much of
        it can be recorded.
    """

    __slots__ = ("_close", "_rewind", "one_shot", "payload")

    def __init__(
        self,
        payload: Any,
        *,
        one_shot: bool = False,
        rewind: Callable[[], object] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self.payload: Any = payload
        self.one_shot: bool = one_shot
        self._rewind = rewind
        self._close = close

    def rewind(self) -> None:
        """Bring :attr:`payload` back to where the body stood.

        :raises NotReplayable: if that is not possible; nothing less must be sent then.
        """
        try:
            if self._rewind is not None:
                self._rewind()
        except NotReplayable:
            raise
        except (OSError, ValueError) as error:  # ValueError: the file has been closed
            raise NotReplayable(f"the body cannot be rewound: {error}") from error

    def close(self) -> None:
        """Free what was recorded: neither a replay nor a retry comes any more.

        The body itself is left as it is; it belongs to the caller.
        """
        if self._close is not None:
            self._close()


def prepare(body: Any, *, limit: int) -> Body:
    """Make a request's body ready to be sent more than once.

    :param body: what urllib3 takes for one: ``None``, a buffer, a ``str``, an object with
        ``read``, or an iterable of ``str`` and buffers.  It must stand where its sending begins.
    :param limit: how many bytes of a one-shot body are recorded at most.  With 0 it is handed on
        unwrapped and cannot be replayed.
    """
    if body is None or isinstance(body, (str, list, tuple)) or _is_buffer(body):
        return Body(body)
    start = _position(body)
    if start is not None:
        return Body(body, rewind=partial(_go_back, body, start, _file_size(body)))
    if limit <= 0:
        return Body(body, one_shot=True, rewind=_refuse)
    recorder = record(body, limit)
    return Body(recorder, one_shot=True, rewind=partial(recorder.seek, 0), close=recorder.close)


def _is_buffer(body: Any) -> bool:
    # urllib3 asks for "read" first: a mapped file, which is both, is drawn like a file.
    if hasattr(body, "read"):
        return False
    try:
        memoryview(body).release()
    except TypeError:
        return False
    return True


def _position(body: Any) -> int | None:
    """Where a seekable body stands; ``None`` if it is not seekable or cannot tell."""
    try:
        position: int | None = body.tell() if body.seekable() else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return position


def _file_size(body: Any) -> int | None:
    """The size in bytes of the file behind a body; ``None`` if there is none."""
    try:
        return os.fstat(body.fileno()).st_size
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _go_back(body: Any, start: int, size: int | None) -> None:
    body.seek(start)
    if _file_size(body) != size:
        raise NotReplayable("the file changed its size while it was sent")


def _refuse() -> None:
    raise NotReplayable("the body can be drawn but once, and recording is turned off")
