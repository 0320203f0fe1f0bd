"""The circuit breaker in front of the command log, against a publisher whose faults are scripted."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from scripts.stack.server import wait_until
from todo_api.breaker import Condition, GuardedPublisher
from todo_api.core.command_log import Position, Record
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError

RECORD = Record(b"key", b"value")


class ScriptedPublisher:
    """Appends to a list while ``up``; otherwise fails as a log that is away does. ``answers`` is what probes meet."""

    log = "scripted:test"

    def __init__(self) -> None:
        self.up = True
        self.answers = True
        self.calls = 0
        self.probes = 0
        self.started = self.closed = False
        self.records: list[Record] = []
        self.before_publish: Callable[[], None] = lambda: None

    def start(self) -> None:
        self.started = True

    def publish(self, record: Record) -> Position:
        self.calls += 1
        self.before_publish()
        if len(record.value) > 100:
            raise RecordTooLarge("too large")
        if not self.up:
            raise LogUnavailable("away")
        self.records.append(record)
        return Position(self.log, 0, len(self.records) - 1)

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        results: list[Position | TodoError] = []
        for record in records:
            try:
                results.append(self.publish(record))
            except TodoError as ex:
                results.append(ex)
        return results

    def probe(self) -> None:
        self.probes += 1
        if not self.answers:
            raise LogUnavailable("still away")

    def close(self, timeout_s: float) -> None:
        self.closed = True


@pytest.fixture
def publisher() -> ScriptedPublisher:
    return ScriptedPublisher()


@pytest.fixture
def guarded(publisher: ScriptedPublisher) -> Iterator[GuardedPublisher]:
    guarded = GuardedPublisher(publisher, probe_interval_s=0.01, probe_interval_max_s=0.02)
    guarded.start()
    yield guarded
    guarded.close(5.0)


def _away(publisher: ScriptedPublisher) -> None:
    publisher.up = publisher.answers = False


def _back(publisher: ScriptedPublisher) -> None:
    publisher.up = publisher.answers = True


def _wait_for(guarded: GuardedPublisher, condition: Condition) -> None:
    wait_until(lambda: guarded.state.condition is condition, 10.0, f"breaker {condition}")


def test_it_is_connecting_until_the_first_acknowledgement(publisher, guarded):
    assert publisher.started
    conditions = [guarded.state.condition]
    assert guarded.publish(RECORD) == Position("scripted:test", 0, 0)
    conditions.append(guarded.state.condition)
    assert conditions == [Condition.CONNECTING, Condition.CLOSED]


def test_a_failure_opens_it_and_later_writes_do_not_reach_the_log(publisher, guarded):
    _away(publisher)
    with pytest.raises(LogUnavailable, match="away"):
        guarded.publish(RECORD)
    assert guarded.state.condition is Condition.OPEN
    assert guarded.state.reason == "away"
    with pytest.raises(LogUnavailable, match="refused"):
        guarded.publish(RECORD)
    assert [type(result) for result in guarded.publish_many([RECORD, RECORD])] == [LogUnavailable] * 2
    assert publisher.calls == 1


def test_a_probe_that_succeeds_closes_it(publisher, guarded):
    _away(publisher)
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    wait_until(lambda: publisher.probes >= 3, 10.0, "three probes")
    assert guarded.state.condition is Condition.OPEN
    _back(publisher)
    _wait_for(guarded, Condition.CLOSED)
    assert guarded.publish(RECORD).offset == 0


def test_it_probes_only_while_it_is_open(publisher, guarded):
    guarded.publish(RECORD)
    _away(publisher)
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    _back(publisher)
    _wait_for(guarded, Condition.CLOSED)
    probes = publisher.probes
    time.sleep(0.1)  # Many intervals: nothing may happen in them.
    assert publisher.probes == probes


def test_a_probe_that_fails_opens_it_before_a_write_has_to_wait(publisher, guarded):
    _away(publisher)
    with pytest.raises(LogUnavailable, match="still away"):
        guarded.probe()
    assert guarded.state.condition is Condition.OPEN
    with pytest.raises(LogUnavailable, match="refused"):
        guarded.publish(RECORD)
    assert publisher.calls == 0
    _back(publisher)
    _wait_for(guarded, Condition.CLOSED)


def test_a_record_acknowledged_during_a_probe_is_the_better_answer(publisher, guarded, monkeypatch):
    def find_no_room() -> None:
        guarded.publish(RECORD)
        raise LogUnavailable("busy")

    monkeypatch.setattr(publisher, "probe", find_no_room)
    guarded.probe()
    assert guarded.state.condition is Condition.CLOSED


def test_a_probe_does_not_wait_for_a_log_that_is_known_to_be_away(publisher):
    guarded = GuardedPublisher(publisher, probe_interval_s=30.0)
    guarded.start()
    _away(publisher)
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    with pytest.raises(LogUnavailable, match="refused"):
        guarded.probe()
    assert publisher.probes == 0
    guarded.close(5.0)


def test_it_opens_again_when_the_probe_was_too_hopeful(publisher, guarded):
    publisher.up, publisher.answers = False, True
    for _ in range(3):
        with pytest.raises(LogUnavailable, match="away"):
            guarded.publish(RECORD)
        _wait_for(guarded, Condition.CLOSED)
    assert publisher.calls == 3


def test_one_unavailable_record_of_many_opens_it(publisher, guarded):
    remaining = iter([True, False])
    publisher.before_publish = lambda: setattr(publisher, "up", next(remaining))
    publisher.answers = False
    results = guarded.publish_many([RECORD, RECORD])
    assert [type(result) for result in results] == [Position, LogUnavailable]
    assert guarded.state.condition is Condition.OPEN


def test_a_record_that_is_too_large_says_nothing_about_the_log(publisher, guarded):
    guarded.publish(RECORD)
    with pytest.raises(RecordTooLarge):
        guarded.publish(Record(b"key", b"x" * 101))
    assert [type(result) for result in guarded.publish_many([Record(b"key", b"x" * 101)])] == [RecordTooLarge]
    assert guarded.state.condition is Condition.CLOSED


def test_a_late_failure_does_not_open_a_breaker_that_was_closed_meanwhile(publisher, guarded):
    guarded.publish(RECORD)
    entered, leave = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        leave.wait(10.0)
        raise LogUnavailable("late")

    publisher.before_publish = hang
    late: list[BaseException] = []

    def publish() -> None:
        try:
            guarded.publish(RECORD)
        except LogUnavailable as ex:
            late.append(ex)

    thread = threading.Thread(target=publish)
    thread.start()
    assert entered.wait(10.0)
    # Another thread meets the fault, and the log recovers, while the first one still hangs.
    publisher.before_publish = lambda: None
    _away(publisher)
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    _back(publisher)
    _wait_for(guarded, Condition.CLOSED)
    leave.set()
    thread.join(10.0)
    assert [str(ex) for ex in late] == ["late"]
    assert guarded.state.condition is Condition.CLOSED


def test_the_prober_outlives_a_probe_that_breaks(publisher, guarded, monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, "todo_api.breaker")
    broken = threading.Event()

    def break_once() -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("a bug")

    monkeypatch.setattr(publisher, "probe", break_once)
    publisher.up = False
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    _wait_for(guarded, Condition.CLOSED)
    assert broken.is_set()


def test_closing_ends_the_thread_and_closes_the_publisher(publisher):
    before = set(threading.enumerate())
    guarded = GuardedPublisher(publisher)
    assert set(threading.enumerate()) == before, "making one starts nothing"
    guarded.start()
    _away(publisher)
    with pytest.raises(LogUnavailable):
        guarded.publish(RECORD)
    guarded.close(5.0)
    assert set(threading.enumerate()) == before
    assert publisher.closed


def test_it_can_be_closed_without_having_been_started(publisher):
    GuardedPublisher(publisher).close(1.0)
    assert publisher.closed
