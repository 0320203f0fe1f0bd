"""Look into a log on Kafka; see ``reader.LogReader``."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from todo_api.core.command_log import Message
from todo_api.core.command_log.kafka_client import COMMON, network_client
from todo_api.core.command_log.kafka_consumer import message_of
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity
from todo_api.core.command_log.reader import TIMEOUT_S, Bounds
from todo_api.core.command_log.topics import connect_admin
from todo_api.core.errors import LogUnavailable

_TIMEOUT_MS: Final = int(TIMEOUT_S * 1000)
_POLL_MS: Final = 500


class KafkaReader:
    """A ``LogReader`` of one topic, in no consumer group: it disturbs no worker."""

    def __init__(self, brokers: Sequence[str], topic: str, security: KafkaSecurity = IN_THE_CLEAR) -> None:
        self._brokers = list(brokers)
        self._security = security
        self._topic = topic
        self._opened: Any = None

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def bounds(self) -> dict[int, Bounds]:
        # First: a consumer that meets no broker would take "no such topic" for an answer.
        admin = connect_admin(self._brokers, TIMEOUT_S, self._security)
        try:
            with self._translated():
                count = len(admin.describe_topics([self._topic])[0]["partitions"])
        finally:
            admin.close()
        partitions = [TopicPartition(self._topic, number) for number in range(count)]
        if not partitions:
            return {}
        with self._translated():
            oldest = self._consumer().beginning_offsets(partitions, timeout_ms=_TIMEOUT_MS)
            ends = self._consumer().end_offsets(partitions, timeout_ms=_TIMEOUT_MS)
        return {each.partition: Bounds(oldest[each], ends[each]) for each in partitions}

    def read(self, partition: int, start: int, end: int) -> Iterator[Message]:
        consumer, source = self._consumer(), TopicPartition(self._topic, partition)
        with self._translated():
            consumer.assign([source])
            consumer.seek(source, start)
        heard_at = time.monotonic()
        # The position, not the last message, says when it is done: offsets may have holes.
        while start < end:
            with self._translated():
                records = consumer.poll(_POLL_MS).get(source, [])
                position = consumer.position(source, timeout_ms=_TIMEOUT_MS)
            for record in records:
                if record.offset >= end:
                    return
                yield message_of(record)
            if position > start:
                start, heard_at = position, time.monotonic()
            elif time.monotonic() - heard_at > TIMEOUT_S:
                raise LogUnavailable(f"{self.log}: offset {start} of partition {partition} does not arrive")

    def cut(self, partition: int, before: int) -> None:
        admin = connect_admin(self._brokers, TIMEOUT_S, self._security)
        try:
            with self._translated():
                admin.delete_records({TopicPartition(self._topic, partition): before}, timeout_ms=_TIMEOUT_MS)
        finally:
            admin.close()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close(autocommit=False, timeout_ms=1_000)
            self._opened = None

    def _consumer(self) -> Any:
        if self._opened is None:
            self._opened = KafkaConsumer(
                **COMMON,
                bootstrap_servers=self._brokers,
                kafka_client=partial(network_client, self._security),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                request_timeout_ms=_TIMEOUT_MS,
            )
        return self._opened

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as ex:
            raise LogUnavailable(f"{self.log}: {ex}") from ex
