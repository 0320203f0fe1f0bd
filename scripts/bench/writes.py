"""How many writes a second are accepted and applied: ways to run this API, and a peer, on one broker."""

import json
import platform
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
import psycopg

from config.settings import load_settings
from scripts.bench.load import Load, Plan, check_load
from scripts.bench.measure import Servers, cpu_s, servers
from scripts.bench.peers import FastApiWrites
from scripts.bench.product import Api, Worker
from scripts.bench.writes_visibility import Visibility
from scripts.bench.wrk import Wrk
from scripts.stack.kafka import LocalKafka, kafka_version
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import free_port, wait_until
from scripts.stack.valkey import LocalValkey
from scripts.tokens import sign_token
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.migrations import migrate

PARTITIONS: Final = 16
CONNECTIONS: Final = 64
_PEER_TOPIC: Final = "peer-commands"
_WARM_UP_S: Final = 2
_CATCH_UP_MAX_S: Final = 180.0
# One is at work, one waits: the process is never idle, and no request waits long.
_BATCH_CONNECTIONS: Final = 2
_TODO: Final = {"title": "Write the report", "description": "Two pages about the last quarter. " * 3}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to take writes. ``client`` is KAFKA_CLIENT; without one it is the peer.

    ``items`` is how many writes a request asks for: more than 1 go to ``/todos/batch``, of one API process.
    """

    name: str
    client: str | None = None
    relay: bool = False
    items: int = 1


PEER: Final = Way("FastAPI + aiokafka")
WAYS: Final = (
    PEER,
    Way("kafka-python", "kafka-python"),
    Way("kafka-python, relay", "kafka-python", relay=True),
    Way("librdkafka", "librdkafka"),
    Way("librdkafka, relay", "librdkafka", relay=True),
    Way("kafka-python, batches of 500, 1 process", "kafka-python", items=500),
    Way("librdkafka, batches of 500, 1 process", "librdkafka", items=500),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one way. CPU is in seconds, by process.

    ``load`` is without a worker, as the peer has none; ``whole`` with one, which applied ``applied`` commands
    meanwhile; afterwards it caught up with ``caught_up_per_s``.
    """

    load: Load
    cpu_s: Mapping[str, float]
    memory_bytes: int
    whole: Load | None = None
    whole_cpu_s: Mapping[str, float] = field(default_factory=dict)
    applied: int = 0
    caught_up_per_s: float = 0.0
    visible_s: tuple[float, ...] = ()


class Relay:
    """``python -m todo_api.relay``, ready when its socket is there."""

    name = "relay"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 10.0

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = dict(settings)

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        return [sys.executable, "-m", "todo_api.relay"]

    def environment(self) -> dict[str, str]:
        return self._settings

    def is_ready(self) -> bool:
        return Path(self._settings["PUBLISHER_SOCKET"]).exists()


