"""A ``Publisher`` that measures another one."""

import time
from collections.abc import Sequence
from typing import Final

from todo_api import api_metrics as metrics
from todo_api.core.command_log import Position, Publisher, Record
from todo_api.core.errors import RecordTooLarge, TodoError
from todo_api.telemetry import Telemetry

_ACKNOWLEDGED: Final = "acknowledged"
_TOO_LARGE: Final = "too_large"
_UNAVAILABLE: Final = "unavailable"


class MeasuredPublisher:
    """Tells ``telemetry`` how long each record took and how it ended. Otherwise it is ``publisher``."""

    def __init__(self, publisher: Publisher, telemetry: Telemetry) -> None:
        self._publisher = publisher
        self._telemetry = telemetry

    @property
    def log(self) -> str:
        return self._publisher.log

    def start(self) -> None:
        # A predecessor in this slot may have left none at all.
        self._telemetry.slot.set(metrics.PUBLISH_WAITING, value=0)
        self._publisher.start()

    def publish(self, record: Record) -> Position:
        began = self._begin(1)
        outcome = _UNAVAILABLE
        try:
            position = self._publisher.publish(record)
            outcome = _ACKNOWLEDGED
            return position
        except RecordTooLarge:
            outcome = _TOO_LARGE
            raise
        finally:
            self._end(began, [outcome])

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        began = self._begin(len(records))
        outcomes = [_UNAVAILABLE] * len(records)
        try:
            results = self._publisher.publish_many(records)
            outcomes = [_outcome(result) for result in results]
            return results
        finally:
            self._end(began, outcomes)

    def probe(self) -> None:
        self._publisher.probe()

    def close(self, timeout_s: float) -> None:
        self._publisher.close(timeout_s)

    def _begin(self, count: int) -> float:
        self._telemetry.slot.add(metrics.PUBLISH_WAITING, amount=count)
        return time.perf_counter()

    def _end(self, began: float, outcomes: Sequence[str]) -> None:
        seconds = time.perf_counter() - began
        slot = self._telemetry.slot
        slot.add(metrics.PUBLISH_WAITING, amount=-len(outcomes))
        for outcome in set(outcomes):
            slot.observe(metrics.PUBLISH_SECONDS, outcome, values=[seconds] * outcomes.count(outcome))


def _outcome(result: Position | TodoError) -> str:
    if isinstance(result, Position):
        return _ACKNOWLEDGED
    return _TOO_LARGE if isinstance(result, RecordTooLarge) else _UNAVAILABLE
