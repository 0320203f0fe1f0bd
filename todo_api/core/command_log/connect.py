"""Which adapter: chosen by name, its driver imported only then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from todo_api.core.command_log import Consumer, Publisher
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity

Kind = Literal["kafka", "streams"]
KafkaClient = Literal["kafka-python", "librdkafka"]

# A write that waits holds up nobody (on gthread it has one of eight threads), and a log that is slow but works must not
# be given up. With Kafka 200 ms away (row 9c of the fault suite) and both cores busy with other things, half a second
# refused 26, 0 and 17 % of the writes in three rounds, and this none in two.
ACK_TIMEOUT_S: Final = 0.9
# On top, once: a client that has yet to find the brokers and their partitions took up to a second for that, with 15
# processes ready to run on two cores.
CONNECT_TIMEOUT_S: Final = 0.7
# Above both together, so that API processes hear the relay's reason; below the 2 s that a write may take.
RELAYED_TIMEOUT_S: Final = 1.75
# Kafka's default, here for either log, so that what fits into one fits into the other.
RECORD_MAX_BYTES: Final = 1_048_576
# A dead letter is a message with a few headers more.
DEAD_LETTER_MAX_BYTES: Final = 2 * RECORD_MAX_BYTES
# Dead letters are few and read by people.
DEAD_LETTERS_PARTITIONS: Final = 1


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
    kafka_client: KafkaClient = "kafka-python",
    security: KafkaSecurity = IN_THE_CLEAR,
    timeout_s: float = ACK_TIMEOUT_S,
    record_max_bytes: int = RECORD_MAX_BYTES,
) -> Publisher:
    """Return a publisher on ``topic`` that has not opened anything yet. ``brokers`` or ``redis_url`` is used.

    A record waits ``timeout_s`` for its acknowledgement, and before for a connection if there is none yet.
    """
    if kind == "kafka" and kafka_client == "librdkafka":
        from todo_api.core.command_log.librdkafka_publisher import LibrdkafkaPublisher

        return LibrdkafkaPublisher(
            brokers,
            topic,
            timeout_s=timeout_s,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            record_max_bytes=record_max_bytes,
            security=security,
        )
    if kind == "kafka":
        from todo_api.core.command_log.kafka_publisher import KafkaPublisher

        return KafkaPublisher(
            brokers,
            topic,
            timeout_s=timeout_s,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            record_max_bytes=record_max_bytes,
            security=security,
        )
    from todo_api.core.command_log.streams import StreamsPublisher

    return StreamsPublisher(
        redis_url, topic, partitions, timeout_s=timeout_s, record_max_bytes=record_max_bytes
    )


def make_relayed_publisher(kind: Kind, *, topic: str, socket: Path) -> Publisher:
    """Return a publisher that appends through the relay at ``socket``, and has not opened anything yet."""
    from todo_api.core.command_log.relayed import RelayedPublisher

    return RelayedPublisher(
        socket, f"{kind}:{topic}", timeout_s=RELAYED_TIMEOUT_S, record_max_bytes=RECORD_MAX_BYTES
    )


def make_dead_letter_publisher(
    kind: Kind,
    *,
    brokers: Sequence[str],
    topic: str,
    redis_url: str,
    timeout_s: float,
    kafka_client: KafkaClient = "kafka-python",
    security: KafkaSecurity = IN_THE_CLEAR,
) -> Publisher:
    """Return a publisher of the dead letters of ``topic``, which takes whatever that topic took, and why."""
    return make_publisher(
        kind,
        brokers=brokers,
        topic=dead_letters_topic(topic),
        partitions=DEAD_LETTERS_PARTITIONS,
        redis_url=redis_url,
        kafka_client=kafka_client,
        security=security,
        timeout_s=timeout_s,
        record_max_bytes=DEAD_LETTER_MAX_BYTES,
    )


def make_consumer(
    kind: Kind,
    *,
    brokers: Sequence[str],
    topic: str,
    partitions: int,
    redis_url: str,
    group: str,
    kafka_client: KafkaClient = "kafka-python",
    security: KafkaSecurity = IN_THE_CLEAR,
) -> Consumer:
    """Return a consumer of ``topic`` that has not opened anything yet. ``group`` is for Kafka only."""
    if kind == "kafka" and kafka_client == "librdkafka":
        from todo_api.core.command_log.librdkafka_consumer import LibrdkafkaConsumer

        return LibrdkafkaConsumer(brokers, topic, group, security=security)
    if kind == "kafka":
        from todo_api.core.command_log.kafka_consumer import KafkaLogConsumer

        return KafkaLogConsumer(brokers, topic, group, security=security)
    from todo_api.core.command_log.streams import StreamsConsumer

    return StreamsConsumer(redis_url, topic, partitions)
