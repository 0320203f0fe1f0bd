"""The relay process: ``python -m todo_api.relay``. Serves ``PUBLISHER_SOCKET`` until SIGTERM or SIGINT."""

import logging
import signal
import sys
from pathlib import Path
from typing import Final

from config.logs import configure_logging
from config.settings import Settings, SettingsError, load_settings
from todo_api.breaker import GuardedPublisher
from todo_api.core.command_log.connect import make_publisher
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.metrics_server import MetricsServer
from todo_api.relay_server import Relay, SocketTaken

_logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S: Final = 2.0


def main() -> int:
    """Run the relay. Returns the exit code: 0 after an orderly stop, 2 for bad settings or a socket it cannot have."""
    try:
        settings = load_settings("relay")
        configure_logging(settings.log_level, settings.log_format)
        run(settings)
    except (SettingsError, SocketTaken) as ex:
        print(ex, file=sys.stderr)
        return 2
    return 0


def run(settings: Settings) -> None:
    """Build the relay from ``settings`` and run it until a signal. Raises SocketTaken, SettingsError."""
    publisher = make_publisher(
        settings.command_log,
        brokers=settings.kafka_brokers,
        topic=settings.kafka_todo_topic,
        partitions=settings.kafka_partitions,
        redis_url=settings.redis_url,
        kafka_client=settings.kafka_client,
        security=KafkaSecurity(**settings.kafka_security),
    )
    assert settings.publisher_socket is not None
    # One batch after the other: while the log is away, none may wait for it behind another.
    publisher = GuardedPublisher(publisher)
    relay = Relay(publisher, Path(settings.publisher_socket))
    port = settings.relay_metrics_port
    exported = None if port is None else _metrics_server(port, relay)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop())
    _logger.info("relay starts", extra={"event": "relay.start", "settings": settings.shown()})
    publisher.start()
    try:
        relay.run()
    finally:
        publisher.close(_CLOSE_TIMEOUT_S)
        if exported is not None:
            exported.close()
        _logger.info("relay stopped", extra={"event": "relay.stop"})


def _metrics_server(port: int, relay: Relay) -> MetricsServer:
    try:
        return MetricsServer(port, relay.read)
    except OSError as ex:
        raise SettingsError(f"settings:\n  - RELAY_METRICS_PORT {port} cannot be had: {ex.strerror}") from ex


if __name__ == "__main__":
    sys.exit(main())
