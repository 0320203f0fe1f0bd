"""What only the adapters on librdkafka have to cope with."""

import logging
import time
from uuid import uuid4

import psutil
import pytest
from confluent_kafka import KafkaError

from scripts.stack.server import free_port, wait_until
from tests.support.publishers import publishers
from todo_api.core.command_log import Position, Record
from todo_api.core.command_log.connect import make_consumer, make_publisher
from todo_api.core.command_log.librdkafka_publisher import LibrdkafkaPublisher
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.errors import LogUnavailable

pytestmark = pytest.mark.kafka

RECORD = Record(b"key", b"value")


@pytest.fixture
def publisher():
    """Make publishers; they are closed after the test."""
    yield from publishers(LibrdkafkaPublisher)


@pytest.fixture
def topic(kafka_bootstrap):
    name = f"test-{uuid4().hex[:12]}"
    ensure_topics([kafka_bootstrap], name, 4)
    return name


def published(publisher):
    try:
        publisher.publish(RECORD)
    except LogUnavailable:
        return False
    return True


def test_making_one_opens_nothing(publisher):
    before = psutil.Process().num_threads()
    made = publisher(f"127.0.0.1:{free_port()}", "topic")
    assert psutil.Process().num_threads() == before
    with pytest.raises(LogUnavailable, match="not started"):
        made.publish(RECORD)


def test_a_topic_that_is_not_there_is_never_made(kafka_bootstrap, publisher):
    made = publisher(kafka_bootstrap, f"test-{uuid4().hex[:12]}")
    made.start()
    for call in (lambda: made.publish(RECORD), made.probe):
        with pytest.raises(LogUnavailable):
            call()
    ensure_topics([kafka_bootstrap], made.log.removeprefix("kafka:"), 1)
    wait_until(lambda: published(made), 20.0, "publishing to the topic made meanwhile")


def test_a_key_goes_where_kafka_python_sends_it(kafka_bootstrap, topic, publisher):
    other = make_publisher("kafka", brokers=[kafka_bootstrap], topic=topic, partitions=4, redis_url="")
    made = publisher(kafka_bootstrap, topic)
    records = [Record(key, b"") for key in (b"", *(uuid4().hex.encode() for _ in range(50)))]
    other.start()
    made.start()
    try:
        wait_until(lambda: published(made), 20.0, "the first record")
        theirs, ours = other.publish_many(records), made.publish_many(records)
    finally:
        other.close(1.0)
    assert _partitions(ours) == _partitions(theirs)


def _partitions(results):
    return [result.partition if isinstance(result, Position) else result for result in results]


def test_both_clients_share_the_partitions_of_one_group(kafka_bootstrap, topic):
    consumers = [
        make_consumer(
            "kafka", brokers=[kafka_bootstrap], topic=topic, partitions=4, redis_url="", group=topic,
            kafka_client=client,
        )
        for client in ("kafka-python", "librdkafka")
    ]  # fmt: skip

    def shared():
        for consumer in consumers:
            consumer.poll(1, 0.1)
        first, second = (consumer.assignment() for consumer in consumers)
        return len(first) == len(second) == 2 and first | second == frozenset(range(4))

    try:
        wait_until(shared, 30.0, "two partitions each")
    finally:
        for consumer in consumers:
            consumer.close(1.0)


@pytest.mark.faults
@pytest.mark.slow
def test_nobody_waits_for_the_member_it_was_before_the_broker_went_away(servers, caplog):
    process, name = servers.process("kafka"), f"test-{uuid4().hex[:12]}"
    bootstrap = servers.kafka.bootstrap
    ensure_topics([bootstrap], name, 4)
    consumer = make_consumer(
        "kafka",
        brokers=[bootstrap],
        topic=name,
        partitions=4,
        redis_url="",
        group=name,
        kafka_client="librdkafka",
    )

    def assigned():
        consumer.poll(1, 0.1)
        return len(consumer.assignment())

    try:
        with caplog.at_level(logging.INFO):
            wait_until(lambda: assigned() == 4, 30.0, "a member")
            process.kill()
            wait_until(lambda: assigned() == 0, 30.0, "its session over")
            process.start()
            wait_until(lambda: assigned() == 4, 30.0, "a member again")
    finally:
        consumer.close(1.0)
        servers.mend()
    # That it left tells that it was still there: a session that had ended would be no member.
    assert "has left" in caplog.text


def test_a_producer_that_gave_up_is_replaced(kafka_bootstrap, topic, publisher):
    made = publisher(kafka_bootstrap, topic)
    made.start()
    wait_until(lambda: published(made), 20.0, "the first record")
    dead = made._producer
    # What librdkafka answers from then on; making it mean that needs a broker with defects.
    made._failed(dead, KafkaError(KafkaError._FATAL, "lost", fatal=True))
    assert made._producer is not dead
    wait_until(lambda: published(made), 20.0, "publishing through the new one")


def test_what_does_not_fit_into_the_queue_waits_for_room(kafka_bootstrap, topic, publisher, monkeypatch):
    monkeypatch.setattr("todo_api.core.command_log.librdkafka_publisher._QUEUE_MAX_RECORDS", 10)
    made = publisher(kafka_bootstrap, topic)
    made.start()
    wait_until(lambda: published(made), 20.0, "the first record")
    results = made.publish_many([RECORD] * 200)
    assert all(isinstance(result, Position) for result in results), results
    # Where nothing leaves the queue, the wait is bounded.
    away = publisher(f"127.0.0.1:{free_port()}", topic)
    away.start()
    began = time.monotonic()
    assert {type(result) for result in away.publish_many([RECORD] * 200)} == {LogUnavailable}
    assert time.monotonic() - began < 5.0
