"""What requests that share a batch get; that the contract holds on real logs is in tests/contracts."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from scripts.stack.server import wait_until
from tests.support.thread_loop import thread_loop
from todo_api.core import waiting
from todo_api.core.command_log import Position, Record, Results
from todo_api.core.command_log.in_one_thread import InOneThread
from todo_api.core.errors import LogUnavailable, RecordTooLarge, TodoError
from todo_api.group_commit import GroupCommit

POSITION = Position("test:log", 0, 1)


class Gated:
    """A publisher that takes one batch at a time, and each only when it is let."""

    log = "test:log"

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.threads: set[str] = set()
        self.outcome: Callable[[Record, int], Position | TodoError] = lambda _, n: Position(self.log, 0, n)
        self._gate = threading.Semaphore(0)
        self.closed_after: int | None = None
        self._count = 0

    def let(self, batches: int = 1) -> None:
        self._gate.release(batches)

    def start(self) -> None: ...

    def publish(self, record: Record) -> Position:
        result = self.publish_many([record])[0]
        if isinstance(result, TodoError):
            raise result
        return result

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        self.threads.add(threading.current_thread().name)
        self.batches.append([record.key for record in records])
        assert self._gate.acquire(timeout=10)
        results = [self.outcome(record, self._count + n) for n, record in enumerate(records)]
        self._count += len(records)
        return results

    def probe(self) -> None: ...

    def close(self, timeout_s: float) -> None:
        assert timeout_s >= 0
        self.closed_after = len(self.batches)


class Requests:
    """Requests in threads of their own, as many at once as there are."""

    def __init__(self, publisher: GroupCommit) -> None:
        self.publisher = publisher
        self._threads: list[threading.Thread] = []
        self.results: dict[str, object] = {}

    def send(self, *keys: str) -> None:
        def run() -> None:
            records = [Record(key.encode(), b"") for key in keys]
            try:
                if len(records) == 1:
                    self.results[keys[0]] = self.publisher.publish(records[0])
                else:
                    self.results.update(zip(keys, self.publisher.publish_many(records), strict=True))
            except TodoError as ex:
                self.results[keys[0]] = ex

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def wait(self) -> dict[str, object]:
        for thread in self._threads:
            thread.join(10)
        return self.results


@pytest.fixture
def gated():
    with thread_loop():
        yield Gated()


@pytest.fixture
def requests(gated):
    publisher = GroupCommit(gated)
    yield Requests(publisher)
    gated.let(100)
    publisher.close(5)


def in_order(requests: Requests, gated: Gated, *groups: tuple[str, ...]) -> None:
    """Send one request after the other: the first is on its way when the others begin to wait, in this order."""
    requests.send(*groups[0])
    wait_until(lambda: gated.batches, 10, "the first is on its way")
    submitter = requests.publisher._submitter
    assert isinstance(submitter, InOneThread)
    for count, keys in enumerate(groups[1:], 1):
        requests.send(*keys)
        wait_until(lambda: submitter._waiting.qsize() == count, 10, "it waits")  # noqa: B023


def await_accepted(requests: Requests, key: str) -> None:
    """Send it until it is: for a moment after a failure, what comes is taken for what has waited behind it."""

    def is_accepted() -> bool:
        requests.send(key)
        return isinstance(requests.wait()[key], Position)

    wait_until(is_accepted, 10, "accepted again")


def test_what_comes_while_a_batch_is_on_its_way_is_the_next_batch(requests, gated):
    in_order(requests, gated, ("a",), ("b",), ("c", "d"), ("e",))
    gated.let(2)
    assert requests.wait() == {key: Position("test:log", 0, n) for n, key in enumerate("abcde")}
    assert gated.batches == [[b"a"], [b"b", b"c", b"d", b"e"]]
    assert gated.threads == {"publishing"}


def test_each_request_hears_what_became_of_its_own_records(requests, gated):
    def outcome(record: Record, number: int) -> Position | TodoError:
        if record.key == b"large":
            return RecordTooLarge("too large")
        if record.key == b"lost":
            return LogUnavailable("lost")
        return Position("test:log", 0, number)

    gated.outcome = outcome
    in_order(requests, gated, ("first",), ("large",), ("good", "lost"), ("last",))
    gated.let(2)
    results = requests.wait()
    assert isinstance(results["large"], RecordTooLarge)
    assert isinstance(results["lost"], LogUnavailable)
    assert {key for key, result in results.items() if isinstance(result, Position)} == {
        "first",
        "good",
        "last",
    }


def test_what_waits_behind_a_batch_that_failed_is_refused_unsent(requests, gated):
    gated.outcome = lambda _, n: LogUnavailable("away") if n == 0 else Position("test:log", 0, n)
    in_order(requests, gated, ("a",), ("b",), ("c", "d"))
    gated.let()
    results = requests.wait()
    assert set(results) == {"a", "b", "c", "d"}
    assert all(isinstance(result, LogUnavailable) for result in results.values())
    assert gated.batches == [[b"a"]]
    gated.let(100)
    await_accepted(requests, "e")


def test_an_error_nobody_expected_is_an_unavailable_log_and_the_next_batch_goes_on(requests, gated):
    def fail(_record: Record, _number: int) -> Position:
        raise ZeroDivisionError("a bug")

    gated.outcome, works = fail, gated.outcome
    gated.let()
    requests.send("a")
    (result,) = requests.wait().values()
    assert isinstance(result, LogUnavailable)
    assert isinstance(result.__cause__, ZeroDivisionError)
    gated.outcome = works
    gated.let(100)
    await_accepted(requests, "b")


def test_how_long_a_request_waits_is_known_while_there_are_any(requests, gated):
    publisher = requests.publisher
    assert publisher.wait_s() == 0.0
    in_order(requests, gated, ("a",), ("b",))
    gated.let()
    wait_until(lambda: "a" in requests.results and publisher.wait_s() > 0.0, 10, "the wait of the first")
    gated.let()
    requests.wait()
    assert publisher.wait_s() == 0.0


def test_a_publisher_that_does_not_come_back_is_given_up(gated):
    publisher = GroupCommit(gated)
    began = time.monotonic()
    with pytest.raises(LogUnavailable):
        publisher.publish(Record(b"a", b""))
    assert time.monotonic() - began >= 2.0
    gated.let()
    publisher.close(5)


def test_a_publisher_that_takes_records_without_waiting_is_given_them(gated):
    class Immediate(Gated):
        def submit(self, records: Sequence[Record], done: Callable[[Results], object]) -> None:
            self.threads.add(threading.current_thread().name)
            done(
                [
                    RecordTooLarge("large") if record.key == b"large" else Position("test:log", 0, 1)
                    for record in records
                ]
            )

    immediate = Immediate()
    requests = Requests(GroupCommit(immediate))
    requests.send("a", "large")
    requests.send("b")
    results = requests.wait()
    assert isinstance(results.pop("large"), RecordTooLarge)
    assert results == {"a": POSITION, "b": POSITION}
    assert "publishing" not in immediate.threads
    requests.publisher.close(1)
    assert immediate.closed_after == 0


def test_closing_waits_for_the_batch_on_its_way(gated):
    publisher = GroupCommit(gated)
    requests = Requests(publisher)
    requests.send("a")
    wait_until(lambda: gated.batches, 10, "on its way")
    closing = threading.Thread(target=publisher.close, args=(10,))
    closing.start()
    gated.let()
    closing.join(10)
    assert requests.wait()["a"] == Position("test:log", 0, 0)
    assert gated.closed_after == 1


def test_where_nobody_can_be_suspended_the_caller_publishes_by_itself(gated, monkeypatch):
    monkeypatch.setattr(waiting, "_loops", [])
    gated.let(2)
    publisher = GroupCommit(gated)
    assert publisher.publish(Record(b"a", b"")) == Position("test:log", 0, 0)
    assert publisher.publish_many([Record(b"b", b"")]) == [Position("test:log", 0, 1)]
    assert gated.threads == {threading.current_thread().name}
    publisher.close(1)
    assert gated.closed_after == 2
