"""What a worker measures: told to the API processes through Redis, and to Prometheus."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from todo_api.core.errors import Unavailable
from todo_worker.applier import PartitionBatch

log = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 0.5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

PublishProgress = Callable[[Mapping[int, int], tuple[int, int] | None], None]


class WorkerTelemetry:
    """Hears from the worker's loop what happened, in its thread.

    ``publish_progress`` is ``PageCache.publish_progress``: it must be bounded, and its Unavailable is harmless.
    """

    def __init__(self, publish_progress: PublishProgress) -> None:
        self._publish_progress = publish_progress
        self._newest: tuple[int, int] | None = None
        self._next_tell = 0.0

    def applied(self, batches: Sequence[PartitionBatch]) -> None:
        """Note what one transaction applied."""
        now = datetime.now(UTC)
        issued = [command.issued_at for batch in batches for _, command in batch.commands]
        if issued:
            newest = max(issued)
            self._newest = ((newest - _EPOCH) // _MICROSECOND, max(0, (now - newest) // _MICROSECOND))

    def tell(self, lag_commands: Mapping[int, int]) -> None:
        """Publish where the worker is. Called once a second and after each batch, of which there may be many."""
        if time.monotonic() < self._next_tell:
            return
        self._next_tell = time.monotonic() + _TELL_EVERY_S
        try:
            self._publish_progress(lag_commands, self._newest)
        except Unavailable as ex:
            log.debug("progress not published: %s", ex, extra={"event": "worker.progress_not_published"})
