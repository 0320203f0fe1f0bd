"""The whole product as processes, for end-to-end tests: real servers, gunicorn, the worker, and their settings."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import redis

from scripts.stack.kafka import LocalKafka, Proxied
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import LocalServer, ServerProcess, free_port, wait_until
from scripts.stack.valkey import LocalValkey
from tests.support.gunicorn import GunicornProcess
from tests.support.http_client import Client
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.migrations import migrate

ROOT = Path(__file__).parents[2]
# What a program needs of the caller's environment; no setting of ours is among it.
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
PARTITIONS = 4

Kind = Literal["kafka", "streams"]


class Servers:
    """PostgreSQL, Valkey and (once asked for) Kafka, for tests that break them: ``mend`` makes them whole again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = LocalPostgres(folder / "postgres", free_port())
        self.valkey = LocalValkey(folder / "valkey", free_port())
        self.kafka_proxied = Proxied(port=free_port(), proxy_port=free_port())
        """Where a proxy in front of Kafka has to stand. Kafka itself can always be reached directly, too."""
        self.kafka = LocalKafka(folder / "kafka", free_port(), free_port(), proxied=self.kafka_proxied)
        self._processes: dict[str, ServerProcess] = {}

    def process(self, name: Literal["postgres", "valkey", "kafka"]) -> ServerProcess:
        """Return the running server, started when it was not yet."""
        if name not in self._processes:
            server: LocalServer = getattr(self, name)
            self._processes[name] = ServerProcess(server, self.folder)
            self._processes[name].start()
        return self._processes[name]

    def log_process(self, kind: Kind) -> ServerProcess:
        """Return the server that holds the command log."""
        return self.process("kafka" if kind == "kafka" else "valkey")

    def mend(self) -> None:
        """Resume what is frozen and start what is dead."""
        for process in self._processes.values():
            process.resume()
            if not process.server.is_ready():
                process.stop()
                process.start()

    def stop(self) -> None:
        for process in self._processes.values():
            process.stop()

    def kill(self) -> None:
        """SIGKILL them all."""
        for process in self._processes.values():
            process.kill()

    def starters(self) -> list[Callable[[], None]]:
        """Return what starts each of them again."""
        return [process.start for process in self._processes.values()]

    @contextmanager
    def settings(self, kind: Kind) -> Iterator[dict[str, str]]:
        """Yield the settings of a new deployment: an empty migrated database, an empty cache, an empty log."""
        self.process("postgres")
        self.process("valkey")
        self.log_process(kind)
        name = f"e2e_{uuid4().hex[:12]}"
        env = {
            "DATABASE_URL": self.postgres.database_url(name),
            "REDIS_URL": self.valkey.url,
            "COMMAND_LOG": kind,
            "KAFKA_BROKERS": self.kafka.bootstrap,
            "KAFKA_TODO_TOPIC": f"e2e-{uuid4().hex[:12]}",
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "JWT_SECRET": secrets.token_hex(32),
        }
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        migrate(env["DATABASE_URL"])
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
        if kind == "kafka":
            ensure_topics([self.kafka.bootstrap], env["KAFKA_TODO_TOPIC"], PARTITIONS)
        try:
            yield env
        finally:
            self.mend()
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                connection.execute(f"drop database {name} with (force)")


def read_rows(database_url: str) -> list[dict[str, object]]:
    """Return the todos in PostgreSQL, in the order of the list, with their versions."""
    statement = """
        select id::text, title, description, completed, user_id, version, updated_at::text from todos
        order by created_at desc, id desc
    """
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(statement).fetchall()


class WorkerProcess:
    """``python -m todo_worker``, started and killed; its output is kept in ``<folder>/worker.out``."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self._output_path = folder / "worker.out"
        self._output_begins = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        return self._output_path.read_text(errors="replace") if self._output_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def has_begun(self) -> bool:
        """Whether it has said, since the last start, that it works; a signal before that ends it as it ends anyone."""
        return "worker.start" in self.output[self._output_begins :]

    def start(self, **settings: str) -> None:
        """Start it, with these settings besides its own, and return at once."""
        self._output_begins = len(self.output)
        with self._output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "todo_worker"],
                cwd=self._folder,
                env=INHERITED | self._env | settings | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def leave(self) -> None:
        """Stop it with SIGTERM if it runs; the limit of 10 s is for a worker whose servers are broken."""
        if self._process is not None and self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop(10)

    def stop(self, timeout_s: float) -> int:
        """Stop it with SIGTERM and return its exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None, "not started"
        self._process.terminate()
        return self._process.wait(timeout_s)


class Deployment:
    """One API (``processes`` gunicorn workers) and one worker over ``env``. Use it as a context manager.

    They are started from ``folder``, which holds their output. When it is left in order, the output is searched
    for secrets and for answers 500.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], secret: str, processes: int = 1) -> None:
        self.env = dict(env)
        self._secret = secret
        self._processes = processes
        arguments = ["--config", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
        environment = INHERITED | self.env | {"WEB_CONCURRENCY": str(processes)}
        self.gunicorn = GunicornProcess(arguments, folder, environment)
        self.worker = WorkerProcess(folder, self.env)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """A client with the token of one user, ann."""
        if self._client is None:
            self._client = Client(self.gunicorn.host, self.gunicorn.port, self._secret)
        return self._client

    @property
    def output(self) -> str:
        return self.gunicorn.output + self.worker.output

    def rows(self) -> list[dict[str, object]]:
        """Return the todos in PostgreSQL, in the order of the list, with their versions."""
        return read_rows(self.env["DATABASE_URL"])

    def assert_output_is_clean(self) -> None:
        """No secret, no password, no token, no answer 500 in what the processes wrote."""
        output = self.output
        for what in self.secrets():
            assert what not in output, "a secret is in the output"
        assert "request.failed" not in output, output

    def secrets(self) -> list[str]:
        """Return everything that must never be shown: the JWT secret, the passwords, the client's token."""
        passwords = [urlsplit(self.env.get(name, "")).password for name in ("DATABASE_URL", "REDIS_URL")]
        return [self._secret, self.client.token, *[password for password in passwords if password]]

    def __enter__(self) -> "Deployment":
        self.worker.start()
        try:
            self.gunicorn.start(self._processes)
            wait_until(lambda: self.client.get("/ready").status == 200, 30, "ready")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: object, _ex: object, _traceback: object) -> None:
        # A worker that was killed would stay in its Kafka group for 10 s, and the next one would wait for that.
        self.worker.leave()
        self.kill()
        if kind is None:
            self.assert_output_is_clean()

    def kill(self) -> None:
        self.gunicorn.kill()
        self.worker.kill()


def kill_process(pid: int) -> None:
    """SIGKILL one process by its id; it may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
