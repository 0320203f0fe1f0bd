"""The applier against a real PostgreSQL."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.commands import create, delete, update
from tests.support.tcp_proxy import TcpProxy
from todo_api.core.command_log import Position
from todo_api.core.commands import Command
from todo_api.core.errors import FenceLost, StoreUnavailable
from todo_api.core.store import Fate, ReadStore
from todo_worker.applier import Applied, Applier, PartitionBatch, Progress
from todo_worker.rings import SEEN, Ring, RingClock

LOG = "test:todo-commands"


@pytest.fixture
def applier(database_url: str) -> Iterator[Applier]:
    applier = Applier(database_url, log=LOG, idempotency_hours=24)
    applier.progress([0, 1])
    yield applier
    applier.close()


def batch(*commands: Command, start: int = 0, partition: int = 0) -> PartitionBatch:
    end = start + len(commands)
    return PartitionBatch(partition, Progress(start, 0), Progress(end, 0), list(enumerate(commands, start)))


def rows(database_url: str, table: str) -> list[dict[str, Any]]:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        return connection.execute(f"select * from {table}").fetchall()


def todo(database_url: str, todo_id: UUID) -> dict[str, Any] | None:
    return next((row for row in rows(database_url, "todos") if row["id"] == todo_id), None)


def test_creates_updates_and_deletes_over_several_batches_give_the_expected_rows(
    applier: Applier, database_url: str
) -> None:
    kept, dropped, short_lived = create(title="kept", description="d"), create(), create()
    applier.apply([batch(kept, dropped)])
    applier.apply(
        [
            batch(
                update(kept.todo_id, completed=True, at_s=5),
                delete(dropped.todo_id),
                short_lived,
                delete(short_lived.todo_id),
                start=2,
            )
        ]
    )
    (row,) = rows(database_url, "todos")
    assert (row["id"], row["title"], row["description"], row["completed"]) == (
        kept.todo_id,
        "kept",
        "d",
        True,
    )
    assert row["created_at"] == kept.issued_at
    assert (row["updated_at"] - row["created_at"]).total_seconds() == 5
    assert (row["version"], row["source_offset"]) == (2, 2)
    assert {row["todo_id"] for row in rows(database_url, "deleted")} == {dropped.todo_id, short_lived.todo_id}


@pytest.mark.parametrize("contents", [{"title": "x"}, {"description": "x"}, {"completed": True}])
def test_an_update_alone_in_its_batch_changes_only_what_it_names(
    applier: Applier, database_url: str, contents: dict[str, Any]
) -> None:
    created = create(title="t", description="d")
    applier.apply([batch(created)])
    applier.apply([batch(update(created.todo_id, **contents), start=1)])
    row = todo(database_url, created.todo_id)
    assert row is not None
    expected = {"title": "t", "description": "d", "completed": False} | contents
    assert {name: row[name] for name in expected} == expected


def test_the_generation_is_the_number_of_commands_applied(applier: Applier) -> None:
    before = applier.state()
    applier.apply([batch(create(), create()), batch(create(), partition=1)])
    epoch, generation = applier.state()
    assert (epoch, generation) == (before[0], before[1] + 3)


def test_a_batch_that_does_not_start_where_the_partition_is_changes_nothing(
    applier: Applier, database_url: str
) -> None:
    applier.apply([batch(create())])
    with pytest.raises(FenceLost):
        applier.apply([batch(create(), partition=1), batch(create())])
    assert len(rows(database_url, "todos")) == 1
    assert applier.progress([0, 1]) == {0: Progress(1, 0), 1: Progress(0, 0)}


def test_of_two_workers_with_the_same_batch_one_applies_it(applier: Applier, database_url: str) -> None:
    other = Applier(database_url, log=LOG, idempotency_hours=24)
    work = batch(create())
    applier.apply([work])
    with pytest.raises(FenceLost):
        other.apply([work])
    other.close()
    assert len(rows(database_url, "todos")) == 1


def test_a_log_read_again_from_its_start_leaves_every_row_as_it_is(
    applier: Applier, database_url: str
) -> None:
    first, second = create(), create()
    commands = [
        first,
        update(first.todo_id, title="x"),
        second,
        delete(second.todo_id),
        delete(create().todo_id),
    ]
    applier.apply([batch(*commands)])
    before = [rows(database_url, table) for table in ("todos", "deleted", "rejected")]
    # Even when the command ids are forgotten: the offsets in the rows are enough.
    with psycopg.connect(database_url) as connection:
        connection.execute("truncate seen")
        connection.execute("update applied set next_offset = 0")
    for index, command in enumerate(commands):
        applier.apply([batch(command, start=index)])
        assert todo(database_url, second.todo_id) is None
    after = [rows(database_url, table) for table in ("todos", "deleted", "rejected")]
    assert after == before


def test_records_appended_again_take_effect_once(applier: Applier, database_url: str) -> None:
    first = create()
    commands = [first, update(first.todo_id, title="x"), update(first.todo_id, title="y")]
    applier.apply([batch(*commands)])
    before = rows(database_url, "todos")
    applied = applier.apply([batch(*reversed(commands), start=3)])
    assert rows(database_url, "todos") == before
    assert applied.duplicates == 3


def test_rejected_commands_are_recorded_with_their_place_and_reason(
    applier: Applier, database_url: str
) -> None:
    created = create()
    applier.apply(
        [batch(created, update(created.todo_id, user="eve", title="mine"), delete(create().todo_id))]
    )
    found = {(row["source_offset"], row["user_id"], row["reason"]) for row in rows(database_url, "rejected")}
    assert found == {(1, "eve", "not_owner"), (2, "ann", "no_such_todo")}


def test_every_command_is_counted_as_changed_rejected_or_there_twice(applier: Applier) -> None:
    created = create()
    refused = update(created.todo_id, user="eve", title="mine")
    changes = [created, update(created.todo_id, title="x"), delete(created.todo_id)]
    assert applier.apply([batch(*changes, refused, refused, created)]) == Applied(3, 2, 1)
    assert applier.apply([batch(refused, refused, *changes, start=6)]) == Applied(0, 2, 3)


def test_text_of_every_kind_reads_back_exactly(applier: Applier, database_url: str) -> None:
    text = 'quote " backslash \\ {braces,} NULL null 漢字 \U0001f600 \x01\x1f \u202e e\u0301 \ufeff end'
    created = create(title=text, description=text + "\n\ttabs\r\n")
    applier.apply([batch(created)])
    row = todo(database_url, created.todo_id)
    assert row is not None
    assert (row["title"], row["description"]) == (created.title, created.description)


def test_a_thousand_updates_of_one_todo_in_one_batch_end_with_the_last(
    applier: Applier, database_url: str
) -> None:
    created = create()
    applier.apply([batch(created, *(update(created.todo_id, title=f"t{n}") for n in range(1000)))])
    row = todo(database_url, created.todo_id)
    assert row is not None
    assert (row["title"], row["version"]) == ("t999", 1001)


def test_a_batch_of_dead_letters_only_moves_on_and_keeps_their_count(applier: Applier) -> None:
    applier.apply([PartitionBatch(0, Progress(0, 0), Progress(3, 3), [])])
    assert applier.progress([0]) == {0: Progress(3, 3)}


def test_a_worker_frozen_in_its_transaction_does_not_hold_the_partition(
    applier: Applier, database_url: str
) -> None:
    """Its session is ended by the server after 5 s (idle_in_transaction_session_timeout)."""
    with psycopg.connect(database_url) as zombie:
        zombie.execute("set idle_in_transaction_session_timeout = '1s'")
        zombie.commit()
        zombie.execute("select * from applied for update")
        work = [batch(create())]
        for _ in range(20):
            try:
                applier.apply(work)
                break
            except StoreUnavailable:
                continue
        assert len(rows(database_url, "todos")) == 1
        zombie.close()


def test_a_ring_forgets_a_slot_when_its_turn_comes_round_and_not_before(database_url: str) -> None:
    clock, ring = RingClock(SEEN), SEEN
    with psycopg.connect(database_url) as connection:
        for period in range(ring.slots + 1):
            now_s = 1_000_000 * ring.period_s + period * ring.period_s
            clock.advance(connection, now_s)
            connection.execute(
                "insert into seen values (%s, gen_random_uuid(), %s)", (ring.slot(now_s), period)
            )
            kept = {row[0] for row in connection.execute("select fingerprint from seen")}
            assert kept == set(range(max(0, period - ring.slots + 1), period + 1))


def test_a_clock_that_steps_back_empties_nothing(database_url: str) -> None:
    ring = Ring("seen", slots=5, period_s=300)
    with psycopg.connect(database_url) as connection:
        RingClock(ring).advance(connection, 3000)
        connection.execute("insert into seen values (%s, gen_random_uuid(), 1)", (ring.slot(3000),))
        RingClock(ring).advance(connection, 2700)
        RingClock(ring).advance(connection, 3000)
        assert connection.execute("select count(*) from seen").fetchone() == (1,)


def test_a_database_that_is_away_is_unavailable_and_comes_back_by_itself(own_postgres: Any) -> None:
    applier = Applier(own_postgres.url, log=LOG, idempotency_hours=24)
    assert applier.progress([0]) == {0: Progress(0, 0)}
    own_postgres.process.kill()
    with pytest.raises(StoreUnavailable):
        applier.apply([batch(create())])
    own_postgres.process.start()
    applier.apply([batch(create())])
    assert applier.progress([0]) == {0: Progress(1, 0)}
    applier.close()


def test_the_fate_of_a_command_is_read_from_its_position_alone(applier: Applier, database_url: str) -> None:
    store = ReadStore(database_url, pool_size=1)
    store.start()
    applier.apply([batch(create(), delete(create().todo_id))])
    fates = [store.read_fate(Position(LOG, 0, offset)) for offset in range(3)]
    assert fates == [Fate(True, None), Fate(True, "no_such_todo"), Fate(False, None)]
    assert store.read_fate(Position("another:log", 0, 0)) == Fate(False, None)
    store.stop(1)


def test_a_batch_asks_the_server_three_times_however_much_is_in_it(database_url: str) -> None:
    port = urlsplit(database_url).port
    assert port is not None
    with TcpProxy(port) as proxy:
        applier = Applier(database_url.replace(f":{port}/", f":{proxy.port}/"), log=LOG, idempotency_hours=24)
        applier.progress([0, 1])
        kept, dropped = create(), create()
        applier.apply([batch(kept, dropped)])
        before = proxy.round_trips
        unknown = update(create().todo_id, title="x")
        applied = applier.apply(
            [
                batch(update(kept.todo_id, title="y"), delete(dropped.todo_id), unknown, start=2),
                batch(create(), create(), partition=1),
            ]
        )
        assert (applied.changed, applied.rejected) == (4, 1)
        assert proxy.round_trips - before == 3
        applier.close()
