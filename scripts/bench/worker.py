"""How many commands a second the worker applies from a backlog."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psutil
import psycopg

from scripts.bench.measure import cpu_s, servers
from scripts.stack.kafka import LocalKafka
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import StackError, free_port
from scripts.stack.valkey import LocalValkey
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import make_publisher
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.commands import Command, Kind
from todo_api.core.ids import uuid7
from todo_api.core.migrations import migrate

TOPIC = "todo-commands"
PARTITIONS = 16
_CHUNK = 1_000
_GIVE_UP_S = 300.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One round. ``cpu_us`` is user and system time per command applied, by process."""

    commands: int
    seconds: float
    cpu_us: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.commands / self.seconds


class Bench:
    """Servers with an empty table, ready for one backlog after another."""

    def __init__(self, postgres: LocalPostgres, valkey: LocalValkey, kafka: LocalKafka) -> None:
        self._brokers = (kafka.bootstrap,)
        self._environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "KAFKA_BROKERS": kafka.bootstrap,
            "KAFKA_TODO_TOPIC": TOPIC,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "LOG_LEVEL": "warning",
        }
        self._processes: dict[str, psutil.Process] = {}
        migrate(postgres.url)
        ensure_topics(self._brokers, TOPIC, PARTITIONS)

    def watch(self, name: str, pid: int) -> None:
        """Count the CPU of this process and its children."""
        self._processes[name] = psutil.Process(pid)

    def fill(self, count: int) -> None:
        """Append ``count`` commands to the log."""
        publisher = make_publisher(
            "kafka", brokers=self._brokers, topic=TOPIC, partitions=PARTITIONS, redis_url="", timeout_s=30.0
        )
        publisher.start()
        try:
            commands = mixture(count)
            while chunk := [
                Record(command.key, command.encode())
                for command, _ in zip(commands, range(_CHUNK), strict=False)
            ]:
                for result in publisher.publish_many(chunk):
                    if isinstance(result, Exception):
                        raise result
        finally:
            publisher.close(5.0)

    def drain(self, workers: int) -> Figures:
        """Start ``workers`` processes and wait until everything in the log is applied.

        Timed from the first command applied, so that starting Python and joining the group are left out.
        """
        with psycopg.connect(self._environment["DATABASE_URL"], autocommit=True) as connection:
            start, end = _applied(connection), self._end()
            with _processes(workers, self._environment) as running:
                while _applied(connection) == start:
                    time.sleep(0.002)
                    _check(running)
                began, first, cpu = time.monotonic(), _applied(connection), self._cpu(running)
                while (now := _applied(connection)) < end:
                    if time.monotonic() - began > _GIVE_UP_S:
                        raise StackError(
                            f"only {now - start} of {end - start} commands applied in {_GIVE_UP_S} s"
                        )
                    time.sleep(0.01)
                    _check(running)
                seconds = time.monotonic() - began
                spent = self._cpu(running)
        count = end - first
        return Figures(count, seconds, {name: (spent[name] - cpu[name]) / count * 1e6 for name in cpu})

    def _end(self) -> int:
        from todo_api.core.command_log.connect import make_consumer

        consumer = make_consumer(
            "kafka", brokers=self._brokers, topic=TOPIC, partitions=PARTITIONS, redis_url="", group="bench"
        )
        try:
            return sum(consumer.end_offsets().values())
        finally:
            consumer.close(5.0)

    def _cpu(self, workers: list[subprocess.Popen[bytes]]) -> dict[str, float]:
        spent = {name: cpu_s(process) for name, process in self._processes.items()}
        return spent | {"worker": sum(cpu_s(psutil.Process(worker.pid)) for worker in workers)}


@contextmanager
def bench() -> Iterator[Bench]:
    """Start PostgreSQL, Valkey and Kafka in a temporary folder; stop them in the end."""
    with servers() as started:
        postgres = LocalPostgres(started.folder / "postgres", free_port())
        valkey = LocalValkey(started.folder / "valkey", free_port())
        kafka = LocalKafka(started.folder / "kafka", free_port(), free_port())
        pids = {server.name: started.start(server) for server in (postgres, valkey, kafka)}
        made = Bench(postgres, valkey, kafka)
        for server, pid in pids.items():
            made.watch(server, pid)
        yield made


@contextmanager
def _processes(count: int, environment: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    running = [
        subprocess.Popen([sys.executable, "-m", "todo_worker"], env=os.environ | environment)
        for _ in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def _check(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is not None:
            raise StackError(f"a worker exited with {worker.returncode}")


def _applied(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("select coalesce(sum(next_offset), 0)::bigint from applied").fetchone()
    assert row is not None
    return row[0]


def mixture(count: int) -> Iterator[Command]:
    """Yield ``count`` commands: 35 % creates, 55 % updates, 10 % deletes, as in the fault suite."""
    todos: list[UUID] = []
    for number in range(count):
        turn = number % 20
        if turn < 7 or not todos:
            todos.append(uuid7())
            yield _command(Kind.CREATE, todos[-1], title=f"Benchmark todo {number}", description="")
        elif turn < 18:
            todo_id = todos[-1 - number * 7 % min(len(todos), 2_000)]
            yield _command(Kind.UPDATE, todo_id, title=f"Changed {number}", completed=number % 2 == 0)
        else:
            yield _command(Kind.DELETE, todos.pop(-1 - number * 7 % min(len(todos), 2_000)))


def _command(kind: Kind, todo_id: UUID, **contents: object) -> Command:
    return Command(
        kind=kind,
        command_id=uuid7(),
        todo_id=todo_id,
        user_id="bench",
        issued_at=datetime.now(UTC),
        **contents,  # type: ignore[arg-type]
    )
