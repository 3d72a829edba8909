"""A request that ends when its time is up, and knows whether any of it may have been sent.

The timeouts of requests bound each step, not the whole: a server that sends a byte now and then
keeps its client waiting without end.  Here each read gets what is left of one total, from servers
and from proxies, and nothing is sent after the end of that time.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager

from tokenadapter.values import always

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection
else:
    # Tools that record traffic in tests replace that class for a while, and this module may be
    # imported meanwhile.  The class to which _Connection is added brings the right one.
    HTTPConnection = object

__all__ = ["Deadline", "DeadlineAdapter"]


class Deadline:
    """The end of the time that one request may take.

    :param seconds: its length, from now on.
    :param may_be_sent: called at the last moment before the request is sent.
    :ivar sending: whether the request may have been sent, at least in part.
    """

    def __init__(self, seconds: float, may_be_sent: Callable[[], bool] = always) -> None:
        self.sending: bool = False
        self._seconds = seconds
        self._may_be_sent = may_be_sent
        self._monotonic = time.monotonic()
        self._wall = time.time()

    def left(self) -> float:
        """The seconds that are left.

        :raises TimeoutError: if there are none.
        """
        left = self._seconds - (time.monotonic() - self._monotonic)
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def begin_sending(self) -> float:
        """The seconds that are left, at the last moment before the request is sent.

        :raises TimeoutError: if there are none: the request must not be sent.
        :raises InterruptedError: if the request must not be sent for another reason.
        """
        # The monotonic clock may stand still while the machine sleeps.
        if time.time() - self._wall >= self._seconds:
            raise TimeoutError("timed out")
        left = self.left()
        if not self._may_be_sent():
            raise InterruptedError("the lock was lost while connecting")
        self.sending = True
        return left


class DeadlineAdapter(HTTPAdapter):
    """Sends one request, directly or through a proxy, and reads the answer until *deadline*.

    The timeouts given to :meth:`send` bound what comes before the request: each attempt to
    connect, and each TLS handshake.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._bind(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        self._bind(manager)
        return manager

    def _bind(self, manager: PoolManager) -> None:
        """Let *manager* make connections that keep to the deadline.

        They derive from those that it would make, because a SOCKS proxy has its own.
        """
        classes: Mapping[str, Any] = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": self._bound(pool.ConnectionCls)})
            for scheme, pool in classes.items()
        }

    def _bound(self, connection: type) -> type:
        return type(connection.__name__, (_Connection, connection), {"deadline": self._deadline})


class _Connection(HTTPConnection):
    """What each kind of connection gets in addition."""

    deadline: ClassVar[Deadline]

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        # The headers are complete and nothing of them is sent.  Connecting sends no request.
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self.deadline.begin_sending())
        super().endheaders(*args, **kwargs)

    # http.client calls this for the answers of the server and of a proxy that opens a tunnel.
    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_Incoming(response.fp.detach(), sock, self.deadline))
        return response


class _Incoming(io.RawIOBase):
    """The bytes that a socket receives until the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
