"""What only the Kafka publisher has to cope with."""

import threading
import time
from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from scripts.stack.server import free_port, wait_until
from tests.support.publishers import publishers
from todo_api.core.command_log import Record, kafka_publisher
from todo_api.core.command_log.kafka_publisher import KafkaPublisher
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.errors import LogUnavailable, RecordTooLarge

pytestmark = pytest.mark.kafka

RECORD = Record(b"key", b"value")


@pytest.fixture
def publisher():
    """Make publishers; they are closed after the test."""
    yield from publishers(KafkaPublisher)


def test_making_one_opens_nothing(publisher):
    threads = set(threading.enumerate())
    made = publisher(f"127.0.0.1:{free_port()}", "topic")
    assert set(threading.enumerate()) == threads
    with pytest.raises(LogUnavailable, match="not started"):
        made.publish(RECORD)


def test_a_topic_that_is_not_there_is_never_made(kafka_bootstrap, publisher):
    made = publisher(kafka_bootstrap, f"test-{uuid4().hex[:12]}")
    made.start()
    for call in (lambda: made.publish(RECORD), made.probe, lambda: made.publish(RECORD)):
        with pytest.raises(LogUnavailable):
            call()
    ensure_topics([kafka_bootstrap], made.log.removeprefix("kafka:"), 1)
    wait_until(lambda: _published(made), 20.0, "publishing to the topic made meanwhile")


def test_records_appended_together_wake_the_sender_once(kafka_bootstrap, publisher, monkeypatch):
    topic = f"test-{uuid4().hex[:12]}"
    ensure_topics([kafka_bootstrap], topic, 4)
    made = publisher(kafka_bootstrap, topic)
    made.start()
    wait_until(lambda: _published(made), 20.0, "the first record")
    woken_by = []
    network = made._sender._net
    wakeup = network.wakeup

    def recorded_wakeup():
        woken_by.append(threading.get_ident())
        wakeup()

    monkeypatch.setattr(network, "wakeup", recorded_wakeup)
    positions = made.publish_many([Record(b"key %d" % number, b"value") for number in range(40)])
    assert {position.partition for position in positions} == {0, 1, 2, 3}
    assert woken_by.count(threading.get_ident()) == 1


def test_a_topic_that_takes_less_than_a_batch_gets_each_record_alone(kafka_bootstrap, publisher):
    topic = f"test-{uuid4().hex[:12]}"
    with closing(KafkaAdminClient(bootstrap_servers=kafka_bootstrap)) as administrator:
        settings = {"max.message.bytes": "1000"}
        administrator.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    made = publisher(kafka_bootstrap, topic)
    made.start()
    wait_until(lambda: _published(made), 20.0, "the first record")
    large = Record(b"key", b"x" * 2_000)
    small = [Record(b"key", b"%d" % number + b"x" * 500) for number in range(6)]
    results = made.publish_many([*small[:3], large, *small[3:]])
    assert isinstance(results.pop(3), RecordTooLarge)
    offsets = [result.offset for result in results]
    assert offsets == sorted(set(offsets))


def _published(publisher: KafkaPublisher) -> bool:
    try:
        publisher.publish(RECORD)
    except LogUnavailable:
        return False
    return True


@pytest.mark.faults
def test_a_frozen_broker_costs_no_processor_time(breakable_kafka, publisher):
    topic = f"test-{uuid4().hex[:12]}"
    ensure_topics([breakable_kafka.url], topic, 1)
    made = publisher(breakable_kafka.url, topic)
    made.start()
    made.publish(RECORD)
    breakable_kafka.process.freeze()
    with pytest.raises(LogUnavailable):
        made.publish(RECORD)  # Its connection is given up; the next one is accepted and never answered.
    began_s, processor_s = time.monotonic(), time.process_time()
    with pytest.raises(LogUnavailable):
        made.publish(RECORD)
    # Half would be much; the library left to itself takes all of a core.
    assert time.process_time() - processor_s < (time.monotonic() - began_s) / 2


@pytest.mark.faults
def test_a_sender_that_only_fails_is_replaced(breakable_kafka, publisher, monkeypatch):
    topic = f"test-{uuid4().hex[:12]}"
    ensure_topics([breakable_kafka.url], topic, 1)
    made = publisher(breakable_kafka.url, topic)
    made.start()
    made.publish(RECORD)
    monkeypatch.setattr(kafka_publisher, "_REPLACE_AFTER_S", 0.0)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("kafka-io")}
    breakable_kafka.process.freeze()
    with pytest.raises(LogUnavailable):
        made.publish(RECORD)
    wait_until(lambda: not any(thread.is_alive() for thread in before), 10.0, "the old sender's thread gone")
    monkeypatch.undo()
    breakable_kafka.process.resume()
    wait_until(lambda: _published(made), 20.0, "publishing through the new one")
