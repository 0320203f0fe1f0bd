"""Idempotency keys and conditions where they are decided: several workers on one real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scripts.stack.server import wait_until
from tests.support.commands import create, delete, keyed, update
from todo_api.core.commands import Command
from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import ReadStore
from todo_worker.applier import Applied, Applier, PartitionBatch, Progress
from todo_worker.idempotency import SLOTS

LOG = "test:todo-commands"
HOURS = 24


class Workers:
    """Appliers over one database; each knows where its partitions are, as the worker does."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self._appliers: list[Applier] = []

    def new(self) -> Applier:
        applier = Applier(self.database_url, log=LOG, idempotency_hours=HOURS)
        self._appliers.append(applier)
        applier.progress([0, 1])
        return applier

    def apply(self, applier: Applier, partition: int, *commands: Command) -> Applied:
        """Apply, and try again like the worker when the database is slow (a lock is waited for no longer than 2 s)."""
        start = applier.progress([partition])[partition].next_offset
        for _ in range(5):
            try:
                return applier.apply([batch(partition, start, *commands)])
            except StoreUnavailable:
                continue
        raise AssertionError("not applied")

    def close(self) -> None:
        for applier in self._appliers:
            applier.close()

    def query(self, statement: str, *parameters: object) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement, parameters).fetchall()

    def titles(self) -> list[str]:
        return [title for (title,) in self.query("select title from todos order by title")]

    def reasons(self) -> list[tuple[int, int, str]]:
        """Return (partition, offset, reason) of everything that was rejected."""
        return self.query(
            "select partition, source_offset, reason from rejected join applied on source = id order by 1, 2"
        )


def batch(partition: int, start: int, *commands: Command) -> PartitionBatch:
    end = Progress(start + len(commands), 0)
    return PartitionBatch(partition, Progress(start, 0), end, list(enumerate(commands, start)))


@pytest.fixture
def workers(database_url: str) -> Iterator[Workers]:
    workers = Workers(database_url)
    yield workers
    workers.close()


def test_a_key_holds_over_a_restart_of_the_worker(workers: Workers) -> None:
    command = keyed(create(title="once"), "k")
    changed = keyed(create(command.todo_id, title="another"), "k")
    assert workers.apply(workers.new(), 0, command) == Applied(1, 0, 0)
    assert workers.apply(workers.new(), 0, command, changed).rejected == 1
    assert workers.titles() == ["once"]
    assert workers.reasons() == [(0, 2, "idempotency_key_reused")]


def test_a_key_that_was_used_for_a_todo_of_another_partition_is_taken(workers: Workers) -> None:
    one, two = create(title="one"), create(title="two")
    worker = workers.new()
    workers.apply(worker, 0, one)
    workers.apply(worker, 1, two)
    workers.apply(worker, 0, keyed(update(one.todo_id, title="changed"), "k"))
    workers.apply(workers.new(), 1, keyed(update(two.todo_id, title="changed"), "k"))
    assert workers.titles() == ["changed", "two"]
    assert workers.reasons() == [(1, 1, "idempotency_key_reused")]


def test_the_key_of_a_todo_that_was_deleted_makes_no_second_one(workers: Workers) -> None:
    command = keyed(create(), "k")
    workers.apply(workers.new(), 0, command, delete(command.todo_id))
    workers.apply(workers.new(), 0, command)
    assert workers.titles() == []
    assert workers.reasons() == []


def test_what_was_rejected_is_rejected_again_with_the_same_reason(workers: Workers) -> None:
    missing = create()
    command, without_key = keyed(delete(missing.todo_id), "k"), delete(missing.todo_id)
    workers.apply(workers.new(), 0, command, without_key, missing)
    workers.apply(workers.new(), 0, command, without_key)
    assert workers.reasons() == [(0, offset, "no_such_todo") for offset in (0, 1, 3, 4)]
    assert len(workers.titles()) == 1


