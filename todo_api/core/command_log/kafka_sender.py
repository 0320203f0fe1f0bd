"""Sends records to Kafka: one request at a time to each broker, with all that waits for it by then.

On kafka-python's loop, with its connections, metadata and encoding, in place of its producer (docs/adr/0022): that one
has a future, two locks and a callback for each record and a batch for each partition to keep them in, which is most of
what a write costs; and its idempotent mode fails for ever after one expired batch.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from kafka.errors import (
    InvalidMetadataError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RequestTimedOutError,
    RetriableError,
    UnknownBrokerIdError,
    for_code,
)
from kafka.structs import TopicPartition

from todo_api.core.command_log import Position, Record, Results
from todo_api.core.command_log.kafka_batch import (
    Append,
    Batch,
    Item,
    produce_request,
    size_of,
    take,
)
from todo_api.core.command_log.kafka_client import connection_manager
from todo_api.core.command_log.kafka_partition import partition_of
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity, Refusal
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

# Until a partition is tried again whose leader was away, or is another one.
_RETRY_S: Final = 0.05
# How late a deadline may be noticed.
_SWEEP_S: Final = 0.02
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class Sender:
    """Appends to ``topic``. Everything but ``submit`` and ``close`` runs in the thread of the loop, which it starts.

    A partition has one batch on its way at most, so that a batch sent again cannot come after a later one.
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
        self._log = f"kafka:{topic}"
        self._topic = topic
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._record_max_bytes = record_max_bytes
        self._net, self._manager = connection_manager(brokers, security, timeout_s=timeout_s)
        self.cluster = self._manager.cluster
        self._inbox: deque[Append] = deque()
        self._turn_is_due = False
        self._open: set[Append] = set()
        self._sweep_is_due = False
        self._unplaced: deque[Append] = deque()
        self._waiting: dict[int, deque[Item]] = {}
        # Partitions with a batch on its way, or that wait for another try; and leaders with a request.
        self._busy: set[int] = set()
        self._asked: set[int] = set()
        self._is_closing = False
        self._is_idle = threading.Event()
        self.cluster.add_listener(lambda _: self._turn())
        self.cluster.add_topic(topic)
        self._net.start()

    @property
    def refusal(self) -> Refusal | None:
        """Why no broker lets us in, when that is so."""
        refusal: Refusal | None = self._manager.refusal
        return refusal

    def submit(self, records: Sequence[Record], done: Callable[[Results], object]) -> None:
        """Append without waiting. ``done`` gets one result for each record, in the thread of the loop.

        Raises what the loop died of.
        """
        wait_s = self._timeout_s + (0.0 if self._partitions() else self._connect_timeout_s)
        self._is_idle.clear()
        self._inbox.append(Append(records, time.monotonic() + wait_s, done))
        # PERF: one wake-up for whatever comes until the loop has its turn.
        if not self._turn_is_due:
            self._turn_is_due = True
            self._net.call_soon_threadsafe(self._turn)

    def close(self, timeout_s: float) -> None:
        """Wait for what is on its way, refuse what is left, end the thread. Not from the thread of the loop."""
        deadline = time.monotonic() + timeout_s
        with suppress(Exception):
            self._net.call_soon_threadsafe(self._turn)
            self._is_idle.wait(timeout_s)
            self._net.call_soon_threadsafe(self._end)
        self._net.stop(max(deadline - time.monotonic(), 1.0) * 1000)
        self._net.close()

    def _end(self) -> None:
        self._is_closing = True
        for append in [*self._open, *self._inbox]:
            self._fail(append, "closed")
        self._manager.close()

    def _partitions(self) -> int:
        """Return how many partitions the topic has; 0 while that is not known."""
        return len(self.cluster.partitions_for_topic(self._topic) or ())

    def _turn(self) -> None:
        """Take in what came, and send what can be sent."""
        self._turn_is_due = False
        while self._inbox:
            append = self._inbox.popleft()
            self._open.add(append)
            self._unplaced.append(append)
        partitions = self._partitions()
        while partitions and self._unplaced:
            append = self._unplaced.popleft()
            for number, record in enumerate(append.records):
                item = Item(append, number, record)
                if size_of(record) > self._record_max_bytes:
                    self._result(item, RecordTooLarge(f"more than {self._record_max_bytes} bytes"))
                else:
                    partition = partition_of(record.key, partitions)
                    self._waiting.setdefault(partition, deque()).append(item)
        if not partitions and self._unplaced:
            self.cluster.request_update()
        self._send()
        if self._open and not self._sweep_is_due:
            self._sweep_is_due = True
            self._net.call_later(_SWEEP_S, self._sweep)
        if not self._open and not self._inbox:
            self._is_idle.set()

    def _sweep(self) -> None:
        """Refuse what has waited too long."""
        now = time.monotonic()
        for append in [append for append in self._open if append.deadline <= now]:
            self._fail(append, str(self.refusal or append.reason))
        while self._unplaced and not self._unplaced[0].left:
            self._unplaced.popleft()
        for items in self._waiting.values():
            while items and not items[0].append.left:
                items.popleft()
        self._sweep_is_due = False
        self._turn()

    def _send(self) -> None:
        """Send to each leader that has no request what waits for it."""
        if self._is_closing:
            return
        requests: dict[int, dict[int, Batch]] = {}
        for partition, items in self._waiting.items():
            if not items or partition in self._busy:
                continue
            leader = self._leader(partition)
            if leader is None:
                self.cluster.request_update()
            elif leader not in self._asked and (batch := take(items)) is not None:
                requests.setdefault(leader, {})[partition] = batch
        for leader, batches in requests.items():
            self._asked.add(leader)
            self._busy.update(batches)
            self._net.call_soon(self._request(leader, batches))

    def _leader(self, partition: int) -> int | None:
        leader = self.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        return None if leader is None or leader == -1 else int(leader)

    async def _request(self, leader: int, batches: dict[int, Batch]) -> None:
        deadline = max(item.append.deadline for batch in batches.values() for item in batch.items)
        request = produce_request(self._topic, batches, int(self._timeout_s * 1000))
        wait_ms = max(int((deadline - time.monotonic()) * 1000), 1)
        try:
            response = await self._manager.send(request, leader, request_timeout_ms=wait_ms)
        except Exception as ex:
            self._unanswered(leader, batches, ex)
        else:
            answered = [part for topic in response.responses for part in topic.partition_responses]
            for part in answered:
                self._settle(part.index, batches.pop(part.index).items, part.error_code, part.base_offset)
            # A broker that leaves one out has not taken it.
            self._try_again(batches, KafkaError("not in the answer"))
        self._asked.discard(leader)
        self._turn()

    def _settle(self, partition: int, items: list[Item], error_code: int, base_offset: int) -> None:
        """Note what the broker says about one batch."""
        error = for_code(error_code)
        if error_code == 0:
            self._busy.discard(partition)
            for number, item in enumerate(items):
                self._result(item, Position(self._log, partition, base_offset + number))
        elif issubclass(error, _TOO_LARGE) and len(items) > 1:
            self._busy.discard(partition)
            self._waiting[partition].extendleft(item._replace(is_alone=True) for item in reversed(items))
        elif issubclass(error, RetriableError):
            self._try_again({partition: Batch(items, bytearray())}, error())
        else:
            self._busy.discard(partition)
            reason = RecordTooLarge if issubclass(error, _TOO_LARGE) else LogUnavailable
            for item in items:
                self._result(item, reason(f"{self._log}: {error()}"))

    def _unanswered(self, leader: int, batches: dict[int, Batch], ex: Exception) -> None:
        """No answer: whether the records are in the log is not known."""
        self._try_again(batches, ex)
        if isinstance(ex, RequestTimedOutError):
            # The broker has had its time. What waits behind was not sent, and need not wait as long again.
            for partition, items in self._waiting.items():
                if self._leader(partition) == leader:
                    for item in items:
                        self._fail(item.append, str(ex))

    def _try_again(self, batches: dict[int, Batch], ex: Exception) -> None:
        """Send them once more in a moment, before what came later."""
        if not batches:
            return
        for partition, batch in batches.items():
            for item in batch.items:
                item.append.reason = str(ex)
            self._waiting[partition].extendleft(reversed(batch.items))
        if isinstance(ex, InvalidMetadataError | UnknownBrokerIdError):
            self.cluster.request_update()

        def release() -> None:
            self._busy.difference_update(batches)
            self._turn()

        if not self._is_closing:
            self._net.call_later(_RETRY_S, release)

    def _result(self, item: Item, result: Position | TodoError) -> None:
        append = item.append
        if append.left and append.results[item.number] is None:
            append.results[item.number] = result
            append.left -= 1
            if not append.left:
                self._over(append)

    def _fail(self, append: Append, reason: str) -> None:
        if append.left:
            append.left = 0
            failure = LogUnavailable(f"{self._log}: {reason}")
            append.results = [failure if result is None else result for result in append.results]
            self._over(append)

    def _over(self, append: Append) -> None:
        self._open.discard(append)
        append.done(append.results)  # type: ignore[arg-type]  # Not one is None.
