"""The loop: poll, check where we are, apply, publish the generation, tell the log.

Every message has one of three fates. Done: applied or rejected by rule, with the transaction that moves ``applied``
on. Invalid: dead-lettered, then passed in the same way. Unavailable: something it needs is away; nothing moves, and
it is read again after a pause.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from todo_api.core.command_log import Consumer, Message
from todo_api.core.commands import Command, decode
from todo_api.core.errors import FenceLost, InvalidCommand, Unavailable
from todo_api.core.trace_context import origin
from todo_worker.applier import Applied, PartitionBatch, Progress
from todo_worker.telemetry import WorkerTelemetry

log = logging.getLogger(__name__)

_POLL_TIMEOUT_S: Final = 0.25
_PUBLISH_EVERY_S: Final = 1.0
_COMMIT_EVERY_S: Final = 1.0
# PERF: what comes within this time is one batch, unless it is a full one: a batch of three commands costs nearly what
# one of thirty does. A few wait less, for their sake; many wait anyway, until the pages are read anew. At 1,000
# commands a second the worker took 0.136 of two loaded cores when they waited 100 ms, 0.126 at 150, 0.096 at 200.
_BATCH_EVERY_S: Final = 0.025
_BATCH_EVERY_MAX_S: Final = 0.15
_PAUSE_PER_COMMAND_S: Final = 0.005
_RECHECK_STOPPED_S: Final = 30.0
# A rebalance may undo a seek before the next poll; an offset that is still missing after this many is really missing.
_SEEKS_MAX: Final = 3
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def pause_s(messages: int, batch_max: int) -> float:
    """Return how long after the beginning of a batch of so many messages the next one begins."""
    if messages >= batch_max:
        return 0.0
    return min(max(messages * _PAUSE_PER_COMMAND_S, _BATCH_EVERY_S), _BATCH_EVERY_MAX_S)


class AppliesBatches(Protocol):
    """What the worker needs of the Applier; see there."""

    def progress(self, partitions: Sequence[int]) -> dict[int, Progress]: ...
    def apply(self, batches: Sequence[PartitionBatch]) -> Applied: ...
    def state(self) -> tuple[str, int]: ...


class WritesDeadLetters(Protocol):
    def write(self, message: Message, reason: str) -> None: ...


class Worker:
    """Applies the partitions that the consumer is given, until told to stop.

    ``publish_state`` is called with (epoch, generation) after each batch and once a second; it must be bounded, and
    its Unavailable is harmless. ``dlq_limit`` is the number of dead letters in a row in one partition after which
    that partition stops: more than that is not bad data but a wrong deploy.
    """

    def __init__(
        self,
        consumer: Consumer,
        applier: AppliesBatches,
        dead_letters: WritesDeadLetters,
        publish_state: Callable[[str, int], None],
        telemetry: WorkerTelemetry,
        *,
        batch_max: int,
        dlq_limit: int,
    ) -> None:
        self._consumer = consumer
        self._applier = applier
        self._dead_letters = dead_letters
        self._publish_state = publish_state
        self._telemetry = telemetry
        self._batch_max = batch_max
        self._dlq_limit = dlq_limit
        # What we believe of the partitions we read; dropped whenever it may be wrong, read again when needed.
        self._progress: dict[int, Progress] = {}
        self._to_rewind: set[int] = set()
        self._seeks: dict[int, int] = {}
        self._stopped: dict[int, float] = {}
        self._state: tuple[str, int] | None = None
        self._next_publish = 0.0
        self._to_commit: dict[int, int] = {}
        self._next_commit = 0.0
        self._next_batch = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; returns after the batch in hand. Outages are waited out, never raised."""
        failures = 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
            except Unavailable as ex:
                pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                self._telemetry.interrupted("unavailable")
                log.warning("waiting: %s", ex, extra={"event": "worker.waiting", "pause_s": pause_s})
                self._forget(self._progress)
                self._publish_known()
                stop.wait(pause_s)
            except FenceLost as ex:
                self._telemetry.interrupted("fence_lost")
                log.info("fence: %s", ex, extra={"event": "worker.fence_lost"})
                self._forget(self._progress)
        self._commit()

    def step(self) -> None:
        """Poll once and apply what came. Raises Unavailable or FenceLost with nothing, or all of it, applied."""
        self._recheck_stopped()
        self._rewind()
        time.sleep(max(self._next_batch - time.monotonic(), 0.0))
        polled = self._consumer.poll(self._batch_max, _POLL_TIMEOUT_S)
        # Until they are applied: the consumer is past them already and would not offer them again.
        self._to_rewind.update(polled)
        self._drop_unassigned()
        batches = self._batches(polled)
        if batches:
            began = time.monotonic()
            self._next_batch = began + pause_s(sum(map(len, polled.values())), self._batch_max)
            applied = self._applier.apply(batches)
            self._telemetry.applied(polled, batches, applied, time.monotonic() - began)
            for batch in batches:
                self._progress[batch.partition] = batch.end
        self._to_rewind = {
            batch.partition
            for batch in batches
            if batch.end.next_offset <= polled[batch.partition][-1].offset
            and batch.partition not in self._stopped
        }
        if batches or time.monotonic() >= self._next_publish:
            self._publish()
        self._to_commit.update({batch.partition: batch.end.next_offset for batch in batches})
        # PERF: only a hint, and at the broker each costs about what a batch of commands does.
        if self._to_commit and time.monotonic() >= self._next_commit:
            self._commit()

    def _commit(self) -> None:
        """Tell the log how far we are in the partitions that are still ours."""
        ours = self._consumer.assignment()
        offsets = {partition: offset for partition, offset in self._to_commit.items() if partition in ours}
        if offsets:
            self._consumer.commit(offsets)
        self._to_commit = {}
        self._next_commit = time.monotonic() + _COMMIT_EVERY_S

    def _rewind(self) -> None:
        """Go back to where ``applied`` is in partitions of which messages were polled and not applied."""
        partitions = (self._to_rewind & self._consumer.assignment()) - self._stopped.keys()
        if partitions:
            for partition, progress in self._applier.progress(sorted(partitions)).items():
                self._progress[partition] = progress
                self._consumer.seek(partition, progress.next_offset)
        self._to_rewind = set()

    def _batches(self, polled: Mapping[int, list[Message]]) -> list[PartitionBatch]:
        missing = [partition for partition in polled if partition not in self._progress]
        if missing:
            self._progress.update(self._applier.progress(missing))
        batches = []
        for partition, messages in polled.items():
            if partition in self._stopped or not self._is_in_place(partition, messages):
                continue
            batch = self._batch(partition, self._progress[partition], messages)
            if batch.end.next_offset > batch.start.next_offset:
                batches.append(batch)
        return batches

    def _is_in_place(self, partition: int, messages: Sequence[Message]) -> bool:
        """Whether the messages begin where ``applied`` ends; otherwise seek there, or stop when that was tried."""
        expected = self._progress[partition].next_offset
        if messages[0].offset == expected:
            self._seeks.pop(partition, None)
            return True
        seeks = self._seeks.get(partition, 0)
        if seeks == _SEEKS_MAX:
            self._seeks.pop(partition)
            self._stop(
                partition,
                f"offset {expected} is not in the log, which goes on at {messages[0].offset}: "
                "commands were cut off before they were applied, or the log was made anew",
            )
        else:
            self._seeks[partition] = seeks + 1
            self._consumer.seek(partition, expected)
        return False

    def _batch(self, partition: int, start: Progress, messages: Sequence[Message]) -> PartitionBatch:
        """Decode; dead-letter what cannot be; end before the message at which the limit is passed or a gap opens."""
        commands: list[tuple[int, Command]] = []
        next_offset, dead = start
        for message in messages:
            if message.offset != next_offset:
                break  # rewound to next_offset, where the next poll cannot begin either: the seeks run out
            try:
                commands.append((message.offset, decode(message.value)))
                dead = 0
            except InvalidCommand as ex:
                if dead >= self._dlq_limit:
                    self._stop(partition, f"{dead} dead letters in a row (DLQ_LIMIT); the next one: {ex}")
                    break
                self._dead_letters.write(message, str(ex))
                self._telemetry.dead_letter()
                dead += 1
                log.error(
                    "dead letter: %s",
                    ex,
                    extra={
                        "event": "worker.dead_letter",
                        "partition": partition,
                        "offset": message.offset,
                        **origin(message.headers),
                    },
                )
            next_offset += 1
        return PartitionBatch(partition, start, Progress(next_offset, dead), commands)

    def _publish(self) -> None:
        self._state = self._applier.state()
        # Partitions where nothing came yet, for what there is to tell of them.
        missing = self._consumer.assignment() - self._progress.keys() - self._stopped.keys()
        if missing:
            self._progress.update(self._applier.progress(sorted(missing)))
        self._announce()

    def _publish_known(self) -> None:
        """Say once a second what was true last: while PostgreSQL is away nothing can move, and hot pages live on."""
        if self._state is not None and time.monotonic() >= self._next_publish:
            self._announce()

    def _announce(self) -> None:
        assert self._state is not None
        self._next_publish = time.monotonic() + _PUBLISH_EVERY_S
        try:
            self._publish_state(*self._state)
        except Unavailable as ex:
            # The API processes ask PostgreSQL meanwhile.
            log.warning("generation not published: %s", ex, extra={"event": "worker.publish_failed"})
        assigned = self._consumer.assignment()
        self._telemetry.tell(self._state[1], self._lags(), len(assigned), self._stopped.keys() & assigned)

    def _lags(self) -> dict[int, int]:
        """Return how many commands each partition of ours still has to apply, where the log has told that."""
        ends = self._consumer.known_end_offsets()
        return {
            partition: max(0, ends[partition] - progress.next_offset)
            for partition, progress in self._progress.items()
            if partition in ends
        }

    def _stop(self, partition: int, reason: str) -> None:
        """Leave the partition alone, loudly. It is looked at again every 30 s: a person may have mended it."""
        self._consumer.pause(partition)
        self._stopped[partition] = time.monotonic() + _RECHECK_STOPPED_S
        log.critical(
            "partition %d stopped: %s",
            partition,
            reason,
            extra={"event": "worker.partition_stopped", "partition": partition},
        )

    def _recheck_stopped(self) -> None:
        due = [partition for partition, at in self._stopped.items() if time.monotonic() >= at]
        for partition, progress in (self._applier.progress(due) if due else {}).items():
            del self._stopped[partition]
            self._progress[partition] = progress
            self._consumer.seek(partition, progress.next_offset)

    def _drop_unassigned(self) -> None:
        # Not what is stopped: the consumer keeps it paused when it comes back, until it is looked at again.
        assigned = self._consumer.assignment()
        self._forget([partition for partition in self._progress if partition not in assigned])
        self._seeks = {p: count for p, count in self._seeks.items() if p in assigned}

    def _forget(self, partitions: Sequence[int] | Mapping[int, object]) -> None:
        for partition in list(partitions):
            self._progress.pop(partition, None)
