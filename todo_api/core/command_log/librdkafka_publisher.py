"""The command log on Kafka through librdkafka: the publisher."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from todo_api.core.command_log import Position, Record
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity
from todo_api.core.command_log.librdkafka_client import Heard, common, reason
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

logger = logging.getLogger(__name__)

# A producer that has failed for this long, without one success, is replaced by a fresh one.
_REPLACE_AFTER_S: Final = 10.0
# A thread whose acknowledgement another thread's poll has taken looks again after this time at the latest.
_POLL_MAX_S: Final = 0.05
# librdkafka expires a record by itself, a little after its time; then its own reason is seen.
_EXPIRY_LATE_S: Final = 0.25
_QUEUE_MAX_RECORDS: Final = 20_000
_QUEUE_MAX_KIB: Final = 65_536


class _Sent:
    """What became of one record; called by librdkafka, in whichever thread polls."""

    __slots__ = ("error", "offset", "partition")

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        self.partition = -1
        self.offset = -1

    def __call__(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.partition = message.partition()
            self.offset = message.offset()
        else:
            self.error = error

    @property
    def is_pending(self) -> bool:
        return self.offset < 0 and self.error is None


class LibrdkafkaPublisher:
    """A ``Publisher`` on one topic. Its threads are librdkafka's, born in ``start``.

    The producer is idempotent: a retry writes nothing twice, and five requests may be in flight without losing
    the order of a partition. That matters here, because librdkafka puts one partition into a request. Keys go to
    the same partitions as kafka-python's (murmur2), so that both clients may publish at once. The queue is bounded,
    and what is queued expires after ``timeout_s``. Until a producer has had its first acknowledgement (it needs
    brokers, and a producer id of theirs) what has expired is sent again, for ``connect_timeout_s``; a probe may take
    as long.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topic: str,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        record_max_bytes: int,
        security: KafkaSecurity = IN_THE_CLEAR,
    ) -> None:
        self._brokers = list(brokers)
        self._security = security
        self._heard = Heard()
        self._topic = topic
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._record_max_bytes = record_max_bytes
        self._lock = threading.Lock()
        # One thread polls at a time; it serves the others' acknowledgements with its own.
        self._polling = threading.Lock()
        self._producer: Producer | None = None
        self._failing_since: float | None = None
        # The producer that has had an acknowledgement.
        self._proven: Producer | None = None

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def start(self) -> None:
        with self._lock:
            if self._producer is None:
                self._producer = self._connect()

    def publish(self, record: Record) -> Position:
        result = self.publish_many([record])[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        give_up_at = time.monotonic() + self._connect_timeout_s
        while True:
            try:
                producer = self._required()
            except LogUnavailable as ex:
                return [ex for _ in records]
            results = self._publish_once(producer, records)
            is_over = producer is self._proven or time.monotonic() >= give_up_at
            # All again or none, or one would overtake another. If one was written after all it is there twice, and
            # the worker applies it once.
            if is_over or not records or not all(isinstance(result, LogUnavailable) for result in results):
                return results

    def _publish_once(self, producer: Producer, records: Sequence[Record]) -> list[Position | TodoError]:
        deadline = time.monotonic() + self._timeout_s
        sent: list[_Sent | TodoError] = []
        for record in records:
            try:
                sent.append(self._send(producer, record, deadline))
            except TodoError as ex:
                sent.append(ex)
        self._wait(producer, [each for each in sent if isinstance(each, _Sent)], deadline)
        results: list[Position | TodoError] = []
        for each in sent:
            try:
                results.append(self._position(producer, each) if isinstance(each, _Sent) else each)
            except TodoError as ex:
                results.append(ex)
        return results

    def probe(self) -> None:
        """Ask for fresh metadata: answered, with a leader for every partition of the topic."""
        producer = self._required()
        # Serves what librdkafka wants to say (log lines, a fatal error) while nothing is published.
        producer.poll(0)
        try:
            topic = producer.list_topics(self._topic, self._connect_timeout_s).topics[self._topic]
        except KafkaException as ex:
            # For why, if it was said while we waited.
            producer.poll(0)
            raise self._translated(producer, reason(ex)) from ex
        self._heard.refusal = None
        leaderless = [number for number, partition in topic.partitions.items() if partition.leader < 0]
        if topic.error is not None or not topic.partitions or leaderless:
            raise LogUnavailable(f"{self.log}: {topic.error or f'no leader for partitions {leaderless}'}")

    def close(self, timeout_s: float) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer, timeout_s)

    def _connect(self) -> Producer:
        timeout_ms = int(self._timeout_s * 1000)
        return Producer(
            {
                **common(self._brokers, self._security, self._heard),
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                # The first record goes at once; those that come while it is on its way share the next request.
                "linger.ms": 0,
                "message.timeout.ms": timeout_ms,
                "request.timeout.ms": timeout_ms,
                "retry.backoff.ms": 50,
                "message.max.bytes": self._record_max_bytes,
                "queue.buffering.max.messages": _QUEUE_MAX_RECORDS,
                "queue.buffering.max.kbytes": _QUEUE_MAX_KIB,
            }
        )

    def _required(self) -> Producer:
        producer = self._producer
        if producer is None:
            raise LogUnavailable(f"{self.log}: not started, or closed")
        return producer

    def _send(self, producer: Producer, record: Record, deadline: float) -> _Sent:
        sent = _Sent()
        while True:
            try:
                producer.produce(
                    self._topic, record.value, record.key, on_delivery=sent, headers=list(record.headers)
                )
                return sent
            except BufferError as ex:
                # The queue is full: others' records leave it while we poll.
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise LogUnavailable(f"{self.log}: {ex}") from ex
                producer.poll(min(left_s, _POLL_MAX_S))
            except KafkaException as ex:
                raise self._translated(producer, reason(ex)) from ex

    def _wait(self, producer: Producer, sent: Sequence[_Sent], deadline: float) -> None:
        """Poll until each has its answer, or its time is over."""
        for each in sent:
            while each.is_pending:
                left_s = deadline + _EXPIRY_LATE_S - time.monotonic()
                if left_s <= 0:
                    return
                if self._polling.acquire(timeout=left_s):
                    try:
                        if each.is_pending:
                            producer.poll(min(left_s, _POLL_MAX_S))
                    finally:
                        self._polling.release()

    def _position(self, producer: Producer, sent: _Sent) -> Position:
        if sent.offset >= 0:
            self._failing_since = None
            self._heard.refusal = None
            self._proven = producer
            return Position(self.log, sent.partition, sent.offset)
        raise self._translated(producer, sent.error)

    def _translated(self, producer: Producer, error: KafkaError | None) -> TodoError:
        """Return ``error`` as one of ours; None is a record without an answer."""
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return RecordTooLarge(error.str())
        self._failed(producer, error)
        return LogUnavailable(f"{self.log}: {self._heard.refusal or error or 'not acknowledged in time'}")

    def _failed(self, producer: Producer, error: KafkaError | None) -> None:
        """Note a failure of ``producer``; replace it when it has given up, or has only failed for a while."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        # An idempotent producer that cannot tell any more what is written refuses everything from then on.
        has_given_up = error is not None and (error.fatal() or error.code() == KafkaError._FATAL)
        if has_given_up or now - self._failing_since >= _REPLACE_AFTER_S:
            logger.warning("%s: the producer is replaced: %s", self.log, error)
            self._replace(producer)

    def _replace(self, producer: Producer) -> None:
        with self._lock:
            if self._producer is not producer:
                return
            self._failing_since = None
            try:
                self._producer = self._connect()
            except KafkaException as ex:
                # The certificates are read anew, and may be in the middle of being changed.
                logger.warning("%s: the producer stays: %s", self.log, reason(ex))
                return
        # Ending the old one's threads may take a moment, and we are late already.
        threading.Thread(target=_close, args=(producer, 0.0), name="log-replaced", daemon=True).start()


def _close(producer: Producer, timeout_s: float) -> None:
    """Wait for what is in flight, fail the rest, and tell whoever waits for it."""
    producer.flush(timeout_s)
    producer.purge(blocking=False)
    producer.poll(0)
