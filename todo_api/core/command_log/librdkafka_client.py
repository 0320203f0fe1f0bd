"""What publisher and consumer share of confluent-kafka, the Python binding of librdkafka."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from todo_api.core.command_log.kafka_client import CLIENT_ID
from todo_api.core.command_log.kafka_security import KafkaSecurity, Kind, Refusal

# Below "kafka", so that the same bounds on noise hold as for kafka-python.
logger: Final = logging.getLogger("kafka.librdkafka")

_WARNING: Final = 4


class Heard:
    """Why brokers do not let us in, as librdkafka said last. Called within its ``poll``, for ``error_cb``."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None

    def __call__(self, error: KafkaError) -> None:
        # Said after each of the others as well.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            kind = _kind_of(error)
            self.refusal = None if kind is None else Refusal(kind, error.str())


def _kind_of(error: KafkaError) -> Kind | None:
    if error.code() == KafkaError._AUTHENTICATION:
        return "credentials"
    said = error.str()
    # Its codes do not tell: some of it is a lost connection like any other.
    if "SSL handshake" not in said and "SSL routines" not in said:
        return None
    if "certificate verify failed" in said:
        return "certificate"
    return "own certificate" if " alert " in said else "tls"


def common(brokers: Sequence[str], security: KafkaSecurity, heard: Heard) -> dict[str, Any]:
    """Return the configuration that every client of ours has. Names as in librdkafka's CONFIGURATION.md."""
    access = {
        "security.protocol": security.protocol,
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": security.password,
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.cert_file,
        "ssl.key.location": security.key_file,
    }
    return {
        **{name: value for name, value in access.items() if value is not None},
        "error_cb": heard,
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
