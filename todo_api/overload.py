"""What is done when more is asked than can be: who has waited too long is refused at once, so that others are served.

A sync worker answers one request after the other, and the rest waits in the kernel: first for accept(), then with its
bytes unread. There is no counter to look at and no length that would be right, for how long a queue may be depends on
what is in it. So the wait itself is measured: the kernel knows how long ago the last byte of a request arrived. A
refusal costs a fiftieth of a write, so whatever comes beyond the capacity leaves nearly all of it to the others.

Behind the hit path: answering a page from memory costs no more than refusing it.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from todo_api.problems import CONTENT_TYPE, OVERLOADED, Problem
from todo_api.request_ids import id_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Everybody is answered within a second, so waiting may take what the work itself does not: a write takes some 5 ms, a
# list that is not in memory up to 100, and on a busy machine twice that.
AGE_MAX_S: Final = 0.75
# Where struct tcp_info (linux/tcp.h) has the milliseconds since data last arrived.
_LAST_RECEIVED: Final = struct.Struct("52xI")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Probes and scrapers ask who is overloaded; they must get their answer.
_SPARED: Final = frozenset({"/health", "/ready", "/metrics", "/status.json"})


class LoadShedder:
    """A WSGI layer: a request that waited longer than ``age_max_s`` before it got here is answered 503.

    ``write_wait_s`` tells how long a write has yet to wait from here on (``group_commit``), which counts too.

    Not one that came before this process began to serve: it waited for a start, not for others.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        *,
        age_max_s: float = AGE_MAX_S,
        age_of: "Callable[[WSGIEnvironment], float] | None" = None,
        clock: Callable[[], float] = time.monotonic,
        write_wait_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._app = app
        self._age_max_s = age_max_s
        self._age_of = age_of or waited_s
        self._clock = clock
        self._write_wait_s = write_wait_s
        self._began_at: float | None = None
        self.refused = 0
        """How many requests were refused so far."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if self._began_at is None:
            self._began_at = self._clock()
        age_s = self._age_of(environ)
        # A write has a second queue before it, in this process; it will wait there as long as the last one did.
        ahead_s = 0.0 if environ["REQUEST_METHOD"] in _READS else self._write_wait_s()
        if (
            age_s + ahead_s <= self._age_max_s
            or self._clock() - age_s <= self._began_at
            or environ["PATH_INFO"] in _SPARED
        ):
            return self._app(environ, start_response)
        self.refused += 1
        request_id = id_of(environ.get("HTTP_X_REQUEST_ID"))
        detail = "too many requests are waiting here; please try again after the time in Retry-After"
        body = Problem(OVERLOADED, detail).body(request_id)
        headers = [
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Retry-After", "1"),
            ("X-Request-Id", request_id),
        ]
        start_response("503 Service Unavailable", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def waited_s(environ: "WSGIEnvironment") -> float:
    """Return how long ago the last byte of this request arrived on this machine; 0 where nobody can tell.

    By the kernel's own clock: no header that could be wrong or forged, no clock of another machine. A client that sends
    more before it has its answer looks younger than it is, and only waits longer for it.
    """
    client: Any = environ.get("meinheld.client")
    try:
        if client is not None:
            # PERF: with the family given, making the object asks the kernel nothing: 1.3 us in place of 4.
            borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, client.get_fd())
            try:
                info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
            finally:
                borrowed.detach()
        else:
            connection: Any = environ.get("gunicorn.socket")
            if connection is None:
                return 0.0
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
    # No TCP (a Unix socket), or no Linux.
    except (OSError, AttributeError):
        return 0.0
    return float(_LAST_RECEIVED.unpack(info)[0] / 1000) if len(info) == _LAST_RECEIVED.size else 0.0
