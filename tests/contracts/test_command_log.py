"""What every command log does, on its real server."""

import threading
import time
from collections.abc import Iterable

import pytest

from scripts.stack.server import wait_until
from tests.contracts.conftest import PARTITIONS, CommandLog, read
from todo_api.core.command_log import Consumer, Message, Position, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError


def _records(count: int, key: bytes = b"one") -> list[Record]:
    return [Record(key, b"%d" % number) for number in range(count)]


def _positions(results: Iterable[Position | TodoError]) -> list[Position]:
    """Every result is a position."""
    positions = [result for result in results if isinstance(result, Position)]
    assert positions == results
    return positions


def _spread(count: int) -> list[Record]:
    """Records over many keys, so over every partition."""
    return [Record(b"key %d" % number, b"%d" % number) for number in range(count)]


def _first(consumer: Consumer) -> Message:
    """Poll until something comes, and return the first message."""
    found: dict[int, list[Message]] = {}
    wait_until(lambda: found.update(consumer.poll(1_000, 0.2)) or found, 30.0, "a message")
    (batch,) = found.values()
    return batch[0]


# Publishing


def test_an_acknowledged_record_can_be_read_back_as_it_was(log):
    record = Record(b"key", b"value", (("reason", b"\x00\xff"), ("reason", b"again"), ("", b"")))
    position = log.publisher().publish(record)
    (message,) = read(log.consumer(), 1)
    assert position == Position(f"{log.kind}:{log.topic}", message.partition, message.offset)
    assert (message.key, message.value, message.headers) == (record.key, record.value, record.headers)


def test_an_acknowledged_record_is_in_the_log_before_publish_returns(log):
    publisher, consumer = log.publisher(), log.consumer()
    for _ in range(5):
        position = publisher.publish(Record(b"key", b"value"))
        assert consumer.end_offsets()[position.partition] == position.offset + 1


def test_positions_are_dense_from_0_and_equal_to_what_is_read(log):
    publisher = log.publisher()
    positions = [publisher.publish(record) for record in _spread(20)]
    positions += _positions(publisher.publish_many(_spread(200)))
    messages = read(log.consumer(), 220)
    assert [(message.partition, message.offset) for message in messages] == sorted(
        (position.partition, position.offset) for position in positions
    )
    for partition in range(PARTITIONS):
        offsets = [message.offset for message in messages if message.partition == partition]
        assert offsets == list(range(len(offsets)))
        assert offsets, "no key went to this partition"


def test_records_with_the_same_key_keep_their_order(log):
    publisher, keys = log.publisher(), [b"a", b"b", b"c", b"d", b"e"]
    for number in range(10):
        for key in keys:
            publisher.publish(Record(key, b"%d" % number))
    publisher.publish_many([Record(key, b"%d" % number) for number in range(10, 60) for key in keys])
    messages = read(log.consumer(), 60 * len(keys))
    for key in keys:
        assert [message.value for message in messages if message.key == key] == [
            b"%d" % number for number in range(60)
        ]


def test_a_key_goes_to_the_same_partition_whoever_publishes(log):
    one, other = log.publisher(), log.publisher()
    for record in _spread(20):
        assert one.publish(record).partition == other.publish(record).partition


def test_results_of_many_are_in_their_order_and_each_its_own(log):
    huge = Record(b"one", b"x" * 1_100_000)
    results = log.publisher().publish_many([*_records(3), huge, *_records(3)])
    assert isinstance(results[3], RecordTooLarge)
    assert [position.offset for position in _positions(results[:3] + results[4:])] == list(range(6))
    assert [message.value for message in read(log.consumer(), 6)] == [b"0", b"1", b"2"] * 2


def test_a_record_that_is_too_large_is_refused_and_harms_no_other(log):
    publisher = log.publisher()
    with pytest.raises(RecordTooLarge):
        publisher.publish(Record(b"key", b"x" * 1_100_000))
    assert publisher.publish(Record(b"key", b"small")).offset == 0