class Bench:
    """PostgreSQL, Valkey and Kafka, ready for one way after another. ``left_out`` says why the peer is missing."""

    def __init__(self, started: Servers, processes: int, peer_folder: Path) -> None:
        self._folder = started.folder
        self._processes = processes
        self._peer_folder = peer_folder
        self._wrk = Wrk()
        postgres = LocalPostgres(self._folder / "postgres", free_port())
        valkey = LocalValkey(self._folder / "valkey", free_port())
        kafka = LocalKafka(self._folder / "kafka", free_port(), free_port())
        self._common = {
            server.name: psutil.Process(started.start(server)) for server in (postgres, valkey, kafka)
        }
        migrate(postgres.url)
        # An empty value is the default: whatever the caller's environment and .env say, two runs measure the same.
        self._settings = dict.fromkeys(load_settings("tool", {}).shown(), "") | {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "KAFKA_BROKERS": kafka.bootstrap,
            "JWT_SECRET": secrets.token_hex(32),
            "LOG_LEVEL": "warning",
            "GUNICORN_CMD_ARGS": "",
        }
        chosen = load_settings("tool", self._settings)
        for topic in (chosen.kafka_todo_topic, _PEER_TOPIC):
            ensure_topics(chosen.kafka_brokers, topic, PARTITIONS)
        self._headers = {
            "Authorization": f"Bearer {sign_token(chosen, 'bench', timedelta(days=1))}",
            "Content-Type": "application/json",
        }
        self._connection = psycopg.connect(postgres.url, autocommit=True)

    @property
    def versions(self) -> str:
        return ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {version(name)}" for name in ("gunicorn", "kafka-python", "confluent-kafka")),
                f"Kafka {kafka_version()}",
                FastApiWrites().version,
                self._wrk.version,
            ]
        )

    def close(self) -> None:
        self._connection.close()

    def measure(self, way: Way, seconds: int) -> Sample:
        """Start what the way needs, load it, stop it. Raises StackError, or Refused when the figures mean nothing."""
        with ExitStack() as stack:
            started = Servers(self._folder, stack)
            if way.client is None:
                return self._measure_peer(started, seconds)
            settings = self._settings | {"KAFKA_CLIENT": way.client}
            processes = {name: self._common[name] for name in ("kafka",)}
            if way.relay:
                settings["PUBLISHER_SOCKET"] = str(self._folder / "relay.sock")
                processes["relay"] = psutil.Process(started.start(Relay(settings)))
            api = Api(free_port(), settings, self._processes if way.items == 1 else 1)
            processes["API"] = psutil.Process(started.start(api))
            self._load(api.port, _WARM_UP_S, way.items)
            load, spent = self._measured(lambda: self._load(api.port, seconds, way.items), processes)
            check_load(load, way.name)
            memory = _memory(processes["API"]) + (_memory(processes["relay"]) if way.relay else 0)
            processes["worker"] = psutil.Process(started.start(Worker(settings)))
            processes["postgres"] = self._common["postgres"]
            caught_up_per_s = self._catch_up()
            before = self._applied()
            with Visibility(api.port, self._headers) as visibility:
                whole, whole_spent = self._measured(
                    lambda: self._load(api.port, seconds, way.items), processes
                )
                applied = self._applied() - before
            check_load(whole, f"{way.name}, with a worker")
            self._catch_up()
            return Sample(
                load=load, cpu_s=spent, memory_bytes=memory, whole=whole, whole_cpu_s=whole_spent,
                applied=applied, caught_up_per_s=caught_up_per_s, visible_s=tuple(visibility.seconds),
            )  # fmt: skip

    def _measure_peer(self, started: Servers, seconds: int) -> Sample:
        peer, cores = FastApiWrites(), psutil.cpu_count() or 1
        peer.install(self._peer_folder)
        settings = self._settings | {"KAFKA_TODO_TOPIC": _PEER_TOPIC}
        # A process of one loop takes a core; more of them only share the batches less.
        server = peer.server(self._peer_folder, free_port(), settings, cores)
        processes = {"API": psutil.Process(started.start(server)), "kafka": self._common["kafka"]}
        self._load(server.port, _WARM_UP_S)
        load, spent = self._measured(lambda: self._load(server.port, seconds), processes)
        check_load(load, peer.name)
        return Sample(load=load, cpu_s=spent, memory_bytes=_memory(processes["API"]))

    def _load(self, port: int, seconds: int, items: int = 1) -> Load:
        url, body, connections = f"http://127.0.0.1:{port}/todos", json.dumps(_TODO), CONNECTIONS
        if items > 1:
            url += "/batch"
            body = json.dumps({"items": [{"action": "create", **_TODO}] * items})
            connections = _BATCH_CONNECTIONS
        return self._wrk.load(
            Plan(url=url, duration_s=seconds, connections=connections, headers=self._headers, body=body)
        )

    def _measured(
        self, load: Callable[[], Load], processes: Mapping[str, psutil.Process]
    ) -> tuple[Load, dict[str, float]]:
        before = {name: cpu_s(process) for name, process in processes.items()}
        done = load()
        return done, {name: cpu_s(process) - before[name] for name, process in processes.items()}

    def _applied(self) -> int:
        row = self._connection.execute(
            "select coalesce(sum(next_offset), 0)::bigint from applied where log = 'kafka:todo-commands'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _catch_up(self) -> float:
        """Wait until everything in the log is applied; return commands a second, from the first one applied."""
        end, start = self._end(), self._applied()
        if start == end:
            return 0.0
        wait_until(lambda: self._applied() > start, _CATCH_UP_MAX_S, "the first command applied")
        first, began = self._applied(), time.monotonic()
        wait_until(lambda: self._applied() >= end, _CATCH_UP_MAX_S, "the worker to catch up")
        return (end - first) / (time.monotonic() - began)

    def _end(self) -> int:
        from todo_api.core.command_log.connect import make_consumer

        consumer = make_consumer(
            "kafka", brokers=[self._settings["KAFKA_BROKERS"]], topic="todo-commands", partitions=PARTITIONS,
            redis_url="", group="bench",
        )  # fmt: skip
        try:
            return sum(consumer.end_offsets().values())
        finally:
            consumer.close(5.0)


@contextmanager
def bench(processes: int, peer_folder: Path) -> Iterator[Bench]:
    """Start PostgreSQL, Valkey and Kafka in a temporary folder; stop them in the end. Raises StackError."""
    with servers() as started:
        made = Bench(started, processes, peer_folder)
        try:
            yield made
        finally:
            made.close()


def _memory(process: psutil.Process) -> int:
    """Return the memory of the process and its descendants; what they share counts once (PSS), where that is known."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        full = one.memory_full_info()
        total += getattr(full, "pss", full.uss)
    return total
