"""Counters, gauges and histograms in memory that the processes of one instance share.

A scrape reaches one process of an instance and must tell about all. Each process writes into a slot of its own and
reads everybody's; there are no files, so nothing is left over from an earlier instance. A process that takes over
the slot of a dead one goes on from its counters, and its gauges are gone. docs/telemetry.md has the reasons.

A slot describes itself (names and labels are in it), so processes of two releases can share the memory while one
replaces the other.
"""

import logging
import math
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

# What a few hundred series take; only what is written to is ever real memory.
SLOT_BYTES: Final = 262_144

# Owner's process id (0: none, set by the master when it has died), bytes used by cells.
_HEADER: Final = struct.Struct("QQ")
# A cell: bytes of its key, number of its values; then the key, padded to 8, and the values as doubles.
_CELL: Final = struct.Struct("II")
_SEPARATOR: Final = "\x1f"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """What becomes of a gauge that several processes report."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Metric(NamedTuple):
    """One family of series. ``name`` is the exported one; ``buckets`` are the upper bounds of a histogram."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM


class Series(NamedTuple):
    """The values of one label set: one, or for a histogram the count of each bucket, of +Inf, and the sum."""

    metric: Metric
    labels: tuple[str, ...]
    values: tuple[float, ...]


class Slot:
    """The values of this process. Any thread may write; the costs are those of a lock and a dict look-up."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._cells: dict[tuple[str, ...], memoryview[float]] = {}
        self._totals: dict[tuple[str, ...], float] = {}
        self._used = _HEADER.unpack_from(memory)[1] or _HEADER.size
        for key, values in _cells(memory):
            self._cells[key] = values
        self._is_full = False
        _HEADER.pack_into(memory, 0, os.getpid(), self._used)

    def forget(self, metrics: Iterable[Metric]) -> None:
        """Forget the gauges among ``metrics``, which a predecessor has set."""
        gauges = {metric.name for metric in metrics if metric.kind is Kind.GAUGE}
        for key, values in self._cells.items():
            if key[0] in gauges:
                values[0] = math.nan

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Count up a counter."""
        with self._lock:
            cell = self._cell(metric, labels)
            if cell is not None:
                cell[0] += amount

    def raise_to(self, metric: Metric, *labels: str, total: float) -> None:
        """Count up a counter by what ``total``, which this process counts elsewhere, grew since the last call."""
        with self._lock:
            key = (metric.name, *labels)
            # A total read while requests count may be one ahead of itself, and one behind at the next call.
            grown = total - self._totals.get(key, 0.0)
            cell = self._cell(metric, labels)
            if cell is not None and grown > 0:
                cell[0] += grown
                self._totals[key] = total

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            cell = self._cell(metric, labels)
            if cell is not None:
                cell[0] = value

    def unset(self, metric: Metric, *labels: str) -> None:
        """Export a gauge no longer."""
        self.set(metric, *labels, value=math.nan)

    def observe(self, metric: Metric, *labels: str, values: Sequence[float]) -> None:
        """Count values in a histogram."""
        with self._lock:
            cell = self._cell(metric, labels)
            if cell is not None:
                for value in values:
                    cell[bisect_left(metric.buckets, value)] += 1.0
                cell[len(metric.buckets) + 1] += math.fsum(values)

    def _cell(self, metric: Metric, labels: tuple[str, ...]) -> "memoryview[float] | None":
        key = (metric.name, *labels)
        cell = self._cells.get(key)
        if cell is None and not self._is_full:
            assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
            cell = self._new_cell(key, len(metric.buckets) + 2 if metric.buckets else 1)
        return cell

    def _new_cell(self, key: tuple[str, ...], count: int) -> "memoryview[float] | None":
        text = _SEPARATOR.join(key).encode()
        text += b" " * (-len(text) % 8)
        start = self._used
        values_at = start + _CELL.size + len(text)
        end = values_at + 8 * count
        if end > len(self._memory):
            # Labels come from closed sets, so this is a mistake of ours; a request must not fail for it.
            self._is_full = True
            logger.error("no room for the metric %s", key, extra={"event": "metrics.full"})
            return None
        _CELL.pack_into(self._memory, start, len(text), count)
        self._memory[start + _CELL.size : values_at] = text
        # Last, so that no reader meets a cell that is half made.
        self._used = end
        _HEADER.pack_into(self._memory, 0, os.getpid(), end)
        cell = self._cells[key] = self._memory[values_at:end].cast("d")
        return cell


class Memory:
    """The slots of an instance, and this process's own. Without ``shared`` memory the instance is this process."""

    def __init__(
        self, metrics: Sequence[Metric], shared: memoryview | None = None, slots: int = 1, own: int = 0
    ) -> None:
        memory = memoryview(bytearray(SLOT_BYTES)) if shared is None else shared
        size = len(memory) // slots // 8 * 8
        self._slots = [memory[number * size : (number + 1) * size] for number in range(slots)]
        self._metrics = {metric.name: metric for metric in metrics}
        self.slot = Slot(self._slots[own])
        self.slot.forget(metrics)

    @property
    def processes(self) -> int:
        """How many processes write now."""
        return sum(_HEADER.unpack_from(slot)[0] != 0 for slot in self._slots)

    def read(self) -> list[Series]:
        """Return every series, merged over all processes, dead ones included in counters. Costs about 1 ms."""
        merged: dict[tuple[str, ...], list[float]] = {}
        for slot in self._slots:
            is_alive = _HEADER.unpack_from(slot)[0] != 0
            for key, cell in _cells(slot):
                metric = self._metrics.get(key[0])
                values = [float(value) for value in cell]
                if metric is None or len(values) != (len(metric.buckets) + 2 if metric.buckets else 1):
                    continue  # of another release
                if metric.kind is not Kind.GAUGE:
                    known = merged.setdefault(key, [0.0] * len(values))
                    merged[key] = [one + other for one, other in zip(known, values, strict=True)]
                elif is_alive and not math.isnan(values[0]):
                    merged[key] = [_gauge(metric, merged[key][0], values[0])] if key in merged else values
        return [Series(self._metrics[key[0]], key[1:], tuple(values)) for key, values in merged.items()]


def _gauge(metric: Metric, one: float, other: float) -> float:
    return {Merge.SUM: one + other, Merge.MAX: max(one, other), Merge.MIN: min(one, other)}[metric.merge]


def _cells(memory: memoryview) -> Iterator[tuple[tuple[str, ...], "memoryview[float]"]]:
    at, end = _HEADER.size, _HEADER.unpack_from(memory)[1]
    while at < end:
        key_bytes, count = _CELL.unpack_from(memory, at)
        values_at = at + _CELL.size + key_bytes
        key = bytes(memory[at + _CELL.size : values_at]).decode().rstrip(" ")
        at = values_at + 8 * count
        yield tuple(key.split(_SEPARATOR)), memory[values_at:at].cast("d")
