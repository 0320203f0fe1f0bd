"""A ``Submitter`` over any publisher: a thread publishes what is there in one call, then what came meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from todo_api.core.command_log import Publisher, Record, Results
from todo_api.core.errors import LogUnavailable

# A batch takes what waits, up to here: more would only make those wait longer who come first.
_RECORDS_MAX: Final = 1_000


class _Call(NamedTuple):
    records: Sequence[Record]
    done: Callable[[Results], object]


class InOneThread:
    """A ``Submitter`` over ``publisher``. The thread is born with the first call."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, records: Sequence[Record], done: Callable[[Results], object]) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="publishing", daemon=True)
                    self._thread.start()
        self._waiting.put(_Call(records, done))

    def close(self, timeout_s: float) -> None:
        """Publish what waits, within ``timeout_s``, and close the publisher."""
        deadline = time.monotonic() + timeout_s
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout_s)
        self._publisher.close(max(deadline - time.monotonic(), 0.0))

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            calls = [first, *self._behind(len(first.records))]
            records = [record for call in calls for record in call.records]
            try:
                results = self._publisher.publish_many(records)
            # The thread must outlive anything, and nobody may wait in vain.
            except Exception as ex:
                failure = LogUnavailable(f"{self._publisher.log}: {ex!r}")
                failure.__cause__ = ex
                results = [failure] * len(records)
            begin = 0
            for call in calls:
                end = begin + len(call.records)
                call.done(results[begin:end])
                begin = end
            if all(isinstance(result, LogUnavailable) for result in results):
                # It has cost its time once. What has come meanwhile was not sent, and hears so at once.
                for call in self._behind(0):
                    call.done([results[0]] * len(call.records))

    def _behind(self, count: int) -> list[_Call]:
        """Take what waits, until there are ``_RECORDS_MAX`` records with the ``count`` there are."""
        calls: list[_Call] = []
        while count < _RECORDS_MAX:
            try:
                call = self._waiting.get_nowait()
            except Empty:
                break
            if call is None:
                self._waiting.put(None)  # For whoever takes the next first one.
                break
            calls.append(call)
            count += len(call.records)
        return calls
