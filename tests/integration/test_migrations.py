"""Upgrades of a database that has data in it."""

from collections.abc import Iterator
from importlib.resources import as_file, files
from urllib.parse import urlsplit

import psycopg
import pytest
from yoyo import get_backend, read_migrations

from scripts.stack.postgres import LocalPostgres
from scripts.stack.server import free_port
from tests.support.commands import create, delete, keyed, update
from todo_api.core.migrations import migrate
from todo_worker.applier import Applied, Applier, PartitionBatch, Progress
from todo_worker.rings import DELETED, SEEN, RingClock

LOG = "test:todo-commands"


@pytest.fixture
def old_database_url(postgres: LocalPostgres) -> Iterator[str]:
    """A database as the first release left it, with a todo in it that was changed, and one that was deleted."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database old_release")
        url = postgres.database_url("old_release")
        backend = get_backend(f"postgresql+psycopg://{url.partition('://')[2]}")
        with as_file(files("todo_api.core") / "sql" / "migrations") as folder:
            backend.apply_migrations(
                read_migrations(str(folder)).filter(lambda found: found.id == "0001.todos")
            )
        backend.connection.close()
        yield url
        connection.execute("drop database old_release with (force)")


def test_the_first_release_is_upgraded_with_its_data(old_database_url: str) -> None:
    kept, gone, seen = create(title="kept"), create(), update(create().todo_id, title="x")
    with psycopg.connect(old_database_url) as connection:
        row = connection.execute("select extract(epoch from now())::bigint").fetchone()
        assert row is not None
        (now_s,) = row
        RingClock(SEEN, DELETED).advance(connection, now_s)
        connection.execute("insert into applied (log, partition, next_offset) values (%s, 0, 3)", (LOG,))
        connection.execute(
            "insert into todos select %s, 'ann', 'kept', '', false, now(), now(), 1, id, 0 from applied",
            (kept.todo_id,),
        )
        connection.execute(
            "insert into deleted select %s, %s, 'ann', id, 1 from applied",
            (DELETED.slot(now_s), gone.todo_id),
        )
        connection.execute(
            "insert into seen values (%s, %s, %s)", (SEEN.slot(now_s), seen.command_id, seen.fingerprint())
        )

    assert migrate(old_database_url) != []
    assert migrate(old_database_url) == []

    applier = Applier(old_database_url, log=LOG, idempotency_hours=24)
    assert applier.progress([0]) == {0: Progress(3, 0)}
    with psycopg.connect(old_database_url) as connection:
        ((source,),) = connection.execute("select id from applied").fetchall()
        commands = [
            seen,
            keyed(update(kept.todo_id, title="changed", if_match=(f"{source}-0",)), "k"),
            keyed(update(kept.todo_id, title="changed", if_match=(f"{source}-0",)), "k"),
            update(gone.todo_id, title="x"),
            delete(kept.todo_id, user="eve"),
        ]
        applied = applier.apply(
            [PartitionBatch(0, Progress(3, 0), Progress(8, 0), list(enumerate(commands, 3)))]
        )
        assert applied == Applied(changed=1, rejected=2, duplicates=2)
        assert connection.execute("select title, version from todos").fetchall() == [("changed", 2)]
        reasons = connection.execute("select source_offset, reason from rejected order by 1").fetchall()
        assert reasons == [(6, "no_such_todo"), (7, "not_owner")]
    applier.close()


def test_a_database_of_several_hosts_is_migrated_on_the_one_that_answers(old_database_url: str) -> None:
    host = urlsplit(old_database_url).netloc.rpartition("@")[2]
    several = old_database_url.replace(host, f"127.0.0.1:{free_port()},{host}")
    assert migrate(several) == ["0002.todos-of-a-user", "0003.idempotency-keys"]
    assert migrate(several) == []
