"""How much of their idle speed reads keep while commands are applied."""

import threading
import time
from dataclasses import dataclass
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
# The first batches reach the pages, and the pages their rhythm of refreshing.
_LEAD_S: Final = 1.0
_SETTLE_TIMEOUT_S: Final = 30.0
_PUBLISH_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second without writes, and with them; ``applied_per_s`` is what the worker applied meanwhile."""

    idle_per_s: float
    busy_per_s: float
    applied_per_s: float

    @property
    def share(self) -> float:
        return self.busy_per_s / self.idle_per_s


def measure_round(settings: Settings, generator: Generator, plan: Plan) -> Round:
    """Run the plan without writes, then while 1,000 commands a second go into the log.

    The commands do not pass the API: the question is what applying them and refreshing the pages costs the reads.
    Raises Refused when a figure would mean nothing.
    """
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url, autocommit=True) as connection:

        def applied() -> int:
            row = connection.execute("select coalesce(sum(next_offset), 0)::bigint from applied").fetchone()
            assert row is not None
            return int(row[0])

        idle = generator.load(plan)
        check_load(idle, f"{plan.url} without writes")
        start = applied()
        with _Writer(settings) as writer:
            time.sleep(_LEAD_S)
            before, began = applied(), time.monotonic()
            busy = generator.load(plan)
            applied_per_s = (applied() - before) / (time.monotonic() - began)
        check_load(busy, f"{plan.url} under writes")
        # The next idle run must not be one of catching up.
        wait_until(
            lambda: applied() >= start + writer.published,
            _SETTLE_TIMEOUT_S,
            "all that was written is applied",
        )
    return Round(idle.requests_per_s, busy.requests_per_s, applied_per_s)


class _Writer:
    """Appends 1,000 commands a second to the log, from a thread, until it is left."""

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
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._publisher.start()
        self._thread.start()
        return self

    def __exit__(self, kind: object, _ex: object, _traceback: object) -> None:
        self._stop.set()
        self._thread.join(_PUBLISH_TIMEOUT_S + 1)
        self._publisher.close(5.0)
        if self._failure is not None and kind is None:
            raise Refused(f"The log took no more commands: {self._failure}.") from self._failure

    def _run(self) -> None:
        commands = mixture(APPLIED_PER_S * 3600)
        began = time.monotonic()
        while not self._stop.wait(max(0.0, began + self.published / APPLIED_PER_S - time.monotonic())):
            chunk = [Record(command.key, command.encode()) for command in islice(commands, _CHUNK)]
            for result in self._publisher.publish_many(chunk):
                if isinstance(result, Exception):
                    self._failure = result
                    return
            self.published += len(chunk)
