"""What only Kafka has: a consumer group, tombstones, headers from strangers."""

from uuid import uuid4

import pytest
from kafka import KafkaProducer
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch

from scripts.stack.server import wait_until
from todo_api.core.command_log import Message
from todo_api.core.command_log.kafka_consumer import KafkaLogConsumer
from todo_api.core.command_log.topics import ensure_topics
from todo_api.core.errors import LogUnavailable

pytestmark = pytest.mark.kafka

PARTITIONS = 4
EVERY = frozenset(range(PARTITIONS))


@pytest.fixture
def topic(kafka_bootstrap):
    name = f"test-{uuid4().hex[:12]}"
    ensure_topics([kafka_bootstrap], name, PARTITIONS)
    return name


@pytest.fixture
def consumer(kafka_bootstrap, topic):
    """Make consumers of one group; they are closed after the test."""
    made = []

    def make():
        made.append(KafkaLogConsumer([kafka_bootstrap], topic, f"{topic}-workers"))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close(1.0)


@pytest.fixture
def producer(kafka_bootstrap):
    """A producer that is not ours and sends what it likes."""
    with KafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        yield producer


def _poll(*consumers: KafkaLogConsumer) -> list[Message]:
    return [
        message for consumer in consumers for batch in consumer.poll(1_000, 0.1).values() for message in batch
    ]


def _shares(*consumers: KafkaLogConsumer) -> list[frozenset[int]]:
    _poll(*consumers)
    return [consumer.assignment() for consumer in consumers]


def _shared_out(*consumers: KafkaLogConsumer) -> bool:
    """Every partition is read by exactly one, and each reads some."""
    shares = _shares(*consumers)
    return all(shares) and sum(map(len, shares)) == PARTITIONS and frozenset().union(*shares) == EVERY


def test_workers_share_the_partitions_and_take_over_from_one_that_leaves(consumer, producer, topic):
    first = consumer()
    wait_until(lambda: _shares(first) == [EVERY], 30.0, "the first reads all")
    second, third = consumer(), consumer()
    wait_until(lambda: _shared_out(first, second, third), 60.0, "three share")

    for number in range(40):
        producer.send(topic, value=b"%d" % number, partition=number % PARTITIONS)
    producer.flush(10)
    seen: set[bytes | None] = set()

    def all_seen() -> bool:
        seen.update(message.value for message in _poll(first, second, third))
        return len(seen) == 40

    wait_until(all_seen, 30.0, "every message by one of the three")
    second.close(1.0)
    wait_until(lambda: _shared_out(first, third), 60.0, "two share")
    third.close(1.0)
    wait_until(lambda: _shares(first) == [EVERY], 60.0, "the first reads all again")


def test_seeking_pausing_and_committing_what_went_to_another_worker_is_harmless(consumer):
    first, second = consumer(), consumer()
    wait_until(lambda: _shared_out(first, second), 60.0, "two share")
    lost = min(second.assignment())
    first.seek(lost, 3)
    first.pause(lost)
    first.commit({lost: 7})
    assert lost not in first.assignment()
    assert _poll(first) == []


def test_a_poll_waits_even_while_a_heartbeat_is_due_that_a_hanging_broker_does_not_answer(
    consumer, monkeypatch
):
    one = consumer()
    wait_until(lambda: _shares(one) == [EVERY], 30, "all partitions")
    for partition in EVERY:
        one.seek(partition, 0)
    rounds = []
    fetch_records = one._opened._fetcher.fetch_records

    def counted(*arguments, **options):
        rounds.append(options["timeout_ms"])
        return fetch_records(*arguments, **options)

    monkeypatch.setattr(one._opened._fetcher, "fetch_records", counted)
    monkeypatch.setattr(one._opened._coordinator, "time_to_next_heartbeat", lambda: 0)
    assert one.poll(1_000, 0.5) == {}
    # Half a second in pieces of a twentieth; it was thousands.
    assert len(rounds) <= 20


def test_a_tombstone_and_a_message_without_a_key_come_through(consumer, producer, topic):
    producer.send(topic, key=b"key", value=None, partition=0).get(10)
    producer.send(topic, value=b"value", partition=0).get(10)
    reader, messages = consumer(), []

    def both() -> bool:
        messages.extend(_poll(reader))
        return len(messages) == 2

    wait_until(both, 30.0, "both messages")
    assert messages == [Message(0, 0, b"key", None), Message(0, 1, None, b"value")]