def test_a_log_read_again_from_its_start_gives_the_same_with_keys_and_conditions(workers: Workers) -> None:
    first, worker = keyed(create(title="a"), "a"), workers.new()
    ((source,),) = workers.query("select id from applied where partition = 0")
    commands = [
        first,
        keyed(update(first.todo_id, title="b", if_match=(f"{source}-0",)), "b"),
        keyed(update(first.todo_id, title="c", if_match=(f"{source}-0",)), "c"),
        keyed(update(first.todo_id, title="d"), "b"),
        update(first.todo_id, title="e", if_match=(f"{source}-1",)),
    ]
    outcome = (["e"], [(0, 2, "precondition_failed"), (0, 3, "idempotency_key_reused")])
    workers.apply(worker, 0, *commands)
    assert (workers.titles(), workers.reasons()) == outcome
    # What is remembered of the commands, and without that the offsets in the rows, are each enough.
    for forget in ("select", "truncate seen, idempotency_keys"):
        with psycopg.connect(workers.database_url) as connection:
            connection.execute(forget)
            connection.execute("update applied set next_offset = 0")
        for command in commands:
            workers.apply(worker, 0, command)
        assert (workers.titles(), workers.reasons()) == outcome


def test_the_version_that_is_read_can_be_insisted_on_until_the_todo_changes(workers: Workers) -> None:
    store = ReadStore(workers.database_url, pool_size=1)
    store.start()
    worker, command = workers.new(), create(title="a")

    def version() -> str:
        found = store.read_todo(command.todo_id)
        assert found is not None
        return found[1]

    workers.apply(worker, 0, create(), command)
    first = version()
    workers.apply(worker, 0, update(command.todo_id, title="b", if_match=(first,)))
    second = version()
    workers.apply(worker, 0, delete(command.todo_id, if_match=(first,)))
    assert version() == second != first
    workers.apply(worker, 0, delete(command.todo_id, if_match=(second,)))
    assert store.read_todo(command.todo_id) is None
    assert workers.reasons() == [(0, 3, "precondition_failed")]
    store.stop(1)


def waiting(workers: Workers, count: int) -> bool:
    statement = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    return workers.query(statement) == [(count,)]


def test_of_two_workers_with_one_key_at_the_same_moment_the_first_to_commit_wins(workers: Workers) -> None:
    one, two = keyed(create(title="one"), "k"), keyed(create(title="two"), "k")
    second = workers.new()
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(workers.database_url) as first,
    ):
        # What the first worker's transaction does, held open here where it is about to commit.
        first.execute(
            "insert into idempotency_keys select slot, %s, %s from idempotency_slot for share",
            (one.command_id, one.fingerprint()),
        )
        result = pool.submit(workers.apply, second, 1, two)
        wait_until(lambda: waiting(workers, 1), 10, "the second worker waits for the first")
        first.commit()
        assert result.result(20) == Applied(0, 1, 0)
    assert workers.reasons() == [(1, 0, "idempotency_key_reused")]
    assert workers.titles() == []


def test_a_worker_that_waited_for_one_that_gave_up_goes_on(workers: Workers) -> None:
    command, second = keyed(create(title="two"), "k"), workers.new()
    with ThreadPoolExecutor(1) as pool, psycopg.connect(workers.database_url) as first:
        first.execute("insert into idempotency_keys values (0, %s, 1)", (command.command_id,))
        result = pool.submit(workers.apply, second, 1, command)
        wait_until(lambda: waiting(workers, 1), 10, "the second worker waits for the first")
        first.rollback()
        assert result.result(20) == Applied(1, 0, 0)
    assert workers.titles() == ["two"]


def test_keys_are_taken_in_one_order_so_that_workers_cannot_deadlock(workers: Workers) -> None:
    low, high = sorted((keyed(create(), "a"), keyed(create(), "b")), key=lambda command: command.command_id)
    second = workers.new()
    insert = "insert into idempotency_keys values (0, %s, 1)"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(workers.database_url) as first:
        # Were there a deadlock, this one would find it.
        first.execute("set deadlock_timeout = '10ms'")
        first.execute(insert, (low.command_id,))
        result = pool.submit(workers.apply, second, 1, high, low)
        wait_until(lambda: waiting(workers, 1), 10, "the second worker waits for the first")
        first.execute(insert, (high.command_id,))
        first.commit()
        assert result.result(20).rejected == 2


