"""PostgreSQL: there, migrated, with room for our connections, and a clock that agrees."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from config.settings import Settings
from scripts.doctor.checked import CONNECT_TIMEOUT_S, Checked, Clock, check_clock, ok, problem, skipped
from todo_api.core import migrations

_ANSWER_TIMEOUT: Final = "set statement_timeout = '5s'"
_CONNECTIONS: Final = """
select current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
"""


def check_postgres(settings: Settings, *, instances: int, workers: int, clock: Clock) -> Iterator[Checked]:
    """Check all of it. Blocks at most a few seconds a check. Raises nothing of psycopg's."""
    place = "PostgreSQL"
    try:
        place = _place(settings.database_url)
        with psycopg.connect(
            settings.database_url, connect_timeout=int(CONNECT_TIMEOUT_S), autocommit=True
        ) as connection:
            connection.execute(_ANSWER_TIMEOUT)
            yield ok("postgres", f"{place} answers")
            yield from _check_migrations(connection)
            yield from _check_connections(connection, settings, instances, workers)
            yield from check_clock("clock of PostgreSQL", place, lambda: _time(connection), clock)
    except psycopg.Error as ex:
        yield problem(
            "postgres",
            f"{place} does not serve us: {_first_line(ex)}",
            "Start PostgreSQL, or correct DATABASE_URL: host, port, user, password, database.",
        )
        yield skipped("migrations", "PostgreSQL does not answer")


def _check_migrations(connection: psycopg.Connection[Any]) -> Iterator[Checked]:
    pending = migrations.pending(connection)
    if pending:
        yield problem("migrations", f"not applied yet: {', '.join(pending)}", "Run `todo migrate`.")
    else:
        yield ok("migrations", "the schema is up to date")


def _check_connections(
    connection: psycopg.Connection[Any], settings: Settings, instances: int, workers: int
) -> Iterator[Checked]:
    row = connection.execute(_CONNECTIONS).fetchone()
    assert row is not None
    usable = int(row[0])
    # As in todo_api/app.py; a worker holds one.
    per_instance = settings.processes * max(1, settings.db_pool_size // settings.processes)
    wanted = instances * per_instance + workers
    said = (
        f"{instances} API instance(s) of {settings.processes} process(es) and {workers} worker(s) may open {wanted} "
        f"connections, PostgreSQL has {usable} for them (max_connections less the reserved ones)"
    )
    if wanted <= usable:
        yield ok("connections to PostgreSQL", said)
        return
    fitting = (usable - workers) // instances
    yield problem(
        "connections to PostgreSQL",
        said,
        f"Set DB_POOL_SIZE to {fitting} or less, or raise max_connections."
        if fitting >= settings.processes
        else "Raise max_connections, or put pgbouncer in between: there is not one connection for each process.",
    )


def _time(connection: psycopg.Connection[Any]) -> float:
    row = connection.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def _place(url: str) -> str:
    # Never the URL itself: it holds a password. There may be several hosts, with a port each or one for all.
    info = conninfo_to_dict(url)
    hosts, ports = str(info.get("host") or "the local socket"), str(info.get("port") or 5432)
    return "PostgreSQL at " + ", ".join(map(":".join, zip(hosts.split(","), cycle(ports.split(",")))))


def _first_line(ex: psycopg.Error) -> str:
    return str(ex).strip().partition("\n")[0] or type(ex).__name__
