"""Publishers straight on Kafka, for the tests of one adapter: what all adapters promise is in tests/contracts."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from todo_api.core.command_log.kafka_publisher import KafkaPublisher
from todo_api.core.command_log.librdkafka_publisher import LibrdkafkaPublisher

P = TypeVar("P", KafkaPublisher, LibrdkafkaPublisher)


def publishers(kind: type[P]) -> Iterator[Callable[[str, str], P]]:
    """Yield what makes one for (bootstrap, topic), not yet started; close all of them at the end."""
    made: list[P] = []

    def make(bootstrap: str, topic: str) -> P:
        made.append(
            kind([bootstrap], topic, timeout_s=1.5, connect_timeout_s=1.5, record_max_bytes=1_000_000)
        )
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(1.0)
