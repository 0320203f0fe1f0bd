"""How much of their idle speed reads keep while commands are applied."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Self

import psycopg

from config.settings import Settings
from scripts.bench.load import Generator, Plan, Refused, check_load
from scripts.bench.worker import mixture
from scripts.stack.server import wait_until
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import make_publisher
from todo_api.core.command_log.kafka_security import KafkaSecurity

APPLIED_PER_S: Final = 1_000
_CHUNK: Final = 50
# Those of three seconds, for one to be measured.
_RECORDS_MAX: Final = 3 * APPLIED_PER_S
# A machine's speed may change by half within seconds: what is compared is measured a second apart.
_SLICE_S: Final = 1
# The first batches reach the pages, and the pages their rhythm of refreshing.
_LEAD_S: Final = 0.5
_SETTLE_TIMEOUT_S: Final = 30.0
_PUBLISH_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second without writes, and with them; ``applied_per_s`` were written meanwhile, and applied."""

    idle_per_s: float
    busy_per_s: float
    applied_per_s: float

    @property
    def share(self) -> float:
        return self.busy_per_s / self.idle_per_s


def measure_round(settings: Settings, generator: Generator, plan: Plan) -> Round:
    """Run the plan without writes, and while 1,000 commands a second go into the log: a second of each in turn.

    The commands do not pass the API: the question is what applying them and refreshing the pages costs the reads.
    Raises Refused when a figure would mean nothing.
    """
    assert settings.database_url is not None
    piece = replace(plan, duration_s=_SLICE_S)
    idle: list[float] = []
    busy: list[float] = []
    applied_per_s: list[float] = []
    with psycopg.connect(settings.database_url, autocommit=True) as connection, _Writer(settings) as writer:

        def applied() -> int:
            row = connection.execute("select coalesce(sum(next_offset), 0)::bigint from applied").fetchone()
            assert row is not None
            return int(row[0])

        start = applied()
        for _ in range(plan.duration_s):
            idle.append(_requests_per_s(generator, piece, "without writes"))
            before, began = writer.published, time.monotonic()
            with writer.writing():
                time.sleep(_LEAD_S)
                busy.append(_requests_per_s(generator, piece, "under writes"))
                seconds = time.monotonic() - began
            # The next idle second must not be one of catching up.
            wait_until(
                lambda: applied() >= start + writer.published,
                _SETTLE_TIMEOUT_S,
                "all that was written is applied",
            )
            applied_per_s.append((writer.published - before) / seconds)
    return Round(*(statistics.fmean(figures) for figures in (idle, busy, applied_per_s)))


def _requests_per_s(generator: Generator, plan: Plan, how: str) -> float:
    load = generator.load(plan)
    check_load(load, f"{plan.url} {how}")
    return load.requests_per_s


class _Writer:
    """Appends 1,000 commands a second to the log, from a thread, while ``writing``."""

    def __init__(self, settings: Settings) -> None:
        self.published = 0
        self._publisher = make_publisher(
            settings.command_log,
            brokers=settings.kafka_brokers,
            topic=settings.kafka_todo_topic,
            partitions=settings.kafka_partitions,
            redis_url=settings.redis_url,
            security=KafkaSecurity(**settings.kafka_security),
            timeout_s=_PUBLISH_TIMEOUT_S,
        )
        self._commands = mixture(APPLIED_PER_S * 3600)
        self._records: list[Record] = []
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close(5.0)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write while the body runs. Raises Refused when the log took less."""
        # Made before anything is measured: making a command takes nearly as long as sending it.
        wanted = _RECORDS_MAX - len(self._records)
        self._records.extend(Record(each.key, each.encode()) for each in islice(self._commands, wanted))
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_PUBLISH_TIMEOUT_S + 1)
        if self._failure is not None:
            raise Refused(f"The log took no more commands: {self._failure}.") from self._failure

    def _run(self, stop: threading.Event) -> None:
        began, already = time.monotonic(), self.published
        while not stop.wait(max(0.0, began + (self.published - already) / APPLIED_PER_S - time.monotonic())):
            chunk = self._records[:_CHUNK]
            if not chunk:
                self._failure = RuntimeError(f"none of {_RECORDS_MAX} was left before a second was measured")
                return
            for result in self._publisher.publish_many(chunk):
                if isinstance(result, Exception):
                    self._failure = result
                    return
            del self._records[:_CHUNK]
            self.published += len(chunk)
