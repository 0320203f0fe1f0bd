"""Look into a log from outside, at any offset and without a group. For tools: the worker has its ``Consumer``."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from todo_api.core.command_log import Message
from todo_api.core.command_log.connect import Kind
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity

# Every wait for a server.
TIMEOUT_S: Final = 5.0


class Bounds(NamedTuple):
    """What a partition holds: the offsets from ``oldest`` up to, without it, ``end``."""

    oldest: int
    end: int


class LogReader(Protocol):
    """Reads and cuts one topic. Opens when first used. Used from one thread.

    Every method waits at most about 5 s for an answer and raises LogUnavailable without one.
    """

    @property
    def log(self) -> str:
        """The name of the log, as in ``Position.log`` and the table ``applied``."""

    def bounds(self) -> dict[int, Bounds]:
        """Return what each partition holds now; a topic that does not exist has no partitions (Kafka) or empty ones."""

    def read(self, partition: int, start: int, end: int) -> Iterator[Message]:
        """Yield the messages with offsets from ``start`` to below ``end`` that the log still holds, in order."""

    def cut(self, partition: int, before: int) -> None:
        """Take away, for good, every message with an offset below ``before``."""

    def close(self) -> None: ...


def make_reader(
    kind: Kind,
    *,
    brokers: Sequence[str],
    topic: str,
    partitions: int,
    redis_url: str,
    security: KafkaSecurity = IN_THE_CLEAR,
) -> LogReader:
    """Return a reader of ``topic``. On Kafka the broker says how many partitions there are."""
    if kind == "kafka":
        from todo_api.core.command_log.kafka_reader import KafkaReader

        return KafkaReader(brokers, topic, security)
    from todo_api.core.command_log.streams_reader import StreamsReader

    return StreamsReader(redis_url, topic, partitions)
