"""Real servers for the tests: one of each a session, on free ports, in temporary folders.

A test that breaks its server on purpose starts one of its own (``own_postgres``, ``own_valkey``).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest

from config.settings import Settings
from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import ServerProcess, free_port
from scripts.stack.valkey import LocalValkey
from tests.support.deployment import Servers
from tests.support.scheduling import Scheduling, order
from tests.support.secured_kafka import SecuredKafka
from todo_api.core.migrations import migrate

TEMPLATE = "todo_template"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault suite (tests/faults); `make faults` sets them."""
    group = parser.getgroup("faults")
    group.addoption(
        "--fault-row", help="numbers of rows, separated by commas, or 'all'; not given: the short selection"
    )
    group.addoption("--fault-seconds", type=float, default=2.0, help="how long a fault lasts")
    group.addoption("--fault-rounds", type=int, default=1, help="how often each row is run")
    group.addoption("--fault-results", type=Path, help="a folder for the figures as JSON and Markdown")
    group.addoption("--fault-writes", type=float, default=50.0, help="writes a second")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Schedule by file as ``make test`` asks for, with our groups of files; other ways stay as they are."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


class Running(NamedTuple):
    """A server of the tests: its address, and the process to break."""

    url: str
    process: ServerProcess


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> None:
    """Nothing of the caller's settings reaches a test; ``.env`` is not looked for (tests pass what they need)."""
    for name in [spec.metadata["env"] for spec in fields(Settings)] + [
        name for name in os.environ if name.startswith("OTEL_")
    ]:
        os.environ.pop(name, None)
    # A Kafka of the tests lives for a minute: the quick compiler alone is half of the processor time.
    os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"


def _postgres(folder: Path) -> Iterator[tuple[LocalPostgres, ServerProcess]]:
    server = LocalPostgres(folder / "postgres", free_port())
    process = ServerProcess(server, folder)
    try:
        process.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"create database {TEMPLATE}")
        migrate(server.database_url(TEMPLATE))
        yield server, process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """The session's PostgreSQL, with a migrated template database."""
    for server, _ in _postgres(tmp_path_factory.mktemp("postgres")):
        yield server


@contextmanager
def _database(postgres: LocalPostgres) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}")
        # Each test is another history; the template's epoch would be the same in all.
        yield postgres.database_url(name)
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def database_url(postgres: LocalPostgres) -> Iterator[str]:
    """A migrated, empty database of this test's own."""
    with _database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres: LocalPostgres) -> Iterator[str]:
    """A migrated, empty database for the tests of one module that only read what they put there first."""
    with _database(postgres) as url:
        yield url


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Running]:
    """A PostgreSQL to stop, freeze and kill; its URL names a migrated, empty database."""
    for server, process in _postgres(tmp_path):
        yield Running(server.database_url(TEMPLATE), process)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalValkey]:
    """The session's Valkey."""
    folder = tmp_path_factory.mktemp("valkey")
    server = LocalValkey(folder / "valkey", free_port())
    process = ServerProcess(server, folder)
    try:
        process.start()
        yield server
    finally:
        process.stop()


@pytest.fixture
def redis_url(valkey: LocalValkey) -> Iterator[str]:
    """The session's Valkey, emptied."""
    import redis

    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        yield valkey.url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Running]:
    """A Valkey to stop, freeze and kill."""
    server = LocalValkey(tmp_path / "valkey", free_port())
    process = ServerProcess(server, tmp_path)
    try:
        process.start()
        yield Running(server.url, process)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The session's Kafka."""
    folder = tmp_path_factory.mktemp("kafka")
    server = SecuredKafka(folder / "kafka", free_port(), free_port())
    process = ServerProcess(server, folder)
    try:
        process.start()
        yield server
    finally:
        process.stop()


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka: SecuredKafka) -> str:
    """The session's Kafka, as in KAFKA_BROKERS. Each test makes topics of its own."""
    return kafka.bootstrap


@pytest.fixture
def breakable_kafka(servers: Servers) -> Iterator[Running]:
    """A Kafka to stop, freeze and kill, mended afterwards; its URL is what goes into KAFKA_BROKERS."""
    yield Running(servers.kafka.bootstrap, servers.process("kafka"))
    servers.mend()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers for all tests of the whole product. A test may break them; they are mended after it."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        yield servers
    finally:
        servers.stop()
