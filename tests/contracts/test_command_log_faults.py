"""What every command log does while its real server is killed or frozen, and afterwards."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from scripts.stack.server import wait_until
from tests.contracts.conftest import CommandLog, read
from todo_api.core.command_log import Consumer, Position, Publisher, Record
from todo_api.core.errors import LogUnavailable

_KAFKA = pytest.mark.kafka
pytestmark = [
    pytest.mark.faults,
    pytest.mark.parametrize(
        ("breakable_log", "fault"),
        [
            pytest.param("kafka-python", "kill", marks=_KAFKA),
            pytest.param("kafka-python", "freeze", marks=_KAFKA),
            # A frozen broker, with a batch in flight, is what clients fail to recover from.
            pytest.param("librdkafka", "freeze", marks=[_KAFKA, pytest.mark.slow]),
            pytest.param("librdkafka", "kill", marks=[_KAFKA, pytest.mark.slow]),
            ("streams", "kill"),
            ("streams", "freeze"),
            pytest.param("streams relayed", "kill", marks=pytest.mark.slow),
            pytest.param("streams relayed", "freeze", marks=pytest.mark.slow),
            pytest.param("kafka-python relayed", "kill", marks=[_KAFKA, pytest.mark.slow]),
            pytest.param("kafka-python relayed", "freeze", marks=[_KAFKA, pytest.mark.slow]),
            pytest.param("librdkafka relayed", "kill", marks=[_KAFKA, pytest.mark.slow]),
            pytest.param("librdkafka relayed", "freeze", marks=[_KAFKA, pytest.mark.slow]),
        ],
        indirect=["breakable_log"],
    ),
]

RECORD = Record(b"key", b"value")
# The promise is 2 s; the machine may be busy.
BOUND_S = 5.0
# A publisher that has worked gives up after half a second, so that reads in its process wait no longer.
FIRST_BOUND_S = 1.4


def _break(log: CommandLog, fault: str) -> None:
    assert log.process is not None
    (log.process.kill if fault == "kill" else log.process.freeze)()


def _mend(log: CommandLog, fault: str) -> None:
    assert log.process is not None
    (log.process.start if fault == "kill" else log.process.resume)()


def _refused(call: Callable[[], object], bound_s: float = BOUND_S) -> None:
    """The call says within its bound that the log is unavailable."""
    began = time.monotonic()
    with pytest.raises(LogUnavailable):
        call()
    assert time.monotonic() - began < bound_s


def _works_again(call: Callable[[], object], what: str) -> None:
    def worked() -> bool:
        try:
            call()
        except LogUnavailable:
            return False
        return True

    wait_until(worked, 20.0, what)


def _nothing_to_read(consumer: Consumer) -> None:
    """A poll meets silence or says that the log is unavailable; committing is bounded and quiet."""
    began = time.monotonic()
    with contextlib.suppress(LogUnavailable):
        assert consumer.poll(100, 0.5) == {}
    assert time.monotonic() - began < BOUND_S
    began = time.monotonic()
    consumer.commit({0: 1})
    assert time.monotonic() - began < BOUND_S


def _reads(consumer: Consumer, value: bytes) -> None:
    seen: set[bytes | None] = set()

    def found() -> bool:
        with contextlib.suppress(LogUnavailable):
            for batch in consumer.poll(100, 0.2).values():
                seen.update(message.value for message in batch)
        return value in seen

    wait_until(found, 30.0, f"reading {value!r} after the fault")


def _reads_up_to(consumer: Consumer, position: Position) -> None:
    """Read as far as this; before it may be more than was acknowledged."""

    def found() -> bool:
        batches = consumer.poll(100, 0.2)
        return any(message.offset == position.offset for message in batches.get(position.partition, ()))

    wait_until(found, 30.0, f"reading {position}")


def test_everything_is_refused_in_time_and_goes_on_by_itself_afterwards(breakable_log, fault):
    publisher, consumer = breakable_log.publisher(), breakable_log.consumer()
    # A broker that has just started may have no producer ids to give out yet.
    _works_again(lambda: publisher.publish(RECORD), "the first record")
    acknowledged = [publisher.publish(RECORD) for _ in range(20)]
    _reads_up_to(consumer, acknowledged[-1])

    _break(breakable_log, fault)
    broken_at = time.monotonic()
    _refused(lambda: publisher.publish(RECORD), FIRST_BOUND_S)
    _refused(publisher.probe)
    began = time.monotonic()
    assert [type(result) for result in publisher.publish_many([RECORD, RECORD])] == [LogUnavailable] * 2
    assert time.monotonic() - began < BOUND_S
    # Also those that begin while the server is away.
    late_publisher, late_consumer = breakable_log.publisher(), breakable_log.consumer("late")
    _refused(lambda: late_publisher.publish(RECORD))
    _nothing_to_read(consumer)
    _refused(consumer.end_offsets)
    _nothing_to_read(late_consumer)
    # Long enough for the drivers' own timeouts to have run out.
    wait_until(lambda: time.monotonic() - broken_at > 4.0, 10.0, "4 s broken")

    _mend(breakable_log, fault)
    _works_again(lambda: publisher.publish(RECORD), "the publisher")
    _works_again(lambda: late_publisher.publish(Record(b"key", b"after")), "the publisher begun in between")
    _works_again(publisher.probe, "the probe")
    _reads(consumer, b"after")
    _reads(late_consumer, b"after")

    # Nothing that was acknowledged is lost.
    fresh = breakable_log.consumer("fresh")
    kept = read(fresh, fresh.end_offsets()[acknowledged[0].partition])
    assert {message.offset for message in kept} >= {position.offset for position in acknowledged}


def test_closing_is_bounded_and_never_raises(breakable_log, fault):
    publisher, consumer = breakable_log.publisher(), breakable_log.consumer()
    _works_again(lambda: publisher.publish(RECORD), "the first record")
    _reads_up_to(consumer, publisher.publish(RECORD))
    _break(breakable_log, fault)
    failures: list[LogUnavailable] = []

    def publish(publisher: Publisher = publisher) -> None:
        try:
            publisher.publish(RECORD)
        except LogUnavailable as ex:
            failures.append(ex)

    pending = threading.Thread(target=publish)
    pending.start()
    began = time.monotonic()
    publisher.close(0.2)
    consumer.close(1.0)
    assert time.monotonic() - began < BOUND_S
    pending.join(BOUND_S)
    assert len(failures) == 1
    _refused(lambda: publisher.publish(RECORD))
