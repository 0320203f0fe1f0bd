"""``todo dlq``: list, show, replay and purge dead letters."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from config.settings import Settings
from scripts import tool_settings
from scripts.dead_letters import shown
from scripts.dead_letters.letters import DeadLetter, DeadLetterLog, mark_replayed
from scripts.dead_letters.safe_text import safe
from todo_api.core.command_log.connect import (
    DEAD_LETTERS_PARTITIONS,
    dead_letters_topic,
    make_dead_letter_publisher,
    make_publisher,
)
from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.command_log.reader import LogReader, make_reader

_PUBLISH_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 2.0

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


class Age(click.ParamType[timedelta]):
    """A number and d, h or m."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        number, unit = value[:-1], value[-1:]
        if not number.isdecimal() or len(number) > 6 or unit not in ("d", "h", "m"):
            self.fail("must be a number and d, h or m, as in 7d", param, ctx)
        return timedelta(**{{"d": "days", "h": "hours", "m": "minutes"}[unit]: int(number)})


@click.group()
def dlq() -> None:
    """List, show, replay and purge dead letters.

    A dead letter is a message that the worker could not understand. It is kept as it was, in a topic of its own.
    """


@dlq.command("list")
@json_option
@tool_settings.data_dir_option
def list_letters(as_json: bool, folder: Path) -> None:
    """List the dead letters, the oldest first.

    A table on a terminal, lines with tabs elsewhere.
    """
    with _dead_letters(tool_settings.tool_settings(folder)) as log:
        if as_json:
            for letter in log.letters():
                click.echo(json.dumps(shown.members(letter)))
        elif sys.stdout.isatty():
            shown.print_table(log.letters(), Console())
        else:
            for letter in log.letters():
                click.echo("\t".join(shown.row(letter)))


@dlq.command()
@click.argument("position", type=click.IntRange(min=0))
@click.option("--raw", is_flag=True, help="Only the bytes of the value, as they are: for a file or a pipe.")
@json_option
@tool_settings.data_dir_option
def show(position: int, raw: bool, as_json: bool, folder: Path) -> None:
    """Show all of the dead letter at POSITION.

    What is not printable is escaped, or shown in hexadecimal.
    """
    with _dead_letters(tool_settings.tool_settings(folder)) as log:
        letter = _find(log, [position])[0]
    if raw:
        click.echo(letter.message.value or b"", nl=False)
    elif as_json:
        click.echo(json.dumps(shown.full_members(letter)))
    else:
        for line in shown.full_text(letter):
            click.echo(line)


@dlq.command()
@click.argument("positions", type=click.IntRange(min=0), nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every dead letter that was not replayed yet.")
@tool_settings.data_dir_option
def replay(positions: tuple[int, ...], every: bool, folder: Path) -> None:
    """Put dead letters back into the command log.

    Each at most once, with its own key and bytes, and only where no later command for the same todo is there:
    otherwise it is refused with the reason. Run it when workers that understand the messages are up. Exits with 1
    when one was refused.
    """
    if every == bool(positions):
        raise click.UsageError("Give the positions, or --all.")
    # Only here: `todo dlq list` needs no database.
    import psycopg

    from scripts.dead_letters.replay import Replayer

    settings = tool_settings.tool_settings(folder)
    with _dead_letters(settings) as log:
        letters = list(log.letters())
        chosen = (
            [letter for letter in letters if letter.replayed_to is None]
            if every
            else _find(log, sorted(positions))
        )
        if not chosen:
            click.echo("There is nothing to replay.")
            return
        url = tool_settings.database_url(folder)
        try:
            with (
                psycopg.connect(url, connect_timeout=5, autocommit=True) as connection,
                closing(_reader(settings, settings.kafka_todo_topic, settings.kafka_partitions)) as reader,
                _publishers(settings) as (commands, marks),
            ):
                connection.execute("set statement_timeout = '10s'")
                replayer = Replayer(
                    reader, commands, connection, letters, lambda at, to: mark_replayed(marks, at, to)
                )
                results = [_say(replayer.replay(letter)) for letter in chosen]
        except psycopg.Error as ex:
            raise click.ClickException(f"The database: {ex}") from ex
    sys.exit(0 if all(result.is_good for result in results) else 1)


@dlq.command()
@click.option("--before", type=click.IntRange(min=0), help="Those at positions below this one.")
@click.option("--older-than", type=Age(), help="Those written longer ago than this: 7d, 12h, 30m.")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@tool_settings.data_dir_option
def purge(before: int | None, older_than: timedelta | None, every: bool, yes: bool, folder: Path) -> None:
    """Throw away the oldest dead letters, for good.

    Asks before it does, and says how many of them were never replayed.
    """
    if (before is not None) + (older_than is not None) + every != 1:
        raise click.UsageError("Give one of --before, --older-than, --all.")
    with _dead_letters(tool_settings.tool_settings(folder)) as log:
        end = log.bounds().end
        cut = before if before is not None else end
        doomed = []
        for letter in log.letters():
            # Only from the front: a letter without a time keeps what is behind it.
            if letter.position >= cut or (older_than is not None and not _is_older(letter, older_than)):
                cut = letter.position if older_than is not None else cut
                break
            doomed.append(letter)
        if not doomed:
            click.echo("There is nothing to purge.")
            return
        waiting = sum(letter.replayed_to is None for letter in doomed)
        question = f"Throw away {len(doomed)} dead letters, {waiting} of them never replayed?"
        if not yes and not click.confirm(question):
            raise click.Abort
        log.purge(min(cut, end))
        click.echo(f"{len(doomed)} dead letters thrown away")


def _reader(settings: Settings, topic: str, partitions: int) -> LogReader:
    return make_reader(
        settings.command_log,
        brokers=settings.kafka_brokers,
        topic=topic,
        partitions=partitions,
        redis_url=settings.redis_url,
        security=KafkaSecurity(**settings.kafka_security),
    )


@contextmanager
def _dead_letters(settings: Settings) -> Iterator[DeadLetterLog]:
    topic = dead_letters_topic(settings.kafka_todo_topic)
    with closing(_reader(settings, topic, DEAD_LETTERS_PARTITIONS)) as reader:
        yield DeadLetterLog(reader)


@contextmanager
def _publishers(settings: Settings) -> Iterator[tuple[Any, Any]]:
    """Yield the publisher of commands and that of dead letters."""
    where: dict[str, Any] = {
        "brokers": settings.kafka_brokers,
        "topic": settings.kafka_todo_topic,
        "redis_url": settings.redis_url,
        "security": KafkaSecurity(**settings.kafka_security),
        "timeout_s": _PUBLISH_TIMEOUT_S,
    }
    publishers = (
        make_publisher(settings.command_log, partitions=settings.kafka_partitions, **where),
        make_dead_letter_publisher(settings.command_log, **where),
    )
    try:
        for publisher in publishers:
            publisher.start()
        yield publishers
    finally:
        for publisher in publishers:
            publisher.close(_CLOSE_TIMEOUT_S)


def _find(log: DeadLetterLog, positions: list[int]) -> list[DeadLetter]:
    found = {letter.position: letter for letter in log.letters() if letter.position in positions}
    for position in positions:
        if position not in found:
            raise click.ClickException(f"There is no dead letter at position {position}.")
    return [found[position] for position in positions]


def _say(result: Any) -> Any:
    prefix = "refused: " if result.to is None else ""
    click.echo(f"{result.letter.position}: {prefix}{safe(result.text)}", err=not result.is_good)
    return result


def _is_older(letter: DeadLetter, age: timedelta) -> bool:
    return letter.time is not None and letter.time < datetime.now(UTC) - age
