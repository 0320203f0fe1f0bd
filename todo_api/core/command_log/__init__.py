"""The command log: where commands wait. One interface, an adapter a file, the same contract tests for each.

A log has a fixed number of partitions. In each, records have dense offsets 0, 1, 2, ... and are read in
that order. Records with the same key are in the same partition.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from todo_api.core.errors import TodoError

Headers = tuple[tuple[str, bytes], ...]


class Position(NamedTuple):
    """Where a record is. ``log`` names the adapter and the topic (``kafka:todo-commands``)."""

    log: str
    partition: int
    offset: int


# PERF: as structs these two are made in 0.2 us, as frozen dataclasses in 2; a batch has thousands.
class Record(msgspec.Struct, frozen=True, gc=False):
    """What a publisher sends. ``key`` decides the partition."""

    key: bytes
    value: bytes
    headers: Headers = ()


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a consumer reads: the bytes as they are in the log, decodable or not."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


# One for each record, in their order.
Results = list[Position | TodoError]


class Publisher(Protocol):
    """Appends records. Made after the fork, used from any thread of one process.

    ``start`` begins connecting in the background and returns at once. The waits below are bounded by
    the adapter's ``timeout_s``, and by the time that it gives connecting, whatever state the server is in.
    """

    @property
    def log(self) -> str:
        """The name of the log, as in ``Position.log`` and the table ``applied``."""

    def start(self) -> None: ...

    def publish(self, record: Record) -> Position:
        """Append and wait for the acknowledgement (Kafka: of all in-sync replicas; Valkey: fsync).

        Raises LogUnavailable when no acknowledgement came in time; the record may be in the log all the
        same, now or later, once or twice. Raises RecordTooLarge without sending.
        """

    def publish_many(self, records: Sequence[Record]) -> Results:
        """Append all, wait once. One result per record, in their order: its position, or the exception that
        ``publish`` would have raised for it. Records with the same key keep their order."""

    def probe(self) -> None:
        """Ask the server whether it would take a record. Raises LogUnavailable when it does not say so in time."""

    def close(self, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` for what is in flight, then let go of everything. Never raises."""


@runtime_checkable
class Submitter(Protocol):
    """Appends without waiting. From any thread of one process."""

    def submit(self, records: Sequence[Record], done: Callable[[Results], object]) -> None:
        """Append all, at least one. ``done`` gets what ``publish_many`` would return, once, in whichever thread, and
        perhaps before this returns. The same bounds hold; never raises."""

    def close(self, timeout_s: float) -> None:
        """As ``Publisher.close``."""


class Consumer(Protocol):
    """Reads the partitions that are this process's to read. Used from one thread.

    Where reading starts and goes on is the caller's business (the table ``applied``), not the log's: the
    caller compares the offset it gets with the one it expects and seeks.
    """

    @property
    def log(self) -> str: ...

    def poll(self, max_records: int, timeout_s: float) -> dict[int, list[Message]]:
        """Return up to ``max_records`` messages by partition, in offset order; wait at most ``timeout_s`` for one.

        Empty when there is nothing new; an adapter that knows its server to be away raises LogUnavailable
        instead (Kafka's cannot tell). Polling goes on working by itself when the server is back.
        A partition that was just assigned starts anywhere.
        """

    def assignment(self) -> frozenset[int]:
        """Return the partitions this process reads now, without asking the server."""

    def seek(self, partition: int, offset: int) -> None:
        """Make the next poll of this partition begin at ``offset``.

        When the log does not hold that offset (cut off at the front, or not reached yet because the log was
        made anew), the next messages come from the oldest one that it holds: the caller sees the jump.
        """

    def pause(self, partition: int) -> None:
        """Return nothing of this partition until ``seek``."""

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Tell the log how far the caller is: a hint for lag monitors and for trimming. Bounded; never raises."""

    def end_offsets(self) -> dict[int, int]:
        """Return, for each partition of the log, the offset its next record will get. Raises LogUnavailable."""

    def known_end_offsets(self) -> dict[int, int]:
        """Return what ``end_offsets`` would, as last heard while polling and without asking the server.

        A partition of which nothing was heard yet, or that is not ours, is left out."""

    def close(self, timeout_s: float) -> None:
        """Leave the group and let go of everything, within ``timeout_s``. Never raises."""
