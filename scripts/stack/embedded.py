"""The embedded stack: PostgreSQL, Valkey, perhaps Kafka and the relay, the worker and the API, started and stopped in
order."""

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from config import settings
from scripts.stack.folder import kept_ports, publish_environment
from scripts.stack.kafka import LocalKafka
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import LocalServer, StackError, wait_until
from scripts.stack.supervision import STOPPED_BY_ITSELF, Program, Supervision, tail
from scripts.stack.valkey import LocalValkey
from todo_api.core.errors import TodoError

DATABASE: Final = "todo"
_SERVER_TIMEOUT_S: Final = 60.0
_READY_TIMEOUT_S: Final = 60.0
_WATCH_INTERVAL_S: Final = 1.0

# Stages of the stop, the highest first. Their time limits together stay below 25 s.
_SERVERS, _WORKER, _RELAY, _API = 1, 2, 3, 4
_STOP_TIMEOUT_S: Final = {_SERVERS: 8.0, _WORKER: 8.0, _RELAY: 2.0, _API: 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user of the stack decides.

    ``brokers`` are Kafka's when somebody else runs it. ``jwt_secret`` is None when the API finds one by itself,
    in the environment or ``.env``.
    """

    http_port: int
    jwt_secret: str | None
    log_format: str
    processes: int
    kafka: bool = False
    brokers: str | None = None


class EmbeddedStack:
    """Everything that one Todo API needs, in one folder, as our children. Describing it starts nothing.

    ``announce`` is called with a line for a person at each step and whenever a program had to be restarted.
    """

    def __init__(self, folder: Path, choices: Choices, *, lock: int, announce: Callable[[str], None]) -> None:
        self._choices = choices
        self._announce = announce
        self._folder = folder.absolute()
        ports = kept_ports(folder, "postgres", "valkey", "kafka", "kafka_controller")
        self._postgres = LocalPostgres(self._folder / "postgres", ports["postgres"])
        self._valkey = LocalValkey(self._folder / "valkey", ports["valkey"])
        self._kafka = (
            LocalKafka(self._folder / "kafka", ports["kafka"], ports["kafka_controller"])
            if choices.kafka and choices.brokers is None
            else None
        )
        # Valkey's fsync serves all that wait for it, so only Kafka gains by a relay.
        self._relay_socket = _socket_path(self._folder) if choices.kafka else None
        self._lock = lock
        self._supervision: Supervision | None = None
        self._pids: dict[str, int] = {}

    @property
    def servers(self) -> list[LocalServer]:
        return [self._postgres, self._valkey, *([self._kafka] if self._kafka else [])]

    def start(self) -> None:
        """Start everything in order; blocks until the API answers that it is ready.

        Raises SettingsError, or StackError with the last lines of the log of what failed. Call ``stop`` whatever
        happens.
        """
        self._announce("Starting " + ", ".join(server.name for server in self.servers))
        for server in self.servers:
            server.prepare()
        environment = self._environment()
        # A wrong setting is named here and now, not in the log of a program that does not start.
        settings.load_settings("api", settings.environment() | environment)
        self._supervision = Supervision(self._folder, self._programs(environment), self._lock)
        self._supervision.start()
        for server in self.servers:
            self._supervision.start_program(server.name)
        for server in self.servers:
            self._wait([server.name], server.is_ready, _SERVER_TIMEOUT_S)
        self._make_schema(environment)
        publish_environment(self._folder, environment)
        if self._relay_socket is None:
            self._announce("Starting worker and API")
        else:
            self._announce("Starting relay, worker and API")
            self._relay_socket.unlink(missing_ok=True)
            self._supervision.start_program("relay")
            # Until it listens, writes would be refused.
            self._wait(["relay"], self._relay_socket.exists, _SERVER_TIMEOUT_S)
        self._supervision.start_program("worker")
        self._supervision.start_program("api")
        self._wait(["api", "worker"], lambda: takes_writes(self._choices.http_port), _READY_TIMEOUT_S)
        self._pids = {name: state.pid for name, state in self._supervision.keep_running().items()}

    def watch(self) -> None:
        """Keep everything running and announce restarts; blocks for ever. Raises StackError when it no longer can."""
        supervision = self._supervision
        assert supervision is not None
        while True:
            time.sleep(_WATCH_INTERVAL_S)
            for name, state in supervision.keep_running().items():
                if state.pid and self._pids.get(name) not in (0, state.pid):
                    self._announce(f"{name} had died and was started again; its log: {supervision.log(name)}")
                if state.pid:
                    self._pids[name] = state.pid

    def stop(self) -> None:
        """Stop the API, then relay, worker and servers. Blocks up to 25 s. May be called more than once."""
        if self._supervision is not None:
            self._supervision.stop()

    def _environment(self) -> dict[str, str]:
        """Return the settings of the API and the worker. Only after the servers are prepared."""
        choices = self._choices
        brokers = choices.brokers or (self._kafka.bootstrap if self._kafka else None)
        return {
            "HTTP_PORT": str(choices.http_port),
            "DATABASE_URL": self._postgres.database_url(DATABASE),
            "REDIS_URL": self._valkey.url,
            **({"JWT_SECRET": choices.jwt_secret} if choices.jwt_secret else {}),
            "LOG_FORMAT": choices.log_format,
            "WEB_CONCURRENCY": str(choices.processes),
            "COMMAND_LOG": "kafka" if brokers else "streams",
            **({"KAFKA_BROKERS": brokers} if brokers else {}),
            # Empty: no other relay, which the surroundings may name.
            "PUBLISHER_SOCKET": str(self._relay_socket or ""),
        }

    def _programs(self, environment: dict[str, str]) -> list[Program]:
        servers = [
            Program(
                name=server.name,
                command=server.command(),
                environment=server.environment(),
                stage=_SERVERS,
                stop_signal=server.stop_signal,
                stop_timeout_s=_STOP_TIMEOUT_S[_SERVERS],
            )
            for server in self.servers
        ]
        # APPSEC: for whoever sits here; gunicorn.conf.py listens for everybody.
        here = f"127.0.0.1:{self._choices.http_port}"
        python = {
            **({"relay": (_RELAY, ["todo_api.relay"])} if self._relay_socket else {}),
            "worker": (_WORKER, ["todo_worker"]),
            "api": (
                _API,
                ["gunicorn", "--config", "python:config.gunicorn_conf", "--bind", here, "wsgi:app"],
            ),
        }
        return servers + [
            Program(
                name=name,
                command=[sys.executable, "-m", *module],
                environment=environment,
                stage=stage,
                stop_signal=signal.SIGTERM,
                stop_timeout_s=_STOP_TIMEOUT_S[stage],
            )
            for name, (stage, module) in python.items()
        ]

    def _make_schema(self, environment: dict[str, str]) -> None:
        from todo_api.core.migrations import migrate

        try:
            with psycopg.connect(self._postgres.url, connect_timeout=5, autocommit=True) as connection:
                query = "select from pg_database where datname = %s"
                if connection.execute(query, (DATABASE,)).fetchone() is None:
                    connection.execute(f"create database {DATABASE}".encode())
            for name in migrate(environment["DATABASE_URL"]):
                self._announce(f"Applied migration {name}")
            if "KAFKA_BROKERS" in environment:
                self._make_topics(environment)
        except (TodoError, psycopg.Error) as ex:
            raise StackError(f"The database or the topic could not be made: {ex}") from ex

    def _make_topics(self, environment: dict[str, str]) -> None:
        from todo_api.core.command_log.kafka_security import KafkaSecurity
        from todo_api.core.command_log.topics import ensure_topics

        chosen = settings.load_settings("tool", settings.environment() | environment)
        ensure_topics(
            chosen.kafka_brokers,
            chosen.kafka_todo_topic,
            chosen.kafka_partitions,
            replication_factor=1,
            security=KafkaSecurity(**chosen.kafka_security),
        )

    def _wait(self, names: Sequence[str], condition: Callable[[], bool], timeout_s: float) -> None:
        supervision = self._supervision
        assert supervision is not None

        def arrived() -> bool:
            for name in names:
                state = supervision.state(name)
                if state.name in STOPPED_BY_ITSELF:
                    raise StackError(f"{name} stopped while starting:\n{tail(supervision.log(name))}")
            return condition()

        try:
            wait_until(arrived, timeout_s, " and ".join(names))
        except TimeoutError as ex:
            logs = "\n".join(tail(supervision.log(name)) for name in names)
            raise StackError(f"{' or '.join(names)} not ready within {timeout_s:.0f} s:\n{logs}") from ex


def takes_writes(port: int) -> bool:
    """Say whether the API at this port is ready and its command log is up. Blocks for 2 s at most.

    Ready by itself means ready to be read; whoever hears that the stack is up writes a todo next.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        report = json.loads(answer.read())
        return answer.status == http.HTTPStatus.OK and report["dependencies"]["log"]["state"] == "up"
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _socket_path(folder: Path) -> Path | None:
    """Return where the relay listens, None when the address of a socket is too short for that folder: without one
    writes are only dearer."""
    path = folder / "relay.sock"
    return path if len(os.fsencode(path)) <= settings.SOCKET_PATH_MAX_BYTES else None
