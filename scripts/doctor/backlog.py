"""How far the worker is: what waits in the log, since when, and whether a partition has stopped."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any, Final

import psycopg

from config.settings import Settings
from scripts.doctor.checked import CONNECT_TIMEOUT_S, Checked, Clock, ok, problem, skipped
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.command_log.reader import Bounds, LogReader, make_reader
from todo_api.core.commands import decode
from todo_api.core.errors import InvalidCommand, LogUnavailable

_APPLIED: Final = "select partition, next_offset, dead_in_a_row from applied where log = %s"


def check_backlog(settings: Settings, *, max_age_s: float, clock: Clock) -> Iterator[Checked]:
    """Compare the log with ``applied``. A command that waits for longer than ``max_age_s`` is a problem."""
    with closing(
        make_reader(
            settings.command_log,
            brokers=settings.kafka_brokers,
            topic=settings.kafka_todo_topic,
            partitions=settings.kafka_partitions,
            redis_url=settings.redis_url,
            security=KafkaSecurity(**settings.kafka_security),
        )
    ) as reader:
        try:
            applied = _applied(settings.database_url, reader.log)
            yield from _check(reader, applied, settings.dlq_limit, max_age_s, clock)
        except (psycopg.Error, LogUnavailable):
            yield skipped("backlog", "the log and PostgreSQL are not both there")


def _check(
    reader: LogReader, applied: dict[int, tuple[int, int]], dlq_limit: int, max_age_s: float, clock: Clock
) -> Iterator[Checked]:
    waiting = 0
    oldest: datetime | None = None
    problems: list[Checked] = []
    for partition, bounds in reader.bounds().items():
        next_offset, dead_in_a_row = applied.get(partition, (0, 0))
        problems += _stopped(partition, bounds, next_offset, dead_in_a_row, dlq_limit)
        if bounds.end > next_offset:
            waiting += bounds.end - next_offset
            issued_at = _issued_at(reader, partition, next_offset, bounds.end)
            oldest = min(filter(None, (oldest, issued_at)), default=None)
    yield from problems
    age_s = 0.0 if oldest is None else clock() - oldest.timestamp()
    said = f"{waiting} command(s) wait in the log" + (f", the oldest for {age_s:.0f} s" if oldest else "")
    if age_s > max_age_s:
        yield problem(
            "backlog",
            said,
            "See whether a worker runs (`todo worker`) and what it logs; more workers help up to one a partition.",
        )
    else:
        yield ok("backlog", said)


def _stopped(
    partition: int, bounds: Bounds, next_offset: int, dead_in_a_row: int, dlq_limit: int
) -> Iterator[Checked]:
    if next_offset > bounds.end:
        yield problem(
            "backlog",
            f"partition {partition} ends at offset {bounds.end}, and {next_offset} were applied: it is another log",
            "Point the settings at the log that belongs to this database, or use a new KAFKA_TODO_TOPIC.",
        )
    elif next_offset < bounds.oldest:
        yield problem(
            "backlog",
            f"partition {partition} begins at offset {bounds.oldest}, and {next_offset} is the next to apply: "
            "commands were cut off before they were applied, and the worker has stopped there",
            "Restore them if there is a copy. To accept the loss, set next_offset in `applied` to "
            f"{bounds.oldest} for partition {partition}; the worker goes on by itself.",
        )
    elif dead_in_a_row >= dlq_limit and bounds.end > next_offset:
        yield problem(
            "backlog",
            f"partition {partition} stopped at offset {next_offset} after {dead_in_a_row} dead letters in a row",
            "Start workers of the version that the API has; see `todo dlq list` for what they did not understand.",
        )


def _issued_at(reader: LogReader, partition: int, start: int, end: int) -> datetime | None:
    """Return when the first command from ``start`` on was asked for; None when that record is no command."""
    for message in reader.read(partition, start, end):
        try:
            return decode(message.value).issued_at
        except InvalidCommand:
            return None
    return None


def _applied(database_url: str, log: str) -> dict[int, tuple[int, int]]:
    connection: psycopg.Connection[Any]
    with psycopg.connect(database_url, connect_timeout=int(CONNECT_TIMEOUT_S), autocommit=True) as connection:
        connection.execute("set statement_timeout = '5s'")
        rows = connection.execute(_APPLIED, (log,)).fetchall()
    return {partition: (next_offset, dead) for partition, next_offset, dead in rows}
