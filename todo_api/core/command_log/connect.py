"""Which adapter: chosen by name, its driver imported only then."""

from collections.abc import Sequence
from typing import Final, Literal

from todo_api.core.command_log import Consumer, Publisher

Kind = Literal["kafka", "streams"]

PUBLISH_TIMEOUT_S: Final = 1.5


def dead_letters_topic(topic: str) -> str:
    """Return where the dead letters of ``topic`` go: a topic of one partition."""
    return f"{topic}.dlq"


def make_publisher(
    kind: Kind,
    *,
    brokers: Sequence[str],
    topic: str,
    partitions: int,
    redis_url: str,
    timeout_s: float = PUBLISH_TIMEOUT_S,
) -> Publisher:
    """Return a publisher on ``topic`` that has not opened anything yet. ``brokers`` or ``redis_url`` is used."""
    if kind == "kafka":
        from todo_api.core.command_log.kafka_publisher import KafkaPublisher

        return KafkaPublisher(brokers, topic, timeout_s=timeout_s)
    from todo_api.core.command_log.streams import StreamsPublisher

    return StreamsPublisher(redis_url, topic, partitions, timeout_s=timeout_s)


def make_consumer(
    kind: Kind, *, brokers: Sequence[str], topic: str, partitions: int, redis_url: str, group: str
) -> Consumer:
    """Return a consumer of ``topic`` that has not opened anything yet. ``group`` is for Kafka only."""
    if kind == "kafka":
        from todo_api.core.command_log.kafka_consumer import KafkaLogConsumer

        return KafkaLogConsumer(brokers, topic, group)
    from todo_api.core.command_log.streams import StreamsConsumer

    return StreamsConsumer(redis_url, topic, partitions)
