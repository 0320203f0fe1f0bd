"""The circuit breaker in front of the command log.

Nobody shall wait for a log that is known to be away, and where a thread waits with each write (gthread, the relay's
clients) the reads behind it would wait too. So after one failure writes are refused at once until a probe succeeds.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from todo_api.core.command_log import Position, Publisher, Record
from todo_api.core.errors import LogUnavailable, TodoError

logger = logging.getLogger(__name__)

PROBE_INTERVAL_S: Final = 0.25
PROBE_INTERVAL_MAX_S: Final = 1.0


class Condition(StrEnum):
    """CLOSED lets writes through, OPEN refuses them, CONNECTING lets them through but none was acknowledged yet."""

    CONNECTING = "connecting"
    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class State:
    """``since`` is a ``time.monotonic`` value. ``reason`` says why the breaker is open, for our own log."""

    condition: Condition
    since: float
    reason: str = ""


class GuardedPublisher:
    """A ``Publisher`` around another one: while the breaker is open, publishing raises LogUnavailable at once.

    One LogUnavailable opens it, also one that a probe from outside meets. A thread of its own then probes, at growing
    intervals, and closes it with the first probe that succeeds. That may be too early (the server answers but still
    takes no record): the next failure opens it again, and the intervals keep growing until a record was acknowledged.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        probe_interval_s: float = PROBE_INTERVAL_S,
        probe_interval_max_s: float = PROBE_INTERVAL_MAX_S,
    ) -> None:
        self._publisher = publisher
        self._probe_interval_s = probe_interval_s
        self._probe_interval_max_s = probe_interval_max_s
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state = State(Condition.CONNECTING, time.monotonic())
        self._interval_s = probe_interval_s
        self._acknowledged_at = -math.inf
        self._closing = False
        self._prober: threading.Thread | None = None

    @property
    def log(self) -> str:
        return self._publisher.log

    @property
    def state(self) -> State:
        return self._state

    def start(self) -> None:
        self._publisher.start()
        with self._lock:
            if self._prober is None:
                self._prober = threading.Thread(target=self._probe_while_open, name="log-probe", daemon=True)
                self._prober.start()

    def publish(self, record: Record) -> Position:
        before = self._admit()
        try:
            position = self._publisher.publish(record)
        except LogUnavailable as ex:
            self._opened_by(ex, before)
            raise
        self._acknowledged(before)
        return position

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        try:
            before = self._admit()
        except LogUnavailable as ex:
            return [ex for _ in records]
        results = self._publisher.publish_many(records)
        failures = [result for result in results if isinstance(result, LogUnavailable)]
        if failures:
            self._opened_by(failures[0], before)
        elif any(isinstance(result, Position) for result in results):
            self._acknowledged(before)
        return results

    def probe(self) -> None:
        """Ask the log; while the breaker is open, say so at once."""
        before = self._admit()
        began = time.monotonic()
        try:
            self._publisher.probe()
        except LogUnavailable as ex:
            # On a connection that is busy with records (kafka-python has one) a question may find no room.
            if self._acknowledged_at > began:
                return
            self._opened_by(ex, before)
            raise

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            prober = self._prober
        if prober is not None:
            prober.join(timeout_s)
        self._publisher.close(max(deadline - time.monotonic(), 0.0))

    def _admit(self) -> State:
        """Return the state this call starts in. Raises LogUnavailable when that is open."""
        state = self._state
        if state.condition is Condition.OPEN:
            raise LogUnavailable(
                f"{self.log}: refused, unavailable for {time.monotonic() - state.since:.1f} s"
            )
        return state

    def _opened_by(self, failure: LogUnavailable, before: State) -> None:
        with self._changed:
            # What failed before the state changed says nothing about the present: a thread that waited long
            # must not open a breaker that a probe has closed meanwhile.
            if self._state is not before or self._closing:
                return
            self._state = State(Condition.OPEN, time.monotonic(), str(failure))
            self._changed.notify_all()
        logger.warning("command log unavailable, refusing writes until it answers: %s", failure)

    def _acknowledged(self, before: State) -> None:
        # PERF: the usual case costs a clock, two comparisons and no lock.
        self._acknowledged_at = time.monotonic()
        if before.condition is Condition.CLOSED and self._interval_s == self._probe_interval_s:
            return
        with self._lock:
            if self._state is not before:
                return
            self._interval_s = self._probe_interval_s
            if before.condition is Condition.CONNECTING:
                self._state = State(Condition.CLOSED, time.monotonic())

    def _probe_while_open(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._state.condition is Condition.OPEN)
                self._changed.wait_for(lambda: self._closing, self._interval_s)
                if self._closing:
                    return
                self._interval_s = min(self._interval_s * 2, self._probe_interval_max_s)
            try:
                self._publisher.probe()
            except LogUnavailable as ex:
                logger.debug("command log still unavailable: %s", ex)
                continue
            except Exception:
                # The thread must outlive anything, or writes are refused for ever.
                logger.exception("probing the command log failed")
                continue
            with self._lock:
                opened, self._state = self._state, State(Condition.CLOSED, time.monotonic())
            logger.warning("command log answers again after %.1f s", time.monotonic() - opened.since)