def test_no_records_give_no_results(log):
    assert log.publisher().publish_many([]) == []


def test_many_threads_share_a_publisher(log):
    publisher = log.publisher()
    positions: list[Position] = []

    def publish(number: int) -> None:
        positions.extend(publisher.publish(record) for record in _records(10, b"key %d" % number))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(set(positions)) == 80
    messages = read(log.consumer(), 80)
    for number in range(8):
        mine = [message.value for message in messages if message.key == b"key %d" % number]
        assert mine == [b"%d" % index for index in range(10)]


@pytest.mark.parametrize(
    "value",
    [b"", b"\x00", b"\xff\xfe\xed\xa0\x80", b"not json", bytes(range(256)), b"\x00\xff" * 450_000],
    ids=["empty", "NUL", "not UTF-8", "text", "every byte", "900 KB"],
)
def test_any_bytes_come_through_unchanged(log, value):
    log.publisher().publish(Record(value[:100] or b"key", value, (("original", value[:1000]),)))
    (message,) = read(log.consumer(), 1)
    assert message.value == value
    assert message.headers == (("original", value[:1000]),)


def test_a_probe_of_a_healthy_log_says_so_and_writes_nothing(log):
    publisher = log.publisher()
    publisher.publish(Record(b"key", b"value"))
    before = log.consumer().end_offsets()
    publisher.probe()
    assert log.consumer().end_offsets() == before


# Consuming


def test_polling_an_empty_log_returns_nothing_within_its_bound(log):
    consumer = log.consumer()
    began = time.monotonic()
    assert consumer.poll(100, 0.3) == {}
    assert time.monotonic() - began < 5.0


def test_a_poll_returns_at_most_what_was_asked_for_and_nothing_gets_lost(log):
    log.publisher().publish_many(_spread(100))
    consumer, messages = log.consumer(), []

    def done() -> bool:
        batch = [message for part in consumer.poll(7, 0.2).values() for message in part]
        assert len(batch) <= 7
        messages.extend(batch)
        return len(messages) == 100

    wait_until(done, 30.0, "all messages")
    assert len({(message.partition, message.offset) for message in messages}) == 100


def test_one_partition_with_a_backlog_does_not_starve_the_others(log):
    publisher = log.publisher()
    publisher.publish_many(_records(500, b"busy"))
    consumer = log.consumer()
    read(consumer, 500)
    publisher.publish_many(_records(2_000, b"busy") + _spread(20))
    seen: set[int] = set()

    def all_seen() -> bool:
        seen.update(consumer.poll(100, 0.2))
        return len(seen) == PARTITIONS

    wait_until(all_seen, 30.0, "every partition")


def test_end_offsets_name_every_partition(log):
    publisher, consumer = log.publisher(), log.consumer()
    assert consumer.end_offsets() == dict.fromkeys(range(PARTITIONS), 0)
    position = publisher.publish(Record(b"key", b"value"))
    assert consumer.end_offsets() == dict.fromkeys(range(PARTITIONS), 0) | {position.partition: 1}


def test_a_consumer_that_polls_knows_where_its_partitions_end(log):
    publisher, consumer = log.publisher(), log.consumer()
    positions = [publisher.publish(record) for record in _spread(10)]
    ends = {position.partition: position.offset + 1 for position in positions}

    def knows() -> bool:
        consumer.poll(1, 0.1)
        known = consumer.known_end_offsets()
        return all(known.get(partition) == end for partition, end in ends.items())

    wait_until(knows, 30.0, "the ends")


def test_a_lone_consumer_reads_every_partition(log):
    consumer = log.consumer()
    wait_until(
        lambda: consumer.poll(1, 0.1) == {} and consumer.assignment() == frozenset(range(PARTITIONS)),
        30.0,
        "every partition assigned",
    )


def test_seeking_back_delivers_again(log):
    partition = _positions(log.publisher().publish_many(_records(10)))[0].partition
    consumer = log.consumer()
    read(consumer, 10)
    consumer.seek(partition, 4)
    assert [message.offset for message in read(consumer, 6)] == [4, 5, 6, 7, 8, 9]
    consumer.seek(partition, 0)
    assert [message.offset for message in read(consumer, 10)] == list(range(10))


