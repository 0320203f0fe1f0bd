"""The worker's loop over a real log (Valkey Streams) and a real PostgreSQL."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import redis

import todo_worker.worker
from scripts.stack.server import wait_until
from tests.support.commands import create, update
from todo_api.core.command_log import Message, Record
from todo_api.core.command_log.connect import make_dead_letter_publisher, make_publisher
from todo_api.core.command_log.streams import StreamsConsumer
from todo_api.core.commands import Command
from todo_api.core.errors import CacheUnavailable, LogUnavailable
from todo_worker.applier import Applier
from todo_worker.dead_letters import DeadLetters
from todo_worker.telemetry import WorkerTelemetry
from todo_worker.worker import Worker

TOPIC = "todo-commands"
PARTITIONS = 4


class Rig:
    """A log, a database, and workers to run on them."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.publisher = make_publisher(
            "streams", brokers=(), topic=TOPIC, partitions=PARTITIONS, redis_url=redis_url
        )
        self.published: list[tuple[str, int]] = []
        self.to_close: list[Callable[[], object]] = [lambda: self.publisher.close(1)]

    def send(self, *commands: Command) -> None:
        self.publisher.publish_many([Record(command.key, command.encode()) for command in commands])

    def send_raw(self, key: bytes, value: bytes) -> None:
        self.publisher.publish(Record(key, value, (("trace", b"t1"),)))

    def make(self, **options: Any) -> Worker:
        consumer = options.pop("consumer", None) or StreamsConsumer(self.redis_url, TOPIC, PARTITIONS)
        applier = Applier(self.database_url, log=consumer.log, idempotency_hours=24)
        dead_letters = make_dead_letter_publisher(
            "streams", brokers=(), topic=TOPIC, redis_url=self.redis_url, timeout_s=1.5
        )
        self.to_close += [lambda: consumer.close(1), applier.close, lambda: dead_letters.close(1)]
        settings: dict[str, Any] = {"batch_max": 50, "dlq_limit": 5} | options
        return Worker(
            consumer,
            applier,
            settings.pop("dead_letters", DeadLetters(dead_letters, log=consumer.log)),
            settings.pop("publish", lambda *state: self.published.append(state)),
            WorkerTelemetry(settings.pop("publish_progress", lambda _lags, _newest: None)),
            **settings,
        )

    def close(self) -> None:
        for close in self.to_close:
            close()

    @contextmanager
    def working(self, **options: Any) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.make(**options).run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()

    def query(self, statement: str) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement).fetchall()

    def titles(self) -> list[str]:
        return [title for (title,) in self.query("select title from todos order by title")]

    def applied(self) -> int:
        ((generation,),) = self.query("select coalesce(sum(next_offset), 0)::int from applied")
        return int(generation)

    def has_applied(self, count: int) -> Callable[[], bool]:
        return lambda: self.applied() == count

    def dead_letters(self) -> list[Message]:
        consumer = StreamsConsumer(self.redis_url, f"{TOPIC}.dlq", 1)
        letters = consumer.poll(1000, 0.1).get(0, [])
        consumer.close(1)
        return letters


@pytest.fixture
def rig(database_url: str, redis_url: str) -> Iterator[Rig]:
    rig = Rig(database_url, redis_url)
    yield rig
    rig.close()


def test_commands_are_applied_in_order_and_the_generation_is_published(rig: Rig) -> None:
    todos = [create(title=f"t{n}") for n in range(100)]
    rig.send(*todos, *(update(todo.todo_id, title=f"{todo.title}!") for todo in todos))
    with rig.working():
        wait_until(rig.has_applied(200), 20, "200 applied")
        wait_until(lambda: rig.published and rig.published[-1][1] == 200, 5, "published")
    assert rig.titles() == sorted(f"{todo.title}!" for todo in todos)


def test_a_worker_that_starts_again_goes_on_where_the_database_says(rig: Rig) -> None:
    rig.send(create(title="a"))
    with rig.working():
        wait_until(rig.has_applied(1), 10, "first")
    rig.send(create(title="b"))
    with rig.working():
        wait_until(rig.has_applied(2), 10, "second")
    assert rig.titles() == ["a", "b"]


def test_workers_that_read_the_same_partitions_apply_each_command_once(rig: Rig) -> None:
    todos = [create(title="0") for _ in range(30)]
    rig.send(*todos)
    with rig.working(batch_max=7), rig.working(batch_max=11), rig.working(batch_max=13):
        for _ in range(10):
            rig.send(*(update(todo.todo_id, completed=True) for todo in todos))
        wait_until(rig.has_applied(330), 40, "all applied")
    assert rig.query("select distinct version from todos") == [(11,)]


def test_poison_goes_to_the_dead_letters_with_its_bytes_and_reason_and_stops_nothing(rig: Rig) -> None:
    poison = [b"\xff\xfe", b"not json", b'{"v":3}', b"[" * 5000, b"null"]
    for index, value in enumerate(poison):
        rig.send_raw(b"key", value)
        rig.send(create(title=f"good {index}"))
    with rig.working():
        wait_until(rig.has_applied(10), 20, "all passed")
    letters = rig.dead_letters()
    assert [letter.value for letter in letters] == poison
    headers = [dict(letter.headers) for letter in letters]
    assert {header["todo-log"] for header in headers} == {b"streams:todo-commands"}
    assert headers[2]["todo-reason"].startswith(b"unknown version 3")
    assert headers[0]["trace"] == b"t1"
    assert len(rig.titles()) == len(poison)


def test_a_run_of_dead_letters_stops_the_partition_and_a_restart_does_not_drain_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        rig.send_raw(b"key", b"bad")
    for _ in range(2):
        with caplog.at_level(logging.CRITICAL), rig.working(dlq_limit=5):
            wait_until(lambda: "DLQ_LIMIT" in caplog.text, 10, "alarm")
        caplog.clear()
        assert len(rig.dead_letters()) == 5
        assert rig.applied() == 5


