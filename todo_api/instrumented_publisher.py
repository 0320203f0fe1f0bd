"""A ``Publisher`` that measures another one and lets the records say which request they come from."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from todo_api import api_metrics as metrics
from todo_api.core.command_log import Headers, Position, Publisher, Record
from todo_api.core.errors import RecordTooLarge, TodoError
from todo_api.core.trace_context import current, origin, request_headers
from todo_api.core.tracing import Span, SpanKind, Tracing
from todo_api.telemetry import Telemetry

logger = logging.getLogger(__name__)

_ACKNOWLEDGED: Final = "acknowledged"
_TOO_LARGE: Final = "too_large"
_UNAVAILABLE: Final = "unavailable"


class InstrumentedPublisher:
    """Tells ``telemetry`` how long each record took and how it ended, ``tracing`` the same of each call."""

    def __init__(self, publisher: Publisher, telemetry: Telemetry, tracing: Tracing) -> None:
        self._publisher = publisher
        self._telemetry = telemetry
        self._tracing = tracing
        # On gthread records come from several threads; a count that was lost once would stay wrong.
        self._lock = threading.Lock()
        self._waiting = 0

    def waiting(self) -> int:
        """Return how many records wait for their acknowledgement."""
        return self._waiting

    @property
    def log(self) -> str:
        return self._publisher.log

    def start(self) -> None:
        self._publisher.start()

    def publish(self, record: Record) -> Position:
        if self._tracing.is_on:
            result = self.publish_many([record])[0]
            if isinstance(result, TodoError):
                raise result
            return result
        # PERF: without a span, and for one record: part of what took a write from 101 us to 45 (write_path.py).
        self._count(1)
        began = time.perf_counter()
        outcome = _UNAVAILABLE
        try:
            # Whoever made no headers of its own answers a request with a context: its id, and its trace as it came.
            marked = record if record.headers else Record(record.key, record.value, current.get())
            position = self._publisher.publish(marked)
            outcome = _ACKNOWLEDGED
            _log_published([position])
            return position
        except RecordTooLarge:
            outcome = _TOO_LARGE
            raise
        finally:
            self._count(-1)
            seconds = time.perf_counter() - began
            self._telemetry.slot.observe(metrics.PUBLISH_SECONDS, outcome, values=(seconds,))

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        span, began = self._begin(len(records))
        outcomes = [_UNAVAILABLE] * len(records)
        try:
            results = self._publisher.publish_many([_marked(record, span.headers) for record in records])
            outcomes = [_outcome(result) for result in results]
            _log_published(results)
            return results
        finally:
            self._end(span, began, outcomes)

    def probe(self) -> None:
        self._publisher.probe()

    def close(self, timeout_s: float) -> None:
        self._publisher.close(timeout_s)

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change

    def _begin(self, count: int) -> tuple[Span, float]:
        self._count(count)
        return self._tracing.begin(SpanKind.PRODUCER, current.get()), time.perf_counter()

    def _end(self, span: Span, began: float, outcomes: Sequence[str]) -> None:
        seconds = time.perf_counter() - began
        self._count(-len(outcomes))
        slot = self._telemetry.slot
        for outcome in set(outcomes):
            slot.observe(metrics.PUBLISH_SECONDS, outcome, values=[seconds] * outcomes.count(outcome))
        span.end(
            "publish",
            {"messaging.destination.name": self.log, "messaging.batch.message_count": len(outcomes)},
            is_error=_UNAVAILABLE in outcomes,
        )


def _marked(record: Record, span_headers: Headers) -> Record:
    return Record(record.key, record.value, record.headers + request_headers(current.get()) + span_headers)


def _log_published(results: Sequence[Position | TodoError]) -> None:
    """Write down where the records of a request went; the worker's lines have the same request id."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    for result in results:
        if isinstance(result, Position):
            fields = {"event": "api.published", "partition": result.partition, "offset": result.offset}
            logger.debug("published", extra=fields | origin(current.get()))


def _outcome(result: Position | TodoError) -> str:
    if isinstance(result, Position):
        return _ACKNOWLEDGED
    return _TOO_LARGE if isinstance(result, RecordTooLarge) else _UNAVAILABLE
