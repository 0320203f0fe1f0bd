"""The command log on Kafka: the publisher."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from todo_api.core.command_log import Position, Record, Results
from todo_api.core.command_log.kafka_security import IN_THE_CLEAR, KafkaSecurity
from todo_api.core.command_log.kafka_sender import Sender
from todo_api.core.errors import LogUnavailable, TodoError

# A sender that has failed for this long, without one success, is replaced by a fresh one.
_REPLACE_AFTER_S: Final = 10.0
# The sender gives up by itself; this much longer, so that its own reason is heard.
_GRACE_S: Final = 0.2


class KafkaPublisher:
    """A ``Publisher`` and ``Submitter`` on one topic. Its thread is the sender's, born in ``start``.

    A record may be sent twice and be in the log twice (the worker applies it once); the order per partition holds. What
    is not acknowledged within ``timeout_s`` is given up, so memory stays bounded while brokers are away. Until the
    topic is known a call waits ``connect_timeout_s`` longer; so long may a probe take.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        topic: str,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        record_max_bytes: int,
        security: KafkaSecurity = IN_THE_CLEAR,
    ) -> None:
        self._brokers = list(brokers)
        self._security = security
        self._topic = topic
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._record_max_bytes = record_max_bytes
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._failing_since: float | None = None

    @property
    def log(self) -> str:
        return f"kafka:{self._topic}"

    def start(self) -> None:
        with self._lock:
            if self._sender is None:
                self._sender = self._connect()

    def publish(self, record: Record) -> Position:
        result = self.publish_many([record])[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> Results:
        ended = threading.Event()
        results: Results = []

        def done(found: Results) -> None:
            results.extend(found)
            ended.set()

        self.submit(records, done)
        if not ended.wait(self._timeout_s + self._connect_timeout_s + _GRACE_S):
            return [LogUnavailable(f"{self.log}: no answer in time") for _ in records]
        return results

    def submit(self, records: Sequence[Record], done: Callable[[Results], object]) -> None:
        sender = self._sender
        if sender is None or not records:
            done([LogUnavailable(f"{self.log}: not started, or closed") for _ in records])
            return

        def noted(results: Results) -> None:
            self._note(sender, results)
            done(results)

        try:
            sender.submit(records, noted)
        # The loop has died, of whatever it was.
        except Exception as ex:
            failure = LogUnavailable(f"{self.log}: {ex!r}")
            failure.__cause__ = ex
            noted([failure] * len(records))

    def probe(self) -> None:
        """Ask for fresh metadata: answered, with a leader for every partition of the topic."""
        sender = self._sender
        if sender is None:
            raise LogUnavailable(f"{self.log}: not started, or closed")
        answered = threading.Event()
        refresh = sender.cluster.request_update()
        refresh.add_both(lambda _: answered.set())
        if not answered.wait(self._connect_timeout_s) or refresh.failed():
            failure = LogUnavailable(f"{self.log}: {sender.refusal or 'no metadata'}")
            self._note(sender, [failure])
            raise failure from refresh.exception
        every = sender.cluster.partitions_for_topic(self._topic)
        led = sender.cluster.available_partitions_for_topic(self._topic)
        if not every or led != every:
            raise LogUnavailable(
                f"{self.log}: {len(led or ())} of {len(every or ())} partitions have a leader"
            )

    def close(self, timeout_s: float) -> None:
        with self._lock:
            sender, self._sender = self._sender, None
        if sender is not None:
            sender.close(timeout_s)

    def _connect(self) -> Sender:
        return Sender(
            self._brokers,
            self._topic,
            timeout_s=self._timeout_s,
            connect_timeout_s=self._connect_timeout_s,
            record_max_bytes=self._record_max_bytes,
            security=self._security,
        )

    def _note(self, sender: Sender, results: Results) -> None:
        """Note how ``sender`` did; replace it when it has only failed for a while.

        Reconnecting is kafka-python's business and works, but a state it cannot leave by itself (it has had
        such) must not last until somebody restarts the process.
        """
        if not all(isinstance(result, LogUnavailable) for result in results):
            self._failing_since = None
            return
        now = time.monotonic()
        with self._lock:
            if self._sender is not sender:
                return
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < _REPLACE_AFTER_S:
                return
            self._failing_since = now
            self._sender = self._connect()
        # Ending the old one's thread may take a moment, and this may be that thread.
        threading.Thread(target=_close, args=(sender,), name="log-replaced", daemon=True).start()


def _close(sender: Sender) -> None:
    with suppress(Exception):
        sender.close(0.0)