def test_what_was_written_after_a_poll_comes_with_the_next_one_and_all_of_it(consumer, producer, topic):
    reader = consumer()
    wait_until(lambda: _shares(reader) == [EVERY], 30.0, "the partitions")
    for values in ([b"0"], [b"%d" % number for number in range(1, 10)]):
        for value in values:
            producer.send(topic, value=value, partition=0).get(10)
        # Fetched ahead, the first of them would come alone.
        messages = reader.poll(1_000, 10.0)
        assert [message.value for message in messages[0]] == values


def test_a_header_with_a_name_that_is_not_text_keeps_nothing_from_being_read(consumer, producer, topic):
    class NotText(str):
        def encode(self, *_):
            return b"\xff\xfe"

    headers = [("good", b"1"), (NotText("x"), b"\xff")]
    for number in range(3):
        producer.send(topic, key=b"key", value=b"%d" % number, partition=0, headers=headers)
    producer.flush(10)
    reader, messages = consumer(), []

    def all_read() -> bool:
        messages.extend(_poll(reader))
        return len(messages) == 3

    wait_until(all_read, 30.0, "every message")
    assert [message.value for message in messages] == [b"0", b"1", b"2"]
    assert messages[0].headers == (("good", b"1"), ("\ufffd\ufffd", b"\xff"))


def test_a_batch_that_cannot_be_decoded_does_not_hold_up_other_partitions(
    consumer, producer, topic, monkeypatch
):
    # A disk that turns bits cannot be had; the checksum fails for partition 0 instead.
    def validate_crc(batch):
        return next(iter(MemoryRecords(batch._buffer).next_batch())).value != b"bad"

    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", validate_crc)
    producer.send(topic, value=b"bad", partition=0).get(10)
    reader = consumer()
    values: set[bytes | None] = set()
    complaints: list[LogUnavailable] = []

    def others_flow() -> bool:
        for partition in range(1, PARTITIONS):
            producer.send(topic, value=b"good %d" % partition, partition=partition)
        try:
            values.update(message.value for message in _poll(reader))
        except LogUnavailable as ex:
            complaints.append(ex)
        return len(values) == PARTITIONS - 1 and len(complaints) > 1

    wait_until(others_flow, 30.0, "the other partitions, and more than one complaint")
    assert "crc" in str(complaints[0])


@pytest.mark.parametrize("poll_timeout_s", [0.0, 0.2])
def test_a_topic_made_after_the_consumer_is_found(kafka_bootstrap, poll_timeout_s):
    name = f"test-{uuid4().hex[:12]}"
    reader = KafkaLogConsumer([kafka_bootstrap], name, f"{name}-workers")

    def assigned() -> frozenset[int]:
        # A poll without a timeout ends before the join that it began.
        assert reader.poll(10, poll_timeout_s) == {}
        return reader.assignment()

    try:
        wait_until(
            lambda: assigned() or reader._opened._coordinator.stable(), 30.0, "a member without partitions"
        )
        assert reader.assignment() == frozenset()
        ensure_topics([kafka_bootstrap], name, PARTITIONS)
        wait_until(lambda: assigned() == EVERY, 30.0, "the new topic")
    finally:
        reader.close(1.0)


def test_a_consumer_that_never_gets_into_its_group_is_made_anew_and_goes_on(
    kafka_bootstrap, topic, producer, monkeypatch
):
    reading = KafkaLogConsumer([kafka_bootstrap], topic, f"{topic}-workers", join_max_s=0.2)
    try:
        wait_until(lambda: _poll(reading) == [] and reading.assignment() == EVERY, 30, "assignment")
        stuck = reading._opened
        # What the library says in the state that it does not leave by itself.
        monkeypatch.setattr(stuck._coordinator, "need_rejoin", lambda: True)
        wait_until(lambda: _poll(reading) == [] and reading._opened is not stuck, 30, "another consumer")
        producer.send(topic, b"after").get(10)
        wait_until(lambda: [message.value for message in _poll(reading)] == [b"after"], 30, "the message")
    finally:
        reading.close(1.0)
