"""The command log on Kafka through librdkafka: the consumer."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from todo_api.core.command_log import Message
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity
from todo_api.core.command_log.left_behind import LeftBehind
from todo_api.core.command_log.librdkafka_client import Heard, common, reason
from todo_api.core.errors import LogUnavailable

logger = logging.getLogger(__name__)

# As in kafka_consumer.py, where the reasons are.
_SESSION_TIMEOUT_MS: Final = 10_000
_HEARTBEAT_MS: Final = 1_000
_MAX_POLL_INTERVAL_MS: Final = 60_000
# Until a broker that did not let us in is asked whether it does now.
_ASK_TIMEOUT_S: Final = 0.2


class LibrdkafkaConsumer:
    """A ``Consumer`` in a consumer group. Heartbeats run in librdkafka's threads, born with the first call.

    It reads ahead into a queue of its own, bounded by bytes. While brokers are away ``poll`` meets silence,
    unless they do not let us in.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topic: str,
        group: str,
        *,
        timeout_s: float = 2.0,
        security: KafkaSecurity = IN_THE_CLEAR,
    ) -> None:
        self._brokers = list(brokers)
        self._security = security
        self._heard = Heard()
        self._topic = topic
        self._group = group
        self._timeout_s = timeout_s
        self._opened: Consumer | None = None
        self._paused: set[int] = set()
        self._membership = LeftBehind(self._brokers, group, security)

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def poll(self, max_records: int, timeout_s: float) -> dict[int, list[Message]]:
        consumer = self._consumer()
        self._membership.look(consumer)
        deadline = time.monotonic() + timeout_s
        messages: dict[int, list[Message]] = {}
        try:
            # Wait for the first one; take with it what is here already.
            while not messages:
                first = consumer.poll(max(deadline - time.monotonic(), 0.0))
                if first is None:
                    break
                self._sort(first, messages)
            wanted = max_records - 1
            while messages and wanted > 0 and (more := consumer.consume(wanted, 0.0)):
                wanted -= len(more)
                for message in more:
                    self._sort(message, messages)
        except KafkaException as ex:
            if not messages:
                raise LogUnavailable(f"{self.log}: {reason(ex)}") from ex
        if not messages:
            self._ask_if_refused(consumer)
        return messages

    def _ask_if_refused(self, consumer: Consumer) -> None:
        """Raise LogUnavailable while brokers do not let us in. librdkafka does not say when they do again."""
        refusal = self._heard.refusal
        if refusal is None:
            return
        try:
            consumer.list_topics(self._topic, _ASK_TIMEOUT_S)
        except KafkaException as ex:
            raise LogUnavailable(f"{self.log}: {refusal}") from ex
        self._heard.refusal = None

    def _sort(self, raw: Any, messages: dict[int, list[Message]]) -> None:
        """Put a message to those of its partition; note anything else."""
        error = raw.error()
        if error is not None:
            # What it is to go on with (a broker away, a topic gone for now) heals by itself.
            logger.info("%s: %s", self.log, error)
        elif (partition := raw.partition()) in self._paused:
            # Paused before a rebalance that took it away and gave it back.
            self.pause(partition)
        else:
            messages.setdefault(partition, []).append(_message(partition, raw))

    def assignment(self) -> frozenset[int]:
        return frozenset(partition.partition for partition in self._consumer().assignment())

    def seek(self, partition: int, offset: int) -> None:
        self._paused.discard(partition)
        consumer, here = self._consumer(), TopicPartition(self._topic, partition, offset)
        if partition not in self.assignment():
            logger.debug("%s/%s is not ours any more, not sought", self.log, partition)
            return
        try:
            # Not its seek(): that one is refused while the partition is being looked up.
            consumer.incremental_unassign([here])
            consumer.incremental_assign([here])
            consumer.resume([here])
        except KafkaException as ex:
            logger.debug("%s/%s not sought: %s", self.log, partition, reason(ex))

    def pause(self, partition: int) -> None:
        self._paused.add(partition)
        try:
            self._consumer().pause([TopicPartition(self._topic, partition)])
        except KafkaException as ex:
            logger.debug("%s/%s not paused: %s", self.log, partition, reason(ex))

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        offsets = [
            TopicPartition(self._topic, partition, offset) for partition, offset in next_offsets.items()
        ]
        if not offsets:
            return
        try:
            self._consumer().commit(offsets=offsets, asynchronous=True)
        except KafkaException as ex:
            # Harmless: where to go on is in PostgreSQL. After a rebalance it is expected.
            logger.info("%s: offsets not committed: %s", self.log, reason(ex))

    def end_offsets(self) -> dict[int, int]:
        consumer = self._consumer()
        deadline = time.monotonic() + self._timeout_s
        try:
            topic = consumer.list_topics(self._topic, self._timeout_s).topics[self._topic]
            if topic.error is not None:
                raise KafkaException(topic.error)
            ends = [TopicPartition(self._topic, number, OFFSET_END) for number in topic.partitions]
            found = consumer.offsets_for_times(ends, max(deadline - time.monotonic(), 0.001))
        except KafkaException as ex:
            raise LogUnavailable(f"{self.log}: {self._heard.refusal or reason(ex)}") from ex
        for end in found:
            if end.error is not None:
                raise LogUnavailable(f"{self.log}/{end.partition}: {end.error}")
        return {end.partition: end.offset for end in found}

    def known_end_offsets(self) -> dict[int, int]:
        consumer = self._consumer()
        ends = {}
        for partition in consumer.assignment():
            # Of the last fetch; negative before the first.
            _, end = consumer.get_watermark_offsets(partition, cached=True)
            if end >= 0:
                ends[partition.partition] = end
        return ends

    def close(self, timeout_s: float) -> None:
        consumer, self._opened = self._opened, None
        if consumer is not None:
            # Leaving the group waits for a broker that may be frozen.
            leaving = threading.Thread(target=self._leave, args=(consumer,), name="log-leaving", daemon=True)
            leaving.start()
            leaving.join(timeout_s)

    def _leave(self, consumer: Consumer) -> None:
        try:
            consumer.close()
        except KafkaException:
            logger.warning("%s: consumer did not close in order", self.log, exc_info=True)

    def _consumer(self) -> Consumer:
        if self._opened is None:
            self._opened = Consumer(
                {
                    **common(self._brokers, self._security, self._heard),
                    "group.id": self._group,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    # Where it goes when the log does not hold the offset sought: the caller sees the jump.
                    "auto.offset.reset": "earliest",
                    "partition.assignment.strategy": "cooperative-sticky",
                    "session.timeout.ms": _SESSION_TIMEOUT_MS,
                    "heartbeat.interval.ms": _HEARTBEAT_MS,
                    "max.poll.interval.ms": _MAX_POLL_INTERVAL_MS,
                    "fetch.wait.max.ms": 500,
                    "max.partition.fetch.bytes": 1_048_576,
                    "fetch.max.bytes": 16_777_216,
                    "queued.max.messages.kbytes": 16_384,
                    "socket.timeout.ms": 10_000,
                }
            )
            # Assigning stays librdkafka's.
            self._opened.subscribe(
                [self._topic], on_assign=self._membership.joined, on_lost=self._membership.lost
            )
        return self._opened


def _message(partition: int, raw: Any) -> Message:
    headers = raw.headers()
    return Message(
        partition,
        raw.offset(),
        raw.key(),
        raw.value(),
        tuple((name, value or b"") for name, value in headers) if headers else (),
    )
