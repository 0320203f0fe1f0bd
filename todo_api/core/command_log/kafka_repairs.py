"""Two defects of kafka-python 3.0.12 by which one bad record would stop every worker for ever, put right.

The version is pinned exactly; the contract tests show when an upgrade makes this unnecessary.
"""

from collections.abc import Callable
from typing import Any, SupportsIndex

from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch


class _AnyText(bytearray):
    """The bytes of a record batch, of which any slice can be decoded."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        part = super().__getitem__(index)
        return _AnyText(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


def repair_consumers() -> None:
    """Change the library's classes in this process. Done once, however often it is called."""
    partition_records = Fetcher.PartitionRecords
    if not hasattr(partition_records.take, "repaired"):
        partition_records.take = _give_up_after_failure(partition_records.take)
        DefaultRecordBatch._read_msg = _read_any_header_name(DefaultRecordBatch._read_msg)


def _give_up_after_failure(take: Callable[..., Any]) -> Callable[..., Any]:
    # The library keeps a batch that failed to decode, whose iterator is at its end, and asks it for records in
    # a loop that never ends; heartbeats go on, so that nobody else gets the partition. Dropped, it is fetched again.
    def repaired(self: Any, n: int | None = None) -> Any:
        try:
            return take(self, n)
        except Exception:
            self.drain()
            raise

    repaired.repaired = True  # type: ignore[attr-defined]
    return repaired


def _read_any_header_name(read_msg: Callable[..., Any]) -> Callable[..., Any]:
    # APPSEC: the name of a header is text by convention only; brokers take any bytes. Ours are not needed to
    # apply a command, so that a bad one must not keep the record from being read.
    def repaired(self: Any) -> Any:
        try:
            return read_msg(self)
        except UnicodeDecodeError:
            # The position has not moved yet.
            self._buffer = _AnyText(self._buffer)
            return read_msg(self)

    return repaired
