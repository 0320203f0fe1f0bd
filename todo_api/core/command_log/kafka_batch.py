"""The records on their way to Kafka, and the requests they go in; encoded by kafka-python."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder

from todo_api.core.command_log import Position, Record, Results
from todo_api.core.errors import TodoError

# What one partition gets in one request, unless one record alone is more. The broker takes 16 times as much.
_BATCH_MAX_BYTES: Final = 65_536
# So small is a record that fits everywhere, whatever is added to it.
_SMALL_BYTES: Final = 8_192
_ALL_IN_SYNC: Final = -1
# The last version in which a topic has a name.
_PRODUCE_VERSION_MAX: Final = 9
_TOPIC: Final = ProduceRequest.TopicProduceData
_PARTITION: Final = _TOPIC.PartitionProduceData


class Append:
    """Some records, and what became of them so far."""

    __slots__ = ("deadline", "done", "left", "reason", "records", "results")

    def __init__(self, records: Sequence[Record], deadline: float, done: Callable[[Results], object]) -> None:
        self.records = records
        self.deadline = deadline
        self.done = done
        self.left = len(records)
        """How many have no result yet; 0 when ``done`` was called."""
        self.results: list[Position | TodoError | None] = [None] * len(records)
        self.reason = "no acknowledgement in time"


class Item(NamedTuple):
    """One record on its way."""

    append: Append
    number: int
    record: Record
    is_alone: bool = False
    """Whether it gets a batch of its own, because the broker takes none as large as it was in."""


class Batch(NamedTuple):
    items: list[Item]
    data: bytearray


def size_of(record: Record) -> int:
    """Return how large the batch is in which this record is alone, or more while that is far below any limit."""
    # PERF: what the library says takes 4 us; nearly every record is so small that it need not be asked.
    size = len(record.key) + len(record.value)
    for name, value in record.headers:
        size += len(name) + len(value)
    if size < _SMALL_BYTES:
        return _SMALL_BYTES
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, record.headers))


def take(items: deque[Item]) -> Batch | None:
    """Take from the front what fits into one batch, without those nobody waits for; None if that leaves none."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=_BATCH_MAX_BYTES,
    )
    now_ms = int(time.time() * 1000)
    taken: list[Item] = []
    while items:
        item = items[0]
        if item.append.left:
            record = item.record
            if taken and (item.is_alone or taken[0].is_alone):
                break
            if builder.append(len(taken), now_ms, record.key, record.value, record.headers) is None:
                break
            taken.append(item)
        items.popleft()
    return Batch(taken, builder.build()) if taken else None


def produce_request(topic: str, batches: Mapping[int, Batch], timeout_ms: int) -> Any:
    """Return the request with these batches by partition; the broker waits ``timeout_ms`` for all in-sync replicas."""
    parts = [_PARTITION(index=partition, records=batch.data) for partition, batch in batches.items()]
    return ProduceRequest(
        transactional_id=None,
        acks=_ALL_IN_SYNC,
        timeout_ms=timeout_ms,
        topic_data=[_TOPIC(name=topic, partition_data=parts)],
        max_version=_PRODUCE_VERSION_MAX,
    )
