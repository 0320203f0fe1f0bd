"""The command log on Kafka: the publisher."""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from todo_api.core.command_log import Position, Record
from todo_api.core.command_log.kafka_client import COMMON, close_producer, producer_network_client
from todo_api.core.command_log.kafka_partition import partition_of
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

# A producer that has failed for this long, without one success, is replaced by a fresh one.
_REPLACE_AFTER_S: Final = 10.0
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class _Connected(NamedTuple):
    producer: Any
    client: Any


class KafkaPublisher:
    """A ``Publisher`` on one topic. Its thread is kafka-python's sender, born in ``start``.

    Idempotence is off and one request is in flight at a time: kafka-python's idempotent producer fails for
    ever after one expired batch. A retry may therefore write a record twice (the worker applies it once); the
    order per partition holds. Nothing is queued while the topic's leaders are unknown, and what is queued
    expires after ``timeout_s``, so memory stays bounded while brokers are away. Until the topic is known a call waits
    for that first, for ``connect_timeout_s``; so does a probe.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topic: str,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        record_max_bytes: int,
    ) -> None:
        self._brokers = list(brokers)
        self._topic = topic
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._record_max_bytes = record_max_bytes
        # How long the library may wait for metadata in one call; it cannot be told a deadline.
        self._metadata_wait_s = connect_timeout_s / 4
        self._lock = threading.Lock()
        self._connected: _Connected | None = None
        self._failing_since: float | None = None

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def start(self) -> None:
        with self._lock:
            if self._connected is None:
                self._connected = self._connect()

    def publish(self, record: Record) -> Position:
        connected = self._ready()
        deadline = time.monotonic() + self._timeout_s
        return self._acknowledged(self._send(connected, record, self._partitions(connected)), deadline)

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        try:
            connected = self._ready()
        except LogUnavailable as ex:
            return [ex for _ in records]
        deadline = time.monotonic() + self._timeout_s
        sent: list[Any] = []
        partitions = self._partitions(connected)
        with connected.client.together.appended():
            for record in records:
                try:
                    sent.append(self._send(connected, record, partitions))
                except TodoError as ex:
                    sent.append(ex)
        results: list[Position | TodoError] = []
        for future in sent:
            try:
                results.append(
                    future if isinstance(future, TodoError) else self._acknowledged(future, deadline)
                )
            except TodoError as ex:
                results.append(ex)
        return results

    def probe(self) -> None:
        """Ask for fresh metadata: answered, with a leader for every partition of the topic."""
        connected = self._required()
        answered = threading.Event()
        refresh = connected.client.cluster.request_update()
        refresh.add_callback(lambda _: answered.set()).add_errback(lambda _: answered.set())
        connected.client.wakeup()
        if not answered.wait(self._connect_timeout_s) or refresh.failed():
            self._failed(connected.producer)
            raise LogUnavailable(f"{self.log}: no metadata") from refresh.exception
        every = connected.client.cluster.partitions_for_topic(self._topic)
        led = connected.client.cluster.available_partitions_for_topic(self._topic)
        if not every or led != every:
            raise LogUnavailable(
                f"{self.log}: {len(led or ())} of {len(every or ())} partitions have a leader"
            )

    def close(self, timeout_s: float) -> None:
        with self._lock:
            connected, self._connected = self._connected, None
        if connected is not None:
            close_producer(connected.producer, timeout_s)

    def _connect(self) -> _Connected:
        clients: list[Any] = []

        def client(**configs: Any) -> Any:
            clients.append(producer_network_client(**configs))
            return clients[0]

        timeout_ms = int(self._timeout_s * 1000)
        producer = KafkaProducer(
            **COMMON,
            bootstrap_servers=self._brokers,
            kafka_client=client,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,
            linger_ms=0,
            batch_size=65_536,
            max_request_size=self._record_max_bytes,
            allow_auto_create_topics=False,
            # A request is never given up before its batch is: a retry on top would only add duplicates.
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=timeout_ms,
            max_block_ms=int(self._metadata_wait_s * 1000),
        )
        # Connects in the sender's thread.
        clients[0].cluster.add_topic(self._topic)
        return _Connected(producer, clients[0])

    def _required(self) -> _Connected:
        connected = self._connected
        if connected is None:
            raise LogUnavailable(f"{self.log}: not started, or closed")
        return connected

    def _ready(self) -> _Connected:
        """Return the producer once it knows the topic, so that nothing is sent that only waits for that."""
        connected = self._required()
        deadline = time.monotonic() + self._connect_timeout_s
        while connected.client.cluster.partitions_for_topic(self._topic) is None:
            try:
                connected.producer.partitions_for(self._topic)
            except KafkaError as ex:
                if (
                    not isinstance(ex, KafkaTimeoutError)
                    or time.monotonic() + self._metadata_wait_s > deadline
                ):
                    self._failed(connected.producer)
                    raise LogUnavailable(f"{self.log}: {ex}") from ex
        return connected

    def _partitions(self, connected: _Connected) -> int:
        """Return how many partitions the topic has; 0 when it went out of the metadata a moment ago."""
        return len(connected.client.cluster.partitions_for_topic(self._topic) or ())

    def _send(self, connected: _Connected, record: Record, partitions: int) -> Any:
        producer = connected.producer
        try:
            return producer.send(
                self._topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=partition_of(record.key, partitions) if partitions else None,
            )
        except _TOO_LARGE as ex:
            raise RecordTooLarge(str(ex)) from ex
        except (KafkaError, ValueError) as ex:
            # ValueError: the topic went out of the metadata between two look-ups of the library.
            self._failed(producer)
            raise LogUnavailable(f"{self.log}: {ex}") from ex

    def _acknowledged(self, future: Any, deadline: float) -> Position:
        # The batch expires by itself at about the deadline; a little longer, so that its own reason is seen.
        wait_s = max(deadline - time.monotonic(), 0.0) + 0.1
        try:
            metadata = future.get(wait_s)
        except _TOO_LARGE as ex:
            raise RecordTooLarge(str(ex)) from ex
        except KafkaError as ex:
            connected = self._connected
            if connected is not None:
                self._failed(connected.producer)
            raise LogUnavailable(f"{self.log}: {ex}") from ex
        self._failing_since = None
        return Position(self.log, metadata.partition, metadata.offset)

    def _failed(self, producer: Any) -> None:
        """Note a failure of ``producer``; replace it when it has only failed for a while.

        Reconnecting is kafka-python's business and works, but a state it cannot leave by itself (it has had
        such) must not last until somebody restarts the process.
        """
        now = time.monotonic()
        with self._lock:
            if self._connected is None or self._connected.producer is not producer:
                return
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < _REPLACE_AFTER_S:
                return
            self._failing_since = now
            self._connected = self._connect()
        # Ending the old one's thread may take a moment, and we are late already.
        threading.Thread(
            target=close_producer, args=(producer, 0.0), name="log-replaced", daemon=True
        ).start()
