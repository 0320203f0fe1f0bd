"""What publisher and consumer share of confluent-kafka, the Python binding of librdkafka."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from todo_api.core.command_log.kafka_client import CLIENT_ID

# Below "kafka", so that the same bounds on noise hold as for kafka-python.
logger: Final = logging.getLogger("kafka.librdkafka")

_WARNING: Final = 4


def common(brokers: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that every client of ours has. Names as in librdkafka's CONFIGURATION.md."""
    return {
        "bootstrap.servers": ",".join(brokers),
        "client.id": CLIENT_ID,
        "logger": logger,
        "log_level": _WARNING,
        # Brokers close idle connections, which is no news.
        "log.connection.close": False,
        "socket.connection.setup.timeout.ms": 1_000,
        "socket.nagle.disable": True,
        # A broker that comes back is used within about this time; the default is ten seconds.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
        # A topic that is made after us is seen within this time; the default is five minutes.
        "topic.metadata.refresh.interval.ms": 10_000,
    }


def reason(ex: KafkaException) -> KafkaError:
    """Return what librdkafka says is wrong."""
    error = ex.args[0]
    assert isinstance(error, KafkaError)
    return error
