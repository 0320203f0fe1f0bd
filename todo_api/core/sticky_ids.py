"""Ids of new todos that for a moment all belong to one partition of the command log.

What is appended at one time then travels in one batch, as with Kafka's sticky partitioner (KIP-480). That one is for
records without a key; ours need a key, for the order per todo, but the key of a new todo is ours to choose.
"""

import os
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from todo_api.core.command_log.kafka_partition import tail_for
from todo_api.core.ids import uuid7

# How long a process keeps to a partition: some batches long, so that few are cut in two, and none gets far ahead.
KEEP_NS: Final = 20_000_000
# With more partitions than this finds, some ids are in any of them.
_TRIES_MAX: Final = 64
# The last four digits of an id, all random.
_TAIL: Final = 0xFFFF


class StickyIds:
    """Makes ids whose text is the key of a record in a log of so many ``partitions``. Used from any thread.

    A number of partitions that is not the log's costs the batches, and nothing else.
    """

    def __init__(self, partitions: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._partitions = partitions
        self._clock_ns = clock_ns
        # So that not all processes are at the same partition.
        self._offset = int.from_bytes(os.urandom(2), "big")

    def new(self) -> UUID:
        """Return a new UUIDv7, as ``uuid7`` does. Of its 62 random bits 4 are taken where there are 16 partitions."""
        any_id = uuid7()
        partition = (self._clock_ns() // KEEP_NS + self._offset) % self._partitions
        front = str(any_id)[:-4].encode()
        tail = tail_for(front, any_id.int & _TAIL, partition, self._partitions, _TRIES_MAX)
        return UUID(int=any_id.int & ~_TAIL | tail)
