"""What publisher and consumer share of kafka-python 3.0.12: limits, and how to make and close its parts."""

from collections.abc import Sequence
from typing import Any, Final

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from todo_api.core.command_log.kafka_repairs import repair

# Protocol versions are negotiated with each broker and never go above this release. Named, so that making a
# client opens no connection: kafka-python would otherwise wait for a broker in the constructor.
API_VERSION: Final = (3, 0)
CLIENT_ID: Final = "todo-api"

# A broker that comes back is used within about this time; the default is half a minute.
_RECONNECT_MAX_MS: Final = 1_000
_CONNECT_TIMEOUT_MS: Final = 1_000

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


def connection_manager(brokers: Sequence[str], *, timeout_s: float) -> tuple[Any, Any]:
    """Make a loop, whose thread is not started, and what keeps connections and metadata on it. Opens nothing."""
    repair()
    loop = NetworkSelector(client_id=CLIENT_ID)
    manager = KafkaConnectionManager(
        loop,
        bootstrap_servers=list(brokers),
        api_version=API_VERSION,
        client_id=CLIENT_ID,
        reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
        request_timeout_ms=int(timeout_s * 1000),
        socket_connection_setup_timeout_ms=_CONNECT_TIMEOUT_MS,
        socket_connection_setup_timeout_max_ms=_CONNECT_TIMEOUT_MS * 2,
    )
    manager.cluster.config["allow_auto_create_topics"] = False
    return loop, manager