def test_seeking_forward_skips(log):
    partition = _positions(log.publisher().publish_many(_records(10)))[0].partition
    consumer = log.consumer()
    read(consumer, 10)
    consumer.seek(partition, 8)
    assert [message.offset for message in read(consumer, 2)] == [8, 9]


def test_seeking_to_the_end_waits_for_the_next_record(log):
    publisher, consumer = log.publisher(), log.consumer()
    partition = _positions(publisher.publish_many(_records(10)))[0].partition
    read(consumer, 10)
    consumer.seek(partition, 10)
    assert consumer.poll(100, 0.3) == {}
    publisher.publish(Record(b"one", b"next"))
    assert [message.offset for message in read(consumer, 1)] == [10]


def test_seeking_beyond_the_end_shows_the_jump_to_the_oldest_record(log):
    partition = _positions(log.publisher().publish_many(_records(5)))[0].partition
    consumer = log.consumer()
    read(consumer, 5)
    consumer.seek(partition, 1_000_000)
    assert [message.offset for message in read(consumer, 5)] == [0, 1, 2, 3, 4]


def test_seeking_before_the_oldest_record_shows_the_jump(log):
    partition = _positions(log.publisher().publish_many(_records(10)))[0].partition
    consumer = log.consumer()
    read(consumer, 10)
    log.cut_front(partition, 7)
    consumer.seek(partition, 2)
    assert [message.offset for message in read(consumer, 3)] == [7, 8, 9]


def test_a_log_that_was_made_anew_shows_the_jump(log):
    publisher, consumer = log.publisher(), log.consumer()
    publisher.publish_many(_records(10))
    read(consumer, 10)
    log.make_anew()
    wait_until(lambda: _published(log), 20.0, "a record in the new log")
    assert _first(consumer).offset == 0


def _published(log: CommandLog) -> bool:
    try:
        log.publisher().publish(Record(b"one", b"new"))
    except LogUnavailable:
        return False
    return True


def test_a_paused_partition_is_silent_until_it_is_sought(log):
    publisher, consumer = log.publisher(), log.consumer()
    partition = publisher.publish(Record(b"one", b"0")).partition
    read(consumer, 1)
    consumer.pause(partition)
    publisher.publish_many([*_records(5), *_spread(20)])
    others = [record for record in _spread(20) if publisher.publish(record).partition != partition]
    messages = read(consumer, 2 * len(others))
    assert partition not in {message.partition for message in messages}
    assert consumer.poll(1_000, 0.2) == {}
    consumer.seek(partition, 1)
    assert read(consumer, 5 + 2 * (20 - len(others)))[0].offset == 1


def test_committing_moves_nothing_and_never_raises(log):
    partition = _positions(log.publisher().publish_many(_records(10)))[0].partition
    consumer = log.consumer()
    read(consumer, 10)
    consumer.commit({})
    consumer.commit({partition: 4})
    consumer.commit({partition: 10, PARTITIONS + 7: 3})
    assert consumer.poll(100, 0.3) == {}
    consumer.seek(partition, 9)
    assert [message.offset for message in read(consumer, 1)] == [9]


def test_closing_twice_and_closing_what_was_never_used_is_fine(log):
    publisher, consumer = log.publisher(), log.consumer()
    publisher.close(1.0)
    publisher.close(1.0)
    consumer.close(1.0)
    consumer.close(1.0)


def test_a_closed_publisher_appends_nothing(log):
    publisher, consumer = log.publisher(), log.consumer()
    partition = publisher.publish(_records(1)[0]).partition
    publisher.close(1.0)
    with pytest.raises(LogUnavailable):
        publisher.publish(_records(1)[0])
    assert all(isinstance(result, LogUnavailable) for result in publisher.publish_many(_records(2)))
    read(consumer, 1)
    assert consumer.end_offsets()[partition] == 1
