"""The admin port: a small HTTP server in a thread of its own, so that figures do not wait behind requests.

gunicorn's master opens the port, and the processes of the instance share it: whichever takes a connection answers for
all of them. Scrapers and probes ask seldom, so the standard library's server is fast enough.

APPSEC: whoever reaches the port sees what is there; it belongs into no Ingress and no load balancer.
"""

import logging
import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_logger = logging.getLogger(__name__)

# How long a client may take to send its request, or to read the answer.
_CLIENT_TIMEOUT_S: Final = 5


class AdminServer:
    """Serves ``app`` on a socket that already listens."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def listen_on(self, listener: socket.socket) -> None:
        """Take the socket to serve on. Call it before ``start``."""
        self._server = _Server(listener)
        self._server.set_app(self._app)

    def start(self) -> None:
        """Serve in the background, if there is a socket, and return at once. Call it after the fork, once."""
        if self._server is not None:
            self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Take no more connections, within ``timeout_s`` (half a second, as a rule)."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout_s)
            self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__((host, port), _Requests, bind_and_activate=False)
        self.socket.close()
        # Another process may have taken the connection that we were woken for.
        listener.setblocking(False)
        self.socket = listener
        self.server_name, self.server_port = host, port
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 of socketserver
        _logger.debug("admin port: connection to %s ended", client_address, exc_info=True)


class _Requests(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        pass
