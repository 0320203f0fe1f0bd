"""The command log on Kafka: the consumer."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from todo_api.core.command_log import Message
from todo_api.core.command_log.kafka_client import COMMON, network_client
from todo_api.core.command_log.kafka_fetch_ahead import fetch_ahead_from_a_backlog_only, has_more
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity
from todo_api.core.errors import LogUnavailable

logger = logging.getLogger(__name__)

# A killed worker's partitions move to another one after this.
_SESSION_TIMEOUT_MS: Final = 10_000
# A member hears of a rebalance with its next heartbeat, and a rebalance takes several rounds.
_HEARTBEAT_MS: Final = 1_000
# A worker that does not poll for this long (its database is away) leaves the group until it polls again, so
# that others are not held up in a rebalance by it.
_MAX_POLL_INTERVAL_MS: Final = 60_000
_COMMIT_TIMEOUT_MS: Final = 1_000
# Joining takes a second or two; after a member died, the session timeout on top.
_JOIN_MAX_S: Final = 30.0


class KafkaLogConsumer:
    """A ``Consumer`` in a consumer group. Heartbeats run in kafka-python's thread, born with the first call.

    No rebalance listener: the caller compares ``assignment`` between polls. While brokers are away ``poll``
    mostly meets silence and sometimes raises; it cannot tell reliably. That they do not let us in it knows.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topic: str,
        group: str,
        *,
        timeout_s: float = 2.0,
        join_max_s: float = _JOIN_MAX_S,
        security: KafkaSecurity = IN_THE_CLEAR,
    ) -> None:
        self._brokers = list(brokers)
        self._security = security
        self._topic = topic
        self._group = group
        self._timeout_ms = int(timeout_s * 1000)
        self._opened: Any = None
        self._client: Any = None
        self._paused: set[int] = set()
        self._join_max_s = join_max_s
        self._joining_since: float | None = None

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def poll(self, max_records: int, timeout_s: float) -> dict[int, list[Message]]:
        consumer = self._consumer()
        deadline = time.monotonic() + timeout_s
        messages: dict[int, list[Message]] = {}
        wanted = max_records
        # One poll of the library ends with the responses at hand, often a few hundred records. Going on without
        # waiting fills the batch from a backlog.
        while wanted > 0:
            left_s = 0.0 if messages else max(deadline - time.monotonic(), 0.0)
            try:
                batches = self._poll_once(consumer, wanted, left_s)
            except KafkaError as ex:
                if messages:
                    break
                raise self._unavailable(ex) from ex
            if not batches:
                if messages or time.monotonic() >= deadline:
                    break
                continue
            for partition, records in batches.items():
                wanted -= len(records)
                if partition.partition in self._paused:
                    # Paused before a rebalance that took it away and gave it back.
                    consumer.pause(partition)
                    continue
                messages.setdefault(partition.partition, []).extend(map(message_of, records))
            if not has_more(consumer, batches):
                break
        if not messages:
            if self._client._manager.refusal is not None:
                raise self._unavailable("refused")
            self._start_over_if_stuck(consumer)
        return messages

    def _start_over_if_stuck(self, consumer: Any) -> None:
        """Make a new consumer when this one has been joining its group for far too long.

        Seen once on a broker that had been killed and frozen before: a connection lost in the middle of a join
        left kafka-python 3.0.12 waiting for it for ever, without heartbeats, and polls came back empty.
        """
        now = time.monotonic()
        if not consumer._coordinator.need_rejoin():
            self._joining_since = None
        elif self._joining_since is None:
            self._joining_since = now
        elif now - self._joining_since > self._join_max_s:
            logger.warning("%s: not in the group after %.0f s, starting over", self.log, self._join_max_s)
            self._joining_since = None
            self.close(1.0)

    def _poll_once(self, consumer: Any, max_records: int, timeout_s: float) -> dict[Any, list[Any]]:
        lost: Collection[TopicPartition]
        try:
            batches: dict[Any, list[Any]] = consumer.poll(int(timeout_s * 1000), max_records)
            return batches
        except NoOffsetForPartitionError as ex:
            # Assigned for the first time; the caller will seek.
            lost = ex.args[0]
        except OffsetOutOfRangeError as ex:
            lost = ex.args[0]
            logger.warning(
                "%s does not hold the offset sought, going to its oldest record: %s", self.log, lost
            )
        except LogTruncationError as ex:
            lost = ex.divergent_offsets
            logger.warning("%s was cut short or made anew, going to its oldest record: %s", self.log, lost)
        consumer.seek_to_beginning(*lost)
        return {}

    def assignment(self) -> frozenset[int]:
        return frozenset(partition.partition for partition in self._consumer().assignment())

    def seek(self, partition: int, offset: int) -> None:
        self._paused.discard(partition)
        try:
            self._consumer().seek(TopicPartition(self._topic, partition), offset)
            self._consumer().resume(TopicPartition(self._topic, partition))
        except (ValueError, KeyError):
            logger.debug("%s/%s is not ours any more, not sought", self.log, partition)

    def pause(self, partition: int) -> None:
        self._paused.add(partition)
        try:
            self._consumer().pause(TopicPartition(self._topic, partition))
        except KeyError:
            logger.debug("%s/%s is not ours any more, not paused", self.log, partition)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in next_offsets.items()
        }
        try:
            self._consumer().commit(offsets, timeout_ms=_COMMIT_TIMEOUT_MS)
        except KafkaError as ex:
            # Harmless: where to go on is in PostgreSQL. After a rebalance it is expected.
            logger.info("%s: offsets not committed: %s", self.log, ex)

    def end_offsets(self) -> dict[int, int]:
        consumer = self._consumer()
        deadline = time.monotonic() + self._timeout_ms / 1000
        while (partitions := self._client.cluster.partitions_for_topic(self._topic)) is None:
            if time.monotonic() >= deadline:
                raise self._unavailable("no metadata")
            self._client.cluster.request_update()
            time.sleep(0.05)
        try:
            offsets = consumer.end_offsets(
                [TopicPartition(self._topic, partition) for partition in partitions],
                timeout_ms=self._timeout_ms,
            )
        except KafkaError as ex:
            raise self._unavailable(ex) from ex
        return {partition.partition: offset for partition, offset in offsets.items()}

    def known_end_offsets(self) -> dict[int, int]:
        consumer = self._consumer()
        ends = {partition.partition: consumer.highwater(partition) for partition in consumer.assignment()}
        return {partition: end for partition, end in ends.items() if end is not None}

    def close(self, timeout_s: float) -> None:
        consumer, self._opened = self._opened, None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=int(timeout_s * 1000))
            except Exception:
                logger.warning("%s: consumer did not close in order", self.log, exc_info=True)

    def _consumer(self) -> Any:
        if self._opened is None:
            self._opened = KafkaConsumer(
                **COMMON,
                bootstrap_servers=self._brokers,
                kafka_client=self._network_client,
                group_id=self._group,
                enable_auto_commit=False,
                # So that we hear of it. With "earliest", a log that was made anew is taken for one that was cut
                # short: the library goes on behind its first records and never shows them.
                auto_offset_reset="none",
                partition_assignment_strategy=[CooperativeStickyAssignor()],
                session_timeout_ms=_SESSION_TIMEOUT_MS,
                heartbeat_interval_ms=_HEARTBEAT_MS,
                max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
                request_timeout_ms=10_000,
                fetch_max_wait_ms=500,
                max_partition_fetch_bytes=1_048_576,
                fetch_max_bytes=16_777_216,
                # A topic that is made after us is seen within this time.
                metadata_max_age_ms=10_000,
            )
            fetch_ahead_from_a_backlog_only(self._opened)
            self._opened.subscribe([self._topic])
        return self._opened

    def _network_client(self, **configs: Any) -> Any:
        self._client = network_client(self._security, **configs)
        return self._client

    def _unavailable(self, why: object) -> LogUnavailable:
        return LogUnavailable(f"{self.log}: {self._client._manager.refusal or why}")


def message_of(record: Any) -> Message:
    return Message(
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple([(name, value or b"") for name, value in record.headers]) if record.headers else (),
    )
