"""A ``Publisher`` that lets requests of one process share a batch, and lets reads go on while they wait.

Where a request can be suspended (``core.waiting``), its records are handed on together with those of all others that
are ready by then, in one call: the busier the process, the larger the batches. Elsewhere the calling thread publishes
by itself.
"""

import time
from collections.abc import Sequence
from typing import Final

from todo_api.core.command_log import Position, Publisher, Record, Results, Submitter
from todo_api.core.command_log.in_one_thread import InOneThread
from todo_api.core.errors import LogUnavailable, TodoError
from todo_api.core.waiting import Wait, can_suspend, soon

# An adapter gives up by itself, well before (1.75 s at most), and what waits behind a batch that failed fails with it.
# This is for one that does not come back at all.
_GIVE_UP_S: Final = 2.0


class _Group:
    """The records of the requests that are ready in one turn of the event loop, and what became of them.

    ``results`` is set before the wait ends, which is one for all of them.
    """

    __slots__ = ("came_at", "records", "results", "wait")

    def __init__(self) -> None:
        self.came_at = time.monotonic()
        self.records: list[Record] = []
        self.wait = Wait()
        self.results: Results | None = None


class GroupCommit:
    """Publishes through ``publisher``. Records with the same key keep the order in which they came."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._submitter = publisher if isinstance(publisher, Submitter) else InOneThread(publisher)
        # That of this turn, if anybody came yet.
        self._coming: _Group | None = None
        self._waiting_count = 0
        self._last_wait_s = 0.0

    @property
    def log(self) -> str:
        return self._publisher.log

    def wait_s(self) -> float:
        """Return how long the last request that was answered had waited here; 0 when nobody waits."""
        return self._last_wait_s if self._waiting_count else 0.0

    def start(self) -> None:
        self._publisher.start()

    def publish(self, record: Record) -> Position:
        if not can_suspend():
            return self._publisher.publish(record)
        result = self._together([record])[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> Results:
        if not records or not can_suspend():
            return self._publisher.publish_many(records)
        return self._together(records)

    def probe(self) -> None:
        self._publisher.probe()

    def close(self, timeout_s: float) -> None:
        self._submitter.close(timeout_s)

    def _together(self, records: Sequence[Record]) -> Results:
        is_first = self._coming is None
        group = self._coming = self._coming or _Group()
        begin = len(group.records)
        group.records += records
        # PERF: handed over when all have come who are ready, not by the first of them: a call of the adapter each, and
        # its thread awake while this one works and both want the interpreter's lock. 1.06 to 1.41 times the writes
        # in three rounds of both.
        if is_first:
            soon(self._hand_over)
        self._waiting_count += 1
        try:
            group.wait.until_over(group.came_at + _GIVE_UP_S)
        finally:
            self._waiting_count -= 1
        if group.results is None:
            return [LogUnavailable(f"{self.log}: no answer in time") for _ in records]
        return group.results[begin : begin + len(records)]

    def _hand_over(self) -> None:
        group, self._coming = self._coming, None
        assert group is not None

        def done(results: Results) -> None:
            self._last_wait_s = time.monotonic() - group.came_at
            group.results = results
            group.wait.end()

        self._submitter.submit(group.records, done)