def test_other_partitions_go_on_while_one_is_stopped(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        rig.send_raw(b"key", b"bad")
    with caplog.at_level(logging.CRITICAL), rig.working(dlq_limit=5):
        wait_until(lambda: "DLQ_LIMIT" in caplog.text, 10, "alarm")
        # Enough todos that some are in the three partitions that are not stopped.
        rig.send(*(create(title="good") for _ in range(40)))
        wait_until(lambda: len(rig.titles()) >= 20, 10, "good ones applied")


class SharedConsumer(StreamsConsumer):
    """One that has to give partitions away, as a rebalance of Kafka does."""

    taken: frozenset[int] = frozenset()

    def assignment(self) -> frozenset[int]:
        return super().assignment() - self.taken


class NotingConsumer(StreamsConsumer):
    """One that notes what the log is told."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.told: list[dict[int, int]] = []

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        self.told.append(dict(next_offsets))
        super().commit(next_offsets)


def test_the_log_is_told_how_far_the_worker_is_now_and_then_and_in_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(todo_worker.worker, "_COMMIT_EVERY_S", 3600.0)
    consumer = NotingConsumer(rig.redis_url, TOPIC, PARTITIONS)
    worker = rig.make(consumer=consumer)
    command = create(title="t0")
    for count in range(4):
        rig.send(update(command.todo_id, title=f"t{count}") if count else command)
        while rig.titles() != [f"t{count}"]:
            worker.step()
    assert [list(told.values()) for told in consumer.told] == [[1]]
    stop = threading.Event()
    stop.set()
    worker.run(stop)
    assert [list(told.values()) for told in consumer.told] == [[1], [4]]


def test_a_stopped_partition_that_was_another_workers_for_a_while_is_looked_at_again(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(todo_worker.worker, "_RECHECK_STOPPED_S", 1.0)
    command = create(title="good")
    for _ in range(20):
        rig.send_raw(command.key, b"bad")
    rig.send(command)
    consumer = SharedConsumer(rig.redis_url, TOPIC, PARTITIONS)
    worker = rig.make(consumer=consumer, dlq_limit=5)
    while "DLQ_LIMIT" not in caplog.text:
        worker.step()
    consumer.taken = consumer.assignment()
    worker.step()
    with psycopg.connect(rig.database_url) as connection:
        # A person, meanwhile.
        connection.execute("update applied set next_offset = 20 where next_offset = 5")
    consumer.taken = frozenset()

    def has_applied() -> bool:
        worker.step()
        return rig.titles() == ["good"]

    wait_until(has_applied, 10, "what came behind the bad ones")


def test_commands_cut_off_before_they_were_applied_stop_the_partition_with_an_alarm(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    first = create(title="first")
    rig.send(first, *(update(first.todo_id, title=f"t{n}") for n in range(5)))
    with redis.Redis.from_url(rig.redis_url) as client:
        (stream,) = [key for key in client.keys("*") if client.type(key) == b"stream"]
        client.xtrim(stream, minid="3-0", approximate=False)
    with caplog.at_level(logging.CRITICAL), rig.working():
        wait_until(lambda: "is not in the log" in caplog.text, 10, "alarm")
    assert rig.titles() == []
    assert rig.applied() == 0


def test_a_log_made_anew_is_not_taken_for_the_old_one(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    first = create(title="first")
    rig.send(first, *(update(first.todo_id, title=f"t{n}") for n in range(5)))
    with rig.working():
        wait_until(rig.has_applied(6), 10, "six applied")
    with redis.Redis.from_url(rig.redis_url) as client:
        client.flushall()
    rig.send(update(first.todo_id, title="from the new log"))
    with caplog.at_level(logging.CRITICAL), rig.working():
        wait_until(lambda: "is not in the log" in caplog.text, 10, "alarm")
    assert rig.titles() == ["t4"]


@pytest.mark.faults
def test_a_database_that_goes_away_loses_nothing_and_dead_letters_nothing(
    own_postgres: Any, redis_url: str
) -> None:
    rig = Rig(own_postgres.url, redis_url)
    rig.send(create(title="before"))
    with rig.working():
        wait_until(rig.has_applied(1), 10, "first")
        own_postgres.process.kill()
        # The API goes on serving pages it has as long as somebody says that nothing moved.
        published = len(rig.published)
        wait_until(lambda: len(rig.published) >= published + 2, 20, "the last state published again")
        assert len(set(rig.published[published:])) == 1
        rig.send(*(create(title="during") for _ in range(20)))
        own_postgres.process.start()
        wait_until(rig.has_applied(21), 30, "all applied")
    assert rig.titles() == ["before"] + ["during"] * 20
    assert rig.dead_letters() == []
    rig.close()


def test_redis_being_away_for_the_generation_does_not_stop_the_work(rig: Rig) -> None:
    def away(*_: Any) -> None:
        raise CacheUnavailable("away")

    rig.send(create(title="a"))
    with rig.working(publish=away):
        wait_until(rig.has_applied(1), 10, "applied")


def test_a_dead_letter_that_cannot_be_written_holds_the_partition_and_is_tried_again(rig: Rig) -> None:
    class Failing:
        attempts = 0

        def write(self, message: Message, reason: str) -> None:
            self.attempts += 1
            if self.attempts <= 2:
                raise LogUnavailable("away")

    failing = Failing()
    rig.send_raw(b"key", b"bad")
    with rig.working(dead_letters=failing):
        wait_until(rig.has_applied(1), 10, "passed")
    assert failing.attempts == 3
