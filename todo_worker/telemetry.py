"""What a worker measures: told to the API processes through Redis, and to Prometheus."""

import logging
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

from todo_api.core.command_log import Message
from todo_api.core.errors import Unavailable
from todo_api.core.metrics import Memory, Series
from todo_api.core.trace_context import is_sampled, origin
from todo_api.core.tracing import Attributes, NoTracing, SpanKind, Tracing
from todo_worker import worker_metrics as metrics
from todo_worker.applier import Applied, PartitionBatch

log = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 0.5
# Spans of one batch; with more the worker would be busy with them alone.
_TRACED_MAX: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

PublishProgress = Callable[[Mapping[int, int], tuple[int, int] | None], None]


class WorkerTelemetry:
    """Hears from the worker's loop what happened, in its thread; ``read`` may be called from any.

    ``publish_progress`` is ``PageCache.publish_progress``: it must be bounded, and its Unavailable is harmless.
    """

    def __init__(self, publish_progress: PublishProgress, tracing: Tracing | None = None) -> None:
        self._publish_progress = publish_progress
        self._tracing = tracing or NoTracing()
        self._memory = Memory(metrics.METRICS)
        self._slot = self._memory.slot
        self._slot.set(metrics.BUILD, version("todo-api"), platform.python_version(), value=1)
        # An increase from nothing is no increase to Prometheus: what alerts ask for is there from the start.
        for result in metrics.RESULTS:
            self._slot.add(metrics.COMMANDS, result, amount=0)
        for reason in ("unavailable", "fence_lost"):
            self._slot.add(metrics.INTERRUPTIONS, reason, amount=0)
        self._slot.add(metrics.DEAD_LETTERS, amount=0)
        self._told: set[int] = set()
        self._newest: tuple[int, int] | None = None
        self._next_tell = 0.0

    def read(self) -> list[Series]:
        """Return what is exported, as of now."""
        return self._memory.read()

    def applied(
        self,
        polled: Mapping[int, Sequence[Message]],
        batches: Sequence[PartitionBatch],
        applied: Applied,
        seconds: float,
    ) -> None:
        """Note one transaction: which messages it was made of, what it did, how long it took."""
        issued_at = [command.issued_at for batch in batches for _, command in batch.commands]
        if issued_at:
            now = datetime.now(UTC)
            newest = max(issued_at)
            self._newest = ((newest - _EPOCH) // _MICROSECOND, max(0, (now - newest) // _MICROSECOND))
            ages = [max(0.0, (now - at).total_seconds()) for at in issued_at]
            self._slot.observe(metrics.COMMAND_AGE, values=ages)
        self._slot.observe(metrics.BATCH_COMMANDS, values=(len(issued_at),))
        self._slot.observe(metrics.BATCH_SECONDS, values=(seconds,))
        for result, count in zip(metrics.RESULTS, applied, strict=True):
            self._slot.add(metrics.COMMANDS, result, amount=count)
        log.debug("applied", extra={"event": "worker.applied", **applied._asdict()})
        if log.isEnabledFor(logging.DEBUG):
            _log_commands(polled, batches)
        if self._tracing.is_on:
            self._trace(polled, batches, seconds)

    def _trace(
        self, polled: Mapping[int, Sequence[Message]], batches: Sequence[PartitionBatch], seconds: float
    ) -> None:
        """Add one span to the trace of each command that somebody keeps, and one for all of them together."""
        traced = [
            (batch.partition, offset, headers)
            for batch in batches
            for offset, _ in batch.commands
            if is_sampled(headers := _message(polled, batch.partition, offset).headers)
        ][:_TRACED_MAX]
        if not traced:
            return
        whole = self._tracing.begin(
            SpanKind.CONSUMER, (), [headers for _, _, headers in traced], ago_s=seconds
        )
        for partition, offset, headers in traced:
            span = self._tracing.begin(SpanKind.CONSUMER, headers, [whole.headers], ago_s=seconds)
            attributes: Attributes = {
                "messaging.destination.partition.id": str(partition),
                "messaging.kafka.message.offset": offset,
                **origin(headers),
            }
            span.end("apply", attributes)
        count = sum(len(batch.commands) for batch in batches)
        whole.end("apply batch", {"messaging.batch.message_count": count})

    def dead_letter(self) -> None:
        self._slot.add(metrics.DEAD_LETTERS)

    def interrupted(self, reason: str) -> None:
        """Note that nothing could be applied: ``unavailable`` or ``fence_lost``."""
        self._slot.add(metrics.INTERRUPTIONS, reason)

    def tell(
        self, generation: int, lag_commands: Mapping[int, int], assigned: int, stopped: Collection[int]
    ) -> None:
        """Publish where the worker is. Called once a second and after each batch, of which there may be many."""
        if time.monotonic() < self._next_tell:
            return
        self._next_tell = time.monotonic() + _TELL_EVERY_S
        self._slot.set(metrics.GENERATION, value=generation)
        self._slot.set(metrics.PARTITIONS, "read", value=assigned - len(stopped))
        self._slot.set(metrics.PARTITIONS, "stopped", value=len(stopped))
        self._slot.set(metrics.LAST_STEP, value=time.time())
        for partition, lag in lag_commands.items():
            self._slot.set(metrics.LAG, str(partition), value=lag)
        for partition in self._told - lag_commands.keys():
            self._slot.unset(metrics.LAG, str(partition))
        self._told = set(lag_commands)
        try:
            self._publish_progress(lag_commands, self._newest)
        except Unavailable as ex:
            log.debug("progress not published: %s", ex, extra={"event": "worker.progress_not_published"})


def _message(polled: Mapping[int, Sequence[Message]], partition: int, offset: int) -> Message:
    # What was applied of a partition is the beginning of what was polled, without gaps.
    messages = polled[partition]
    return messages[offset - messages[0].offset]


def _log_commands(polled: Mapping[int, Sequence[Message]], batches: Sequence[PartitionBatch]) -> None:
    """Write a line for each command, with the request that it came from."""
    for batch in batches:
        for offset, command in batch.commands:
            log.debug(
                "%s applied",
                command.kind,
                extra={
                    "event": "worker.command_applied",
                    "partition": batch.partition,
                    "offset": offset,
                    "todo_id": str(command.todo_id),
                    **origin(_message(polled, batch.partition, offset).headers),
                },
            )
