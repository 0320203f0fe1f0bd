"""The product as a benchmark needs it: its servers, the worker and API instances, with every setting at its default."""

import http.client
import json
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg

from config.settings import load_settings
from scripts.bench.measure import Servers
from scripts.stack.kafka import LocalKafka
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import StackError, free_port
from scripts.stack.valkey import LocalValkey
from scripts.verbs.seed import insert_seed
from todo_api.core.cache import PageCache
from todo_api.core.migrations import migrate


def start_product(started: Servers, *, todos: int, kafka: bool = False) -> dict[str, str]:
    """Start PostgreSQL, Valkey and the worker over ``todos`` todos; return the settings for the API.

    Commands wait in Kafka, or else in Valkey Streams. Raises StackError when something does not start.
    """
    postgres = LocalPostgres(started.folder / "postgres", free_port())
    valkey = LocalValkey(started.folder / "valkey", free_port())
    started.start(postgres)
    started.start(valkey)
    migrate(postgres.url)
    with psycopg.connect(postgres.url) as connection:
        insert_seed(connection, "bench", range(todos))
    # An empty value is the default: whatever the caller's environment and .env say, two runs measure the same.
    settings = dict.fromkeys(load_settings("tool", {}).shown(), "")
    settings |= {
        "DATABASE_URL": postgres.url,
        "REDIS_URL": valkey.url,
        "COMMAND_LOG": "streams",
        "JWT_SECRET": secrets.token_hex(32),
        "GUNICORN_CMD_ARGS": "",
    }
    if kafka:
        from todo_api.core.command_log.topics import ensure_topics

        broker = LocalKafka(started.folder / "kafka", free_port(), free_port())
        started.start(broker)
        settings |= {"COMMAND_LOG": "kafka", "KAFKA_BROKERS": broker.bootstrap}
        chosen = load_settings("tool", settings)
        ensure_topics(chosen.kafka_brokers, chosen.kafka_todo_topic, chosen.kafka_partitions)
    started.start(Worker(settings))
    return settings


class Api:
    """``gunicorn wsgi:app`` with ``processes`` workers, ready when ``/ready`` says so."""

    stop_signal = signal.SIGTERM
    stop_timeout_s = 25.0

    def __init__(self, port: int, settings: Mapping[str, str], processes: int) -> None:
        self.name = f"api-{port}"
        self.port = port
        self._settings = {**settings, "WEB_CONCURRENCY": str(processes)}

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        options = ["--config", "python:config.gunicorn_conf", "--bind", f"127.0.0.1:{self.port}"]
        return [sys.executable, "-m", "gunicorn", *options, "wsgi:app"]

    def environment(self) -> dict[str, str]:
        return self._settings

    def is_ready(self) -> bool:
        try:
            return get(self.port, "/ready", timeout_s=1.0)[0] == 200
        except OSError:
            return False


class Worker:
    """``python -m todo_worker``, ready when it has published the generation in Redis."""

    name = "worker"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 25.0

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._cache = PageCache(settings["REDIS_URL"], pool_size=2, ttl_s=300)

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        return [sys.executable, "-m", "todo_worker"]

    def environment(self) -> dict[str, str]:
        return self._settings

    def is_ready(self) -> bool:
        try:
            return self._cache.state() is not None
        finally:
            self._cache.close()


def worker_class(output: Path) -> str:
    """Return gunicorn's worker class as the API names it when it starts, from the output of ``Api``.

    Raises StackError when it does not.
    """
    for line in output.read_text(errors="replace").splitlines():
        if '"api.start"' in line:
            return str(json.loads(line)["worker_class"])
    raise StackError(f"The API did not say in {output} how it is set up.")


def get(
    port: int, target: str, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> tuple[int, bytes]:
    """Return status and body of one GET. Raises OSError when nobody answers in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", target, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as ex:
        raise ConnectionError(f"no HTTP from port {port}") from ex
    finally:
        connection.close()
