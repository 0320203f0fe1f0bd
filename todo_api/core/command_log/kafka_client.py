"""What publisher and consumer share of kafka-python 3.0.12: limits, and how to make and close its parts."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any, Final

from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from todo_api.core.command_log.kafka_repairs import repair

# Protocol versions are negotiated with each broker and never go above this release. Named, so that making a
# client opens no connection: kafka-python would otherwise wait for a broker in the constructor.
API_VERSION: Final = (3, 0)
CLIENT_ID: Final = "todo-api"

# A broker that comes back is used within about this time; the default is half a minute.
_RECONNECT_MAX_MS: Final = 1_000
_CONNECT_TIMEOUT_MS: Final = 1_000
_PENDING_CONNECTION_POLL_MS: Final = 20.0

COMMON: Final[dict[str, Any]] = {
    "api_version": API_VERSION,
    "client_id": CLIENT_ID,
    "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
    "retry_backoff_ms": 100,
    "metrics_enabled": False,
}


def network_client(**configs: Any) -> Any:
    """Make the network client of a consumer or an administrator; for their option ``kafka_client``."""
    repair()
    return KafkaNetClient(
        **configs,
        socket_connection_setup_timeout_ms=_CONNECT_TIMEOUT_MS,
        socket_connection_setup_timeout_max_ms=_CONNECT_TIMEOUT_MS * 2,
    )


def producer_network_client(**configs: Any) -> Any:
    """Make the network client of a producer."""
    client = network_client(**configs)
    delay_s = client.connection_delay

    def connection_delay_ms(node_id: object) -> float:
        # PERF: the producer's thread polls for this many milliseconds. The library answers 0 while a connection
        # is pending (a frozen or black-holed broker), and seconds otherwise, so that thread takes a whole core.
        # Not for consumers: theirs take anything but 0 for a coordinator that is lost.
        return max(float(delay_s(node_id)) * 1000.0, _PENDING_CONNECTION_POLL_MS)

    client.connection_delay = connection_delay_ms
    client.together = _Together(client)
    return client


class _Together:
    """Lets a thread append several records before the producer's thread hears of them."""

    def __init__(self, client: Any) -> None:
        self._wakeup = client.wakeup
        # Adding and discarding are atomic.
        self._appending: set[int] = set()
        client.wakeup = self._wakeup_unless_appending

    @contextmanager
    def appended(self) -> Iterator[None]:
        """Wake the producer's thread once, in the end.

        PERF: woken by the first record, it sends that one alone, and the rest waits for the answer; and the two
        threads take turns for each record.
        """
        self._appending.add(get_ident())
        try:
            yield
        finally:
            self._appending.discard(get_ident())
            self._wakeup()

    def _wakeup_unless_appending(self) -> None:
        if get_ident() not in self._appending:
            self._wakeup()


def close_producer(producer: Any, timeout_s: float) -> None:
    """Close it even when records are stuck; never raises. Takes at most about ``timeout_s`` and a second."""
    try:
        producer.close(timeout_s)
    except KafkaError:
        # The flush timed out and the library left its sender running. Fail what is stuck, end the thread.
        producer._sender.force_close()
        producer._sender.join(1.0)
        with suppress(KafkaError):
            producer.close(0)
