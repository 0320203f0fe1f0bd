"""A ``Publisher`` that lets requests of one process share a batch, and lets reads go on while they wait.

Where a request can be suspended (``core.waiting``), its records go to one thread. That publishes what is there in one
call, and what comes meanwhile waits for the next: the busier the process, the larger the batches. Elsewhere the calling
thread publishes by itself.
"""

import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final

from todo_api.core.command_log import Position, Publisher, Record
from todo_api.core.errors import LogUnavailable, TodoError
from todo_api.core.waiting import Wait, can_suspend, soon

# A batch takes what waits, up to here: more would only make those wait longer who come first.
_RECORDS_MAX: Final = 1_000
# An adapter gives up by itself, well before (1.75 s at most), and what waits behind a batch that failed fails with it.
# This is for a thread that does not come back at all.
_GIVE_UP_S: Final = 2.0


class _Request:
    """The records of one request, and what became of them. ``results`` is set before the wait ends."""

    __slots__ = ("came_at", "records", "results", "wait")

    def __init__(self, records: Sequence[Record], wait: Wait) -> None:
        self.came_at = time.monotonic()
        self.records = records
        self.wait = wait
        self.results: Sequence[Position | TodoError] | None = None


class GroupCommit:
    """Publishes through ``publisher``. Records with the same key keep the order in which they came."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: SimpleQueue[_Request | None] = SimpleQueue()
        # Those of this turn of the event loop, for which ``_hand_over`` will be called.
        self._coming: list[_Request] = []
        self._waiting_count = 0
        self._last_wait_s = 0.0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

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

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        if not records or not can_suspend():
            return self._publisher.publish_many(records)
        return list(self._together(records))

    def probe(self) -> None:
        self._publisher.probe()

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout_s)
        self._publisher.close(max(deadline - time.monotonic(), 0.0))

    def _together(self, records: Sequence[Record]) -> Sequence[Position | TodoError]:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                    self._thread.start()
        with Wait() as wait:
            request = _Request(records, wait)
            # PERF: the thread is woken when all have come who are ready, not by the first of them, with which it
            # would compete for the interpreter's lock: 1.06 to 1.41 times the writes in three rounds of both.
            self._coming.append(request)
            if len(self._coming) == 1:
                soon(self._hand_over)
            self._waiting_count += 1
            try:
                wait.until_over(time.monotonic() + _GIVE_UP_S)
            finally:
                self._waiting_count -= 1
        if request.results is None:
            return [LogUnavailable(f"{self.log}: no answer in time") for _ in records]
        return request.results

    def _hand_over(self) -> None:
        coming, self._coming = self._coming, []
        for request in coming:
            self._waiting.put(request)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            requests = [first, *self._behind(len(first.records))]
            records = [record for request in requests for record in request.records]
            try:
                results: Sequence[Position | TodoError] = self._publisher.publish_many(records)
            # The thread must outlive anything, and nobody may wait in vain.
            except Exception as ex:
                failure = LogUnavailable(f"{self.log}: {ex!r}")
                failure.__cause__ = ex
                results = [failure] * len(records)
            self._last_wait_s = time.monotonic() - requests[-1].came_at
            _answer(requests, results)
            if all(isinstance(result, LogUnavailable) for result in results):
                # It has cost its time once. What has come meanwhile was not sent, and hears so at once.
                behind = list(self._behind(0))
                _answer(behind, [results[0]] * sum(len(request.records) for request in behind))

    def _behind(self, count: int) -> "list[_Request]":
        """Take what waits, until there are ``_RECORDS_MAX`` records with the ``count`` there are."""
        requests: list[_Request] = []
        while count < _RECORDS_MAX:
            try:
                request = self._waiting.get_nowait()
            except Empty:
                break
            if request is None:
                self._waiting.put(None)  # For whoever takes the next first one.
                break
            requests.append(request)
            count += len(request.records)
        return requests


def _answer(requests: Sequence[_Request], results: Sequence[Position | TodoError]) -> None:
    begin = 0
    for request in requests:
        end = begin + len(request.records)
        request.results = results[begin:end]
        request.wait.end()
        begin = end
