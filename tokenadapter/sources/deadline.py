"""A request that ends when its time is up, and knows whether any of it may have been sent.

The timeouts of requests bound each step, not the whole: a server that sends a byte now and then
keeps its client waiting without end.  Here each read gets what is left of one total, from servers
and from proxies, and nothing is sent after the end of that time.

urllib3 tries one address of a host after the other and gives each the whole timeout.  Here the
addresses are tried side by side (RFC 8305), so that those that do not answer cost little.
"""

from __future__ import annotations

import http.client
import io
import os
import selectors
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection

from tokenadapter.values import never

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection
else:
    # Tools that record traffic in tests replace that class for a while, and this module may be
    # imported meanwhile.  The class to which _Connection is added brings the right one.
    HTTPConnection = object

__all__ = ["Deadline", "DeadlineAdapter"]

# Seconds without an answer after which the next address is tried as well.
_PAUSE = 0.25
_TCP = socket.SOCK_STREAM
# Seconds for which to go on waiting for an answer at a time.
_STEP = 1.0
# How often to read what has arrived when the time is over, and the seconds that this may take.
_LATE_READS = 4
_MOMENT = 0.05


class Deadline:
    """The end of the time that one request may take.

    :param seconds: its length, from now on.
    :param keep_waiting: called if the request was sent and the time is over, and then every second:
        whether to go on waiting for the answer.
    :ivar seconds: the length, with the seconds that were added since.
    :ivar sending: whether the request may have been sent, at least in part.
    :ivar tried: the addresses to which a connection was begun.
    """

    def __init__(self, seconds: float, keep_waiting: Callable[[], bool] = never) -> None:
        self.sending: bool = False
        self.tried: list[str] = []
        self.seconds: float = seconds
        self._keep_waiting = keep_waiting
        self._monotonic = time.monotonic()
        self._wall = time.time()

    def left(self) -> float:
        """The seconds that are left.

        :raises TimeoutError: if there are none.
        """
        passed = time.monotonic() - self._monotonic
        if passed >= self.seconds:
            if not (self.sending and self._keep_waiting()):
                raise TimeoutError("timed out")
            self.seconds = passed + _STEP
        return self.seconds - passed

    def begin_sending(self) -> float:
        """The seconds that are left, at the last moment before the request is sent.

        :raises TimeoutError: if there are none: the request must not be sent.
        """
        # The monotonic clock may stand still while the machine sleeps.
        if time.time() - self._wall >= self.seconds:
            raise TimeoutError("timed out")
        left = self.left()
        self.sending = True
        return left


class DeadlineAdapter(HTTPAdapter):
    """Sends one request, directly or through a proxy, and reads the answer until *deadline*.

    The timeout given to :meth:`send` should be that of the deadline.
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

    def _new_conn(self) -> socket.socket:
        if proxy := getattr(self, "_socks_options", None):
            # PySocks tries one address of the proxy after the other, and reports what fails.
            with suppress(OSError):
                found = socket.getaddrinfo(proxy["proxy_host"], proxy["proxy_port"], 0, _TCP)
                self.timeout = self.deadline.left() / (len(found) + 1)  # and a TLS handshake
            return super()._new_conn()
        try:
            sock = self._first_to_answer()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from error
        except OSError as error:
            why = f"Failed to establish a new connection: {error}"
            raise NewConnectionError(self, why) from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _first_to_answer(self) -> socket.socket:
        """A connection to the first address that accepts one."""
        host, families = self._dns_host.strip("[]"), connection.allowed_gai_family()
        addresses: list[Any] = socket.getaddrinfo(host, self.port, families, _TCP)
        turns: Mapping[int, Iterator[int]] = defaultdict(count)
        addresses.sort(key=lambda one: next(turns[one[0]]))  # IPv6 and IPv4 alternate
        # However many they are, half of the time is left after the last one is tried.
        pause = min(_PAUSE, self.deadline.left() / 2 / (len(addresses) + 1))
        failure = OSError("getaddrinfo returns an empty list")
        with selectors.DefaultSelector() as waiting, ExitStack() as opened:
            while addresses or waiting.get_map():
                if addresses:
                    *kind, _, address = addresses.pop(0)
                    try:
                        begun = opened.enter_context(socket.socket(*kind))
                        for option in self.socket_options or ():
                            begun.setsockopt(*option)
                        begun.setblocking(False)
                        if self.source_address:
                            begun.bind(self.source_address)
                        self.deadline.tried.append(address[0])
                        with suppress(BlockingIOError):
                            begun.connect(address)
                    except OSError as error:
                        failure = OSError(*error.args)
                        continue
                    waiting.register(begun, selectors.EVENT_WRITE, begun)
                left = self.deadline.left()
                for key, _ in waiting.select(min(pause, left) if addresses else left):
                    sock: socket.socket = waiting.unregister(key.fileobj).data
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number == 0:
                        sock.settimeout(self.deadline.left())
                        return sock.dup()  # the others are closed, and the original
                    failure = OSError(number, os.strerror(number))
            raise failure

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
        self._late_reads = _LATE_READS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        is_late = False
        while not is_late:
            try:
                left = self._deadline.left()
            except TimeoutError:
                if self._late_reads == 0 or not self._deadline.sending:
                    raise
                # This process may have been stopped.  What arrived meanwhile is not thrown away.
                self._late_reads -= 1
                is_late, left = True, _MOMENT
            self._sock.settimeout(left)
            # The file object of a socket cannot be read again after a timeout; the socket can.
            with suppress(TimeoutError):
                return self._sock.recv_into(buffer)
        raise TimeoutError("timed out")

    def close(self) -> None:
        self._raw.close()
        super().close()
