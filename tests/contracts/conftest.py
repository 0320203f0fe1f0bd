"""A command log on each real server, with a fresh topic for every test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from scripts.stack.server import ServerProcess, wait_until
from tests.support.deployment import Servers
from tests.support.thread_loop import thread_loop
from tests.support.unix_socket import wait_until_accepted
from todo_api.breaker import GuardedPublisher
from todo_api.core.command_log import Consumer, Message, Publisher
from todo_api.core.command_log.connect import (
    ACK_TIMEOUT_S,
    KafkaClient,
    Kind,
    make_consumer,
    make_publisher,
    make_relayed_publisher,
)
from todo_api.group_commit import GroupCommit
from todo_api.relay_server import Relay

PARTITIONS = 4
HEALTHY_TIMEOUT_S = 10.0
# The adapters: a log, or a client for it, and perhaps the relay in between (publishing only).
KINDS = [
    pytest.param("kafka-python", marks=pytest.mark.kafka),
    pytest.param("librdkafka", marks=pytest.mark.kafka),
    "streams",
]


@dataclass
class CommandLog:
    """One topic on one server; what it hands out is closed after the test."""

    kind: Kind
    address: str
    process: ServerProcess | None = None
    client: KafkaClient = "kafka-python"
    relay_socket: Path | None = None
    in_groups: bool = False
    topic: str = field(default_factory=lambda: f"test-{uuid4().hex[:12]}")
    _closables: list[Publisher | Consumer] = field(default_factory=list)

    def create(self) -> None:
        if self.kind == "kafka":
            from todo_api.core.command_log.topics import ensure_topics

            ensure_topics([self.address], self.topic, PARTITIONS)

    def publisher(self) -> Publisher:
        if self.relay_socket is None:
            publisher = self._direct_publisher()
        else:
            publisher = make_relayed_publisher(self.kind, topic=self.topic, socket=self.relay_socket)
        if self.in_groups:
            publisher = GroupCommit(publisher)
        self._closables.append(publisher)
        publisher.start()
        return publisher

    def _direct_publisher(self) -> Publisher:
        return make_publisher(
            self.kind,
            brokers=[self.address],
            topic=self.topic,
            partitions=PARTITIONS,
            redis_url=self.address,
            kafka_client=self.client,
            # How long a healthy server may take is no contract: this machine may be busy with anything.
            timeout_s=HEALTHY_TIMEOUT_S if self.process is None else ACK_TIMEOUT_S,
        )

    @contextmanager
    def relayed(self) -> Iterator[None]:
        """Publish through a relay meanwhile."""
        with TemporaryDirectory() as folder:
            self.relay_socket = Path(folder) / "relay.sock"
            publisher = GuardedPublisher(self._direct_publisher())
            publisher.start()
            relay = Relay(publisher, self.relay_socket)
            thread = threading.Thread(target=relay.run)
            thread.start()
            try:
                wait_until_accepted(self.relay_socket)
                yield
            finally:
                relay.stop()
                thread.join(10.0)
                publisher.close(1.0)
            assert not thread.is_alive()

    def consumer(self, group: str = "workers") -> Consumer:
        consumer = make_consumer(
            self.kind,
            brokers=[self.address],
            topic=self.topic,
            partitions=PARTITIONS,
            redis_url=self.address,
            kafka_client=self.client,
            group=f"{self.topic}-{group}",
        )
        self._closables.append(consumer)
        return consumer

    def close(self) -> None:
        for closable in self._closables:
            closable.close(1.0)

    def cut_front(self, partition: int, offset: int) -> None:
        """Take away what is before ``offset``, as retention does."""
        if self.kind == "kafka":
            from kafka import TopicPartition

            with _admin(self.address) as admin:
                admin.delete_records({TopicPartition(self.topic, partition): offset})
        else:
            with _redis(self.address) as client:
                client.xtrim(f"{{{self.topic}}}:{partition}", minid=f"{offset}-0", approximate=False)

    def make_anew(self) -> None:
        """Delete the log and make it again, empty."""
        if self.kind == "kafka":
            with _admin(self.address) as admin:
                admin.delete_topics([self.topic])
                wait_until(lambda: self.topic not in admin.list_topics(), 20.0, "topic gone")
            self.create()
        else:
            with _redis(self.address) as client:
                client.delete(*client.keys(f"{{{self.topic}}}:*"))


def _admin(bootstrap: str) -> Any:
    from kafka import KafkaAdminClient

    return KafkaAdminClient(bootstrap_servers=bootstrap)


def _redis(url: str) -> Any:
    from redis import Redis

    return Redis.from_url(url)


@contextmanager
def _command_log(adapter: str, address: str, process: ServerProcess | None = None) -> Iterator[CommandLog]:
    client, _, way = adapter.partition(" ")
    log = (
        CommandLog("streams", address, process)
        if client == "streams"
        else CommandLog("kafka", address, process, client=client)  # type: ignore[arg-type]
    )
    log.create()
    log.in_groups = way == "in groups"
    with log.relayed() if way == "relayed" else thread_loop() if log.in_groups else nullcontext():
        try:
            yield log
        finally:
            log.close()


# What stands in front of a publisher and knows nothing of it, so that one is enough; groups are made of one that only
# waits, and of one that takes records without.
IN_BETWEEN = [
    pytest.param("kafka-python relayed", marks=pytest.mark.kafka),
    "streams in groups",
    pytest.param("kafka-python in groups", marks=pytest.mark.kafka),
]


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest) -> Iterator[CommandLog]:
    """A fresh topic on the session's server."""
    if request.param.startswith("streams"):
        address = request.getfixturevalue("valkey").url
    else:
        address = request.getfixturevalue("kafka_bootstrap")
    with _command_log(request.param, address) as log:
        yield log


@pytest.fixture
def breakable_log(request: pytest.FixtureRequest, servers: Servers) -> Iterator[CommandLog]:
    """A fresh topic, through the adapter named, on a server to break and mend through ``process``."""
    kind: Kind = "streams" if request.param.startswith("streams") else "kafka"
    process = servers.log_process(kind)
    address = servers.valkey.url if kind == "streams" else servers.kafka.bootstrap
    with _command_log(request.param, address, process) as log:
        yield log
        process.resume()
    servers.mend()


def read(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[Message]:
    """Poll until ``count`` messages came; return them in the order of their partitions and offsets."""
    messages: list[Message] = []

    def enough() -> bool:
        for batch in consumer.poll(1_000, 0.2).values():
            messages.extend(batch)
        return len(messages) >= count

    wait_until(enough, timeout_s, f"{count} messages")
    assert len(messages) == count
    return sorted(messages, key=lambda message: (message.partition, message.offset))