def test_two_workers_with_the_same_keys_at_the_same_time_let_each_take_effect_once(workers: Workers) -> None:
    rounds, keys = 6, 50
    pairs = [
        (keyed(create(title=f"{n:03}"), f"k{n}"), keyed(create(title=f"{n:03}"), f"k{n}"))
        for n in range(rounds * keys)
    ]
    both = (workers.new(), workers.new())
    start_together = threading.Barrier(2)

    def run(partition: int) -> None:
        for number in range(rounds):
            commands = [pair[partition] for pair in pairs[number * keys : (number + 1) * keys]]
            start_together.wait(20)
            workers.apply(both[partition], partition, *commands)

    with ThreadPoolExecutor(2) as pool:
        runs: list[Future[None]] = [pool.submit(run, partition) for partition in (0, 1)]
        for one in runs:
            one.result(60)
    assert workers.titles() == [f"{n:03}" for n in range(rounds * keys)]
    assert {reason for _, _, reason in workers.reasons()} == {"idempotency_key_reused"}
    assert len(workers.reasons()) == rounds * keys


def present_slot(workers: Workers) -> int:
    ((slot,),) = workers.query("select slot from idempotency_slot")
    return int(slot)


def age(workers: Workers, hours: float) -> None:
    """Let time pass for the slot in use."""
    with psycopg.connect(workers.database_url) as connection:
        connection.execute("update idempotency_slot set since = since - %s * interval '1 hour'", (hours,))


def is_remembered(workers: Workers, command_id: UUID) -> bool:
    return bool(workers.query("select from idempotency_keys where command_id = %s", command_id))


def test_a_key_is_remembered_for_its_hours_and_then_forgotten_with_its_whole_slot(workers: Workers) -> None:
    first = keyed(create(title="first"), "first")
    worker = workers.new()
    workers.apply(worker, 0, first)
    hours_each = HOURS / (SLOTS - 1)
    for number in range(SLOTS):
        assert is_remembered(workers, first.command_id)
        assert present_slot(workers) == number
        age(workers, hours_each)
        # The batch that notices that it is time, and the one before which the slot is turned.
        for when in ("due", "turned"):
            workers.apply(worker, 0, keyed(create(), f"{number} {when}"))
    assert not is_remembered(workers, first.command_id)
    assert present_slot(workers) == 0
    # With it the one that came when its slot was due; the slot was emptied before the last one was written there.
    assert workers.query("select count(*) from idempotency_keys") == [(2 * SLOTS - 1,)]
    # A create with it is not said to have been applied: nobody knows whether it is the same one.
    again = keyed(create(first.todo_id, title="another"), "first")
    assert workers.apply(worker, 0, again) == Applied(0, 1, 0)
    assert "another" not in workers.titles()


def test_two_workers_that_find_it_is_time_turn_to_the_next_slot_once(workers: Workers) -> None:
    both = (workers.new(), workers.new())
    age(workers, HOURS)
    for turn in range(2):
        for partition, worker in enumerate(both):
            workers.apply(worker, partition, keyed(create(), f"{turn} {partition}"))
    assert present_slot(workers) == 1
    assert workers.query("select count(*) from idempotency_keys") == [(4,)]


def test_a_slot_is_not_turned_while_a_transaction_writes_to_it(workers: Workers) -> None:
    """Else two transactions that do not see each other could insert one key into two slots."""
    writer, turner = workers.new(), workers.new()
    age(workers, HOURS)
    workers.apply(turner, 0, keyed(create(), "due"))
    with ThreadPoolExecutor(2) as pool, psycopg.connect(workers.database_url) as holder:
        # Between learning the slot and looking keys up, where nothing but its lock on the slot's row protects it.
        holder.execute("lock idempotency_keys_0")
        results = [pool.submit(workers.apply, writer, 1, keyed(create(), "held"))]
        wait_until(lambda: waiting(workers, 1), 10, "the writer is held up")
        results.append(pool.submit(workers.apply, turner, 0, keyed(create(), "turned")))
        wait_until(lambda: waiting(workers, 2), 10, "the turn waits for the writer")
        assert present_slot(workers) == 0
        holder.rollback()
        for result in results:
            assert result.result(20).changed == 1
    assert present_slot(workers) == 1
