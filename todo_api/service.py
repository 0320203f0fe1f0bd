"""One API process: the app, and what it needs opened after the fork and closed before the exit."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from todo_api.shortcut import Shortcut

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """Something with a life: ``start`` returns at once, ``stop`` gets the seconds it may take."""

    name: str
    start: Callable[[], None]
    stop: Callable[[float], None]


class Service:
    """The WSGI callable of a process.

    Nothing is opened before ``start``. gunicorn's hooks call it after the fork; under another server the first
    request does.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        parts: Sequence[Part],
        drain: Callable[[], None],
        join: Callable[[memoryview, int, int], None] = lambda _memory, _slots, _own: None,
        serve_admin: Callable[[socket.socket], None] | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.shortcut = shortcut
        """What a server may ask before it asks the app, once started."""
        self._app = app
        self._parts = tuple(parts)
        self._drain = drain
        self._join = join
        self._serve_admin = serve_admin
        self._starting = threading.Lock()
        self._started: list[Part] = []
        self._is_started = False

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not self._is_started:
            self.start()
        return self._app(environ, start_response)

    def join(self, memory: memoryview, slots: int, own: int) -> None:
        """Be one of several processes: count in slot ``own`` of this many in ``memory``. Call it before ``start``."""
        self._join(memory, slots, own)

    def serve_admin(self, listener: socket.socket) -> None:
        """Serve the admin port, too, on this socket, which already listens. Call it before ``start``."""
        if self._serve_admin is not None:
            self._serve_admin(listener)

    def start(self) -> None:
        """Open everything, in order. The second and later calls do nothing."""
        with self._starting:
            if self._is_started:
                return
            for part in self._parts:
                part.start()
                self._started.append(part)
            self._is_started = True

    def drain(self) -> None:
        """Be not ready from now on; requests are still answered. Safe in a signal handler."""
        self._drain()

    def stop(self, timeout_s: float) -> None:
        """Close what was started, the last first, within ``timeout_s`` in all. Never raises."""
        deadline = time.monotonic() + timeout_s
        while self._started:
            part = self._started.pop()
            try:
                part.stop(max(0.0, deadline - time.monotonic()))
            # The others must be closed all the same, the publisher above all.
            except Exception:
                _logger.exception(
                    "could not be closed", extra={"event": "api.close_failed", "part": part.name}
                )
