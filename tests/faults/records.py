"""Faults in the log itself: records that are no commands, records that come again."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg

from scripts.dead_letters.letters import DeadLetterLog
from scripts.stack.server import wait_until
from tests.faults.fleet import Fleet
from tests.faults.trial import Scene
from tests.support.commands import create
from todo_api.core.command_log import Record
from todo_api.core.command_log.connect import dead_letters_topic, make_publisher
from todo_api.core.command_log.reader import LogReader, make_reader

POISON_COUNT: Final = 100
POISON_RUN: Final = 1_000
_BATCH: Final = 200
_ALARM: Final = '"worker.partition_stopped"'
# DLQ_LIMIT as it is by default.
_LIMIT: Final = 100


def _poisons() -> list[bytes]:
    good = create(title="poison", at_s=0).encode()
    return [
        b"",
        b"\xff\xfe\x00",
        b"no JSON",
        b"[]",
        b"null",
        b"[" * 5000,
        good[:-1],
        good.replace(b'"title":"poison"', b'"title":7'),
        good.replace(b'"title":"poison"', rb'"title":"\ud800"'),
        good.replace(b'"title":"poison"', rb'"title":"a\u0000"'),
        good.replace(b'"title":"poison",', b""),
        good.replace(b'"kind":"create"', b'"kind":"explode"'),
        good.replace(b'"v":1', b'"v":99'),
        good.replace(b'"title":"poison"', b'"title":"' + b"x" * 900_000 + b'"'),
    ]


def poison(scene: Scene) -> None:
    """A hundred records that are no commands, among those of the load, in all partitions."""
    fleet, choices = scene.fleet, random.Random(11)
    [worker] = fleet.workers
    pid, poisons = worker.pid, _poisons()
    with _reader(fleet, dead_letters=True) as reader:
        before = DeadLetterLog(reader).bounds().end
    sent: list[bytes] = []
    with _publisher(fleet) as publisher:
        for number in range(POISON_COUNT):
            sent.append(poisons[number % len(poisons)])
            publisher.publish(Record(choices.randbytes(8), sent[-1]))
            scene.go_on(1 / POISON_COUNT)

    def letters() -> list[bytes]:
        with _reader(fleet, dead_letters=True) as reader:
            found = [letter for letter in DeadLetterLog(reader).letters() if letter.position >= before]
        scene.expect(all(letter.reason for letter in found), "a dead letter without a reason")
        return sorted(letter.message.value or b"" for letter in found)

    wait_until(lambda: len(letters()) >= POISON_COUNT, 60, "all of them dead letters")
    scene.expect(letters() == sorted(sent), "the dead letters are not what was sent")
    scene.expect(worker.pid == pid and worker.is_running, "the worker was restarted")


def poison_run(scene: Scene) -> None:
    """A thousand bad records in a row in one partition: the worker stops there and alarms, until somebody decides."""
    fleet = scene.fleet
    [worker] = fleet.workers
    before, alarms = fleet.dead_letters(), worker.output.count(_ALARM)
    with _publisher(fleet) as publisher:
        bad = [Record(b"poison", b"no command %d" % number) for number in range(POISON_RUN)]
        results = publisher.publish_many(bad)
    scene.expect(not [result for result in results if isinstance(result, Exception)], "not all were appended")
    wait_until(lambda: worker.output.count(_ALARM) > alarms, 60, "the alarm")
    scene.go_on()
    scene.expect(worker.is_running, "the worker is gone")
    written = fleet.dead_letters() - before
    scene.expect(written == _LIMIT, f"{written} dead letters before the alarm, not {_LIMIT}")
    # Here: they may all become dead letters.
    scene.expect(worker.stop(60) == 0, "the worker did not end with 0")
    worker.start(DLQ_LIMIT=str(2 * POISON_RUN))
    wait_until(lambda: fleet.dead_letters() - before == POISON_RUN, 120, "all of them dead letters")


def log_read_again(scene: Scene) -> None:
    """The whole topic delivered again and again, to a worker that has forgotten where it was."""
    [worker] = scene.fleet.workers
    rounds = max(2, round(scene.pace.seconds / 3))
    for _ in range(rounds):
        worker.stop(60)
        applied = _applied(scene.fleet)
        with psycopg.connect(scene.fleet.env["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("update applied set next_offset = 0, dead_in_a_row = 0")
        worker.start()
        wait_until(partial(_has_applied, scene.fleet, applied), 120, "the log read again")
    scene.notes.append(f"{rounds} times, {_applied(scene.fleet):,} records in the end")


def log_written_again(scene: Scene) -> None:
    """Every record appended again, several times, in any order."""
    fleet, choices = scene.fleet, random.Random(16)
    copies = 3 if scene.pace.is_short else 20
    with _reader(fleet) as reader:
        records = [
            Record(message.key or b"", message.value or b"", message.headers)
            for partition, bounds in reader.bounds().items()
            for message in reader.read(partition, bounds.oldest, bounds.end)
        ]
    again = records * copies
    choices.shuffle(again)
    with _publisher(fleet) as publisher:
        for first in range(0, len(again), _BATCH):
            for result in publisher.publish_many(again[first : first + _BATCH]):
                if isinstance(result, Exception):
                    raise result
    end = sum(bounds.end for bounds in _bounds(fleet))
    began = time.monotonic()
    wait_until(lambda: _applied(fleet) >= end, 300, "the copies passed")
    scene.notes.append(
        f"{len(again):,} copies of {len(records):,} records in {time.monotonic() - began:.1f} s"
    )


def _applied(fleet: Fleet) -> int:
    with psycopg.connect(fleet.env["DATABASE_URL"], autocommit=True) as connection:
        row = connection.execute("select coalesce(sum(next_offset), 0) from applied").fetchone()
        assert row is not None
        return int(row[0])


def _has_applied(fleet: Fleet, commands: int) -> bool:
    return _applied(fleet) >= commands


def _bounds(fleet: Fleet) -> list[Any]:
    with _reader(fleet) as reader:
        return list(reader.bounds().values())


@contextmanager
def _reader(fleet: Fleet, *, dead_letters: bool = False) -> Iterator[LogReader]:
    topic = fleet.env["KAFKA_TODO_TOPIC"]
    reader = make_reader(
        fleet.kind,
        brokers=[fleet.env["KAFKA_BROKERS"]],
        topic=dead_letters_topic(topic) if dead_letters else topic,
        partitions=1 if dead_letters else int(fleet.env["KAFKA_PARTITIONS"]),
        redis_url=fleet.env["REDIS_URL"],
    )
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def _publisher(fleet: Fleet) -> Iterator[Any]:
    publisher = make_publisher(
        fleet.kind,
        brokers=[fleet.env["KAFKA_BROKERS"]],
        topic=fleet.env["KAFKA_TODO_TOPIC"],
        partitions=int(fleet.env["KAFKA_PARTITIONS"]),
        redis_url=fleet.env["REDIS_URL"],
        timeout_s=20.0,
    )
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close(5.0)
