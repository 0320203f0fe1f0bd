"""Bring the database to the schema this version needs.

Versioned SQL files in ``sql/migrations``, applied in the order of their names by yoyo-migrations, which keeps its
list of what is applied in the database.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from yoyo import get_backend, read_migrations
from yoyo.exceptions import BadMigration

from todo_api.core.errors import StoreUnavailable

# Any constant does; it must stay the same, so that two versions of ours never migrate at once.
_LOCK_KEY: Final = 0x746F646F
_CONNECT_TIMEOUT_S: Final = 5
_LOCK_TIMEOUT_S: Final = 60
_LOOK_AGAIN_S: Final = 0.2


def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return the names of what was applied, oldest first.

    Waits up to 60 s for another process that is migrating; two starts at once are safe. Raises StoreUnavailable
    when the database cannot be reached, is too busy, or a migration fails (each runs in its own transaction).
    """
    with (
        as_file(files("todo_api.core") / "sql" / "migrations") as folder,
        _locked(database_url) as connection,
    ):
        migrations = read_migrations(str(folder))
        backend = get_backend(_yoyo_url(database_url, connection))
        try:
            # yoyo's own lock is a row, which stays behind when its holder is killed; the advisory lock does not.
            missing = backend.to_apply(migrations)
            names = [migration.id for migration in missing]
            backend.apply_migrations(missing)
        except (psycopg.Error, BadMigration) as ex:
            raise StoreUnavailable(f"migration failed: {ex}") from ex
        finally:
            backend.connection.close()
        return names


def _yoyo_url(database_url: str, connection: psycopg.Connection) -> str:
    """Return the URL that makes yoyo use psycopg 3, and the one host of several that ``connection`` has found."""
    parts = urlsplit(database_url)
    place = parts.netloc
    if "," in place:
        user, at, _ = place.rpartition("@")
        host = connection.info.host
        place = f"{user}{at}{f'[{host}]' if ':' in host else host}:{connection.info.port}"
    return parts._replace(scheme="postgresql+psycopg", netloc=place).geturl()


def pending(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the names of the migrations that ``migrate`` would apply, oldest first. Changes nothing."""
    with as_file(files("todo_api.core") / "sql" / "migrations") as folder:
        known = [migration.id for migration in read_migrations(str(folder))]
    listed = connection.execute("select to_regclass('_yoyo_migration') is not null").fetchone()
    assert listed is not None
    done = (
        set(connection.execute("select migration_id from _yoyo_migration").fetchall()) if listed[0] else set()
    )
    return [name for name in known if (name,) not in done]


def new_epoch(database_url: str) -> str:
    """Give the database a new epoch and return it. For a restored backup: pages cached before it become unreachable."""
    with _locked(database_url) as connection:
        row = connection.execute(
            "update epoch set id = left(replace(gen_random_uuid()::text, '-', ''), 16) returning id"
        ).fetchone()
        assert row is not None
        return str(row[0])


@contextmanager
def _locked(database_url: str) -> Iterator[psycopg.Connection]:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    try:
        with psycopg.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S, autocommit=True) as connection:
            connection.execute(f"set statement_timeout = '{_LOCK_TIMEOUT_S}s'")
            # Asked for again and again: a statement that waits for the lock would hold up CREATE INDEX CONCURRENTLY in
            # the process that has it, which waits for every statement begun before.
            while not _is_locked(connection):
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"another process has been migrating for {_LOCK_TIMEOUT_S} s")
                time.sleep(_LOOK_AGAIN_S)
            yield connection
    except psycopg.Error as ex:
        raise StoreUnavailable(f"database not usable for migrations: {ex}") from ex


def _is_locked(connection: psycopg.Connection) -> bool:
    row = connection.execute("select pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
    return row is not None and bool(row[0])
