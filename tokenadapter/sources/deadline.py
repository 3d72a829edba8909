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

from tokenadapter.values import always

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


class Deadline:
    """The end of the time that one request may take.

    :param seconds: its length, from now on.
    :param may_be_sent: called at the last moment before the request is sent.
    :ivar sending: whether the request may have been sent, at least in part.
    :ivar tried: the addresses to which a connection was begun.
    """

    def __init__(self, seconds: float, may_be_sent: Callable[[], bool] = always) -> None:
        self.sending: bool = False
        self.tried: list[str] = []
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

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
