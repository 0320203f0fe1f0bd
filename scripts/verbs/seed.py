"""``todo seed``"""

import sys
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import psycopg
from rich.progress import track

from scripts.tokens import sign_token
from scripts.tool_settings import data_dir_option, database_url, tool_settings

# Names every seeded todo: the id is the UUIDv5 of user and number, so that a second run makes the same ids.
_NAMESPACE: Final = uuid.UUID("5eed0000-0000-4000-8000-000000000000")
_LIFETIME: Final = timedelta(days=1)
_FIRST_CREATED_AT: Final = datetime(2024, 1, 1, tzinfo=UTC)

_LOCK: Final = "select id, next_offset from applied where log = 'seed' and partition = 0 for update"
_DRAFT: Final = """
create temporary table seed_rows (number bigint, id uuid, title text, created_at timestamptz) on commit drop
"""
_INSERT: Final = """
insert into todos (id, user_id, title, description, completed, created_at, updated_at, version, source, source_offset)
select id, %(user)s, title, '', false, created_at, created_at, 1, %(source)s,
       %(next_offset)s + row_number() over (order by number) - 1
from seed_rows where not exists (select from todos where todos.id = seed_rows.id)
"""
_ADVANCE: Final = "update applied set next_offset = next_offset + %s where id = %s"


@click.command()
@click.option("--count", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True)
@click.option("--user", default="seed-user", show_default=True, help="Whose todos.")
@click.option(
    "--http", "url", metavar="URL", help="Send them to the API at this URL, one create each, instead."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "plain", "none"]),
    default="auto",
    show_default=True,
    help="auto: a bar on a terminal, plain lines elsewhere.",
)
@data_dir_option
def seed(count: int, user: str, url: str | None, progress: str, folder: Path) -> None:
    """Insert many todos at once.

    Past the log, straight into the database, all or none. Safe to repeat: only what is missing is inserted. With --http
    they go the way of every other todo, for one to look at; repeated within a day, they are the same todos.
    """
    numbers = _shown(range(count), progress)
    if url is None:
        _into_the_database(database_url(folder), user, count, numbers)
    else:
        _over_http(url, sign_token(tool_settings(folder), user, _LIFETIME), user, numbers)


def _over_http(url: str, token: str, user: str, numbers: Iterable[int]) -> None:
    try:
        # Not above: without --http its extra is not needed.
        from scripts.seed_http import send_seed
        from todo_api.client import TodoClient, TodoClientError
    except ImportError as ex:
        raise click.ClickException("--http needs an extra: pip install 'todo-api[client]'") from ex
    try:
        with TodoClient(url, token) as client:
            sent = send_seed(client, ((seed_id(user, number), seed_title(number)) for number in numbers))
    except (TodoClientError, ValueError) as ex:
        raise click.ClickException(str(ex)) from ex
    click.echo(f"{sent} todos of {user} accepted by {url}, and applied")


def _into_the_database(url: str, user: str, count: int, numbers: Iterable[int]) -> None:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            inserted = insert_seed(connection, user, numbers)
    except psycopg.Error as ex:
        # Never the URL: it holds a password.
        raise click.ClickException(f"The database at {urlsplit(url).hostname} refused: {ex}") from ex
    click.echo(f"{inserted} todos of {user} inserted, {count - inserted} were there already")


def seed_id(user: str, number: int) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, f"{user}/{number}")


def seed_title(number: int) -> str:
    return f"Seed todo {number:05}"


def insert_seed(connection: psycopg.Connection, user: str, numbers: Iterable[int]) -> int:
    """Insert the todos with these numbers unless they are there, in one transaction; return how many were new.

    Advances the row of ``applied`` that stands for seeding, so that every process learns of a new generation.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "insert into applied (log, partition) values ('seed', 0) on conflict (log, partition) do nothing"
        )
        row = cursor.execute(_LOCK).fetchone()
        assert row is not None
        source, next_offset = row
        cursor.execute(_DRAFT)
        with cursor.copy("copy seed_rows from stdin") as copy:
            for number in numbers:
                copy.write_row(
                    (
                        number,
                        seed_id(user, number),
                        seed_title(number),
                        _FIRST_CREATED_AT + timedelta(milliseconds=number),
                    )
                )
        cursor.execute(_INSERT, {"user": user, "source": source, "next_offset": next_offset})
        inserted = cursor.rowcount
        cursor.execute(_ADVANCE, (inserted, source))
    return inserted


def _shown(numbers: range, progress: str) -> Iterable[int]:
    if progress == "auto":
        progress = "bar" if sys.stdout.isatty() else "plain"
    if progress == "bar":
        return track(numbers, description="Seeding")
    return _plain(numbers) if progress == "plain" else numbers


def _plain(numbers: range) -> Iterator[int]:
    for number in numbers:
        yield number
        if (number + 1) * 10 // len(numbers) > number * 10 // len(numbers):
            click.echo(f"{number + 1} of {len(numbers)} sent")
