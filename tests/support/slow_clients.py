"""Clients that hold connections: a head or a body byte by byte, an answer that nobody reads."""

import socket
import threading
import time
from contextlib import AbstractContextManager
from typing import Final

from tests.support.background import beside

_EVERY_S: Final = 0.5
_HEAD: Final = b"GET /todos HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
_BODY: Final = b"POST /todos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{"
_READER: Final = b"GET /todos?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


class SlowClients:
    """``count`` connections to ``port``: in equal parts slow heads, slow bodies, and readers that do not read."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._stop = threading.Event()
        self.head_cut_after_s: list[float] = []
        """How long each slow head was suffered."""

    def holding(self) -> AbstractContextManager[None]:
        """Hold the connections during the body of ``with``."""
        return beside(self._hold, self._stop)

    def _hold(self) -> None:
        clients: dict[socket.socket, tuple[bytes, float]] = {}
        for number in range(self._count):
            kind = (_HEAD, _BODY, _READER)[number % 3]
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", self._port))
            client.sendall(kind)
            client.setblocking(False)
            clients[client] = kind, time.monotonic()
        while not self._stop.wait(_EVERY_S):
            for client, (kind, began) in list(clients.items()):
                if kind is not _READER and not self._is_suffered(client):
                    del clients[client]
                    client.close()
                    if kind is _HEAD:
                        self.head_cut_after_s.append(time.monotonic() - began)
        for client in clients:
            client.close()

    @staticmethod
    def _is_suffered(client: socket.socket) -> bool:
        try:
            client.send(b"a")
            # An answer, a refusal for example, ends it as well.
            client.recv(1000)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return False
