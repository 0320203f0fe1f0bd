"""``/metrics`` of worker and relay, on a port and in a thread of its own: it answers while their loop waits."""

import threading
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from todo_api.core.exposition import SeriesCollector
from todo_api.core.metrics import Series


class MetricsServer:
    """Listens from the beginning. Raises OSError when the port cannot be had."""

    def __init__(self, port: int, read: Callable[[], Iterable[Series]], host: str = "0.0.0.0") -> None:
        registry = CollectorRegistry()
        registry.register(SeriesCollector(read))
        ProcessCollector(registry=registry)
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(port, host, registry)

    def close(self) -> None:
        """Stop listening, within half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)
