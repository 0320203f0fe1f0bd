"""Apply one batch of commands to PostgreSQL in one transaction, behind the fence."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from todo_api.core.commands import Command
from todo_api.core.errors import FenceLost
from todo_api.core.postgres import PatientConnection, translated
from todo_worker import statements as sql
from todo_worker.arrays import BigInts, Ints, Uuids, register
from todo_worker.fold import Earlier, Outcome, Source, TodoState, fold
from todo_worker.idempotency import IdempotencyKeys, KeyTaken
from todo_worker.rings import DELETED, REJECTED, SEEN, RingClock

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S: Final = 2
# The server ends a transaction whose worker is frozen, so that the locks on ``applied`` do not outlive it; waiting for
# such locks ends sooner than the poll interval after which Kafka takes the partitions away.
_SESSION: Final = """
set idle_in_transaction_session_timeout = '5s';
set lock_timeout = '2s';
set statement_timeout = '15s';
set timezone = 'UTC'
"""


class Progress(NamedTuple):
    """How far a partition is applied: the next offset, and how many dead letters came last in a row."""

    next_offset: int
    dead_in_a_row: int


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """The messages [start.next_offset, end.next_offset) of one partition: the commands among them, by offset.

    Offsets in the range without a command are dead letters, written elsewhere before the batch is applied.
    """

    partition: int
    start: Progress
    end: Progress
    commands: Sequence[tuple[int, Command]]


class Applied(NamedTuple):
    """What a batch did, for logs and metrics: how many of its commands changed a todo, were rejected, or were there
    twice (and not rejected). Each command is one of these."""

    changed: int
    rejected: int
    duplicates: int


class Applier:
    """The only writer of todos. One connection, opened when needed, given up after any failure.

    Not for use from several threads. Every method blocks at most about 20 s and raises StoreUnavailable when
    PostgreSQL does not do its part; then nothing, or everything, of the batch took effect: read ``progress`` again.
    """

    def __init__(self, database_url: str, *, log: str, idempotency_hours: int) -> None:
        self._database_url = database_url
        self._log = log
        self._connection: PatientConnection | None = None
        self._rings = RingClock(SEEN, DELETED, REJECTED)
        self._keys = IdempotencyKeys(idempotency_hours)

    def progress(self, partitions: Sequence[int]) -> dict[int, Progress]:
        """Return how far each partition is applied; a partition nobody applied yet begins at 0."""
        with self._transaction("reading progress") as connection:
            connection.execute(sql.CLAIM, {"log": self._log, "partitions": list(partitions)})
            rows = connection.execute(sql.PROGRESS, {"log": self._log, "partitions": list(partitions)})
            return {partition: Progress(offset, dead) for partition, offset, dead in rows}

    def state(self) -> tuple[str, int]:
        """Return (epoch, generation) as committed now."""
        with self._session("reading the generation") as connection:
            row = connection.execute(sql.STATE).fetchone()
            assert row is not None
            return row[0], row[1]

    def apply(self, batches: Sequence[PartitionBatch]) -> Applied:
        """Apply the batches, of different partitions, in one transaction.

        Raises FenceLost, and changes nothing, when a partition is not where its batch starts.
        """
        if self._keys.is_turn_due:
            with self._transaction("emptying a slot of idempotency keys") as connection:
                self._keys.turn(connection)
        while True:
            try:
                return self._apply(batches)
            except KeyTaken:
                log.info("idempotency key taken meanwhile", extra={"event": "worker.key_taken"})

    def _apply(self, batches: Sequence[PartitionBatch]) -> Applied:
        with self._transaction("applying") as connection:
            # Three waits for the server, which may be far away: here for what there is, then for the last write, then
            # for the commit; two more when there are idempotency keys.
            locked = self._lock(connection, batches)
            states, seen = self._known(connection, [c for batch in batches for _, c in batch.commands])
            partition_ids, now_s = _fence(locked.fetchall(), batches)
            self._rings.advance(connection, now_s)
            commands = [
                (Source(partition_ids[batch.partition], offset), command)
                for batch in batches
                for offset, command in batch.commands
            ]
            keyed = [command.command_id for _, command in commands if command.has_idempotency_key]
            key_slot, earlier = self._keys.find(connection, keyed) if keyed else (None, {})
            outcome = fold(commands, states, earlier | seen)
            if key_slot is not None and outcome.keyed:
                self._keys.remember(connection, key_slot, outcome.keyed)
            self._write(connection, outcome, now_s)
            self._advance(connection, batches)
        changed, rejected = sum(state.changes for state in outcome.changed.values()), len(outcome.rejected)
        return Applied(changed, rejected, len(commands) - changed - rejected)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lock(
        self, connection: psycopg.Connection[Any], batches: Sequence[PartitionBatch]
    ) -> psycopg.Cursor[Any]:
        """Take the fence: the rows of ``applied``, locked in order of partition, lest two workers deadlock."""
        return connection.execute(
            sql.LOCK, {"log": self._log, "partitions": [batch.partition for batch in batches]}
        )

    @staticmethod
    def _known(
        connection: psycopg.Connection[Any], commands: Sequence[Command]
    ) -> tuple[dict[UUID, TodoState], dict[UUID, Earlier]]:
        todo_ids = Uuids({command.todo_id for command in commands})
        states: dict[UUID, TodoState] = {}
        seen: dict[UUID, Earlier] = {}
        if not commands:
            return states, seen
        command_ids = Uuids(c.command_id for c in commands if not c.has_idempotency_key)
        deleted = connection.execute(sql.DELETED, {"ids": todo_ids}, binary=True)
        todos = connection.execute(sql.TODOS, {"ids": todo_ids}, binary=True)
        remembered = connection.execute(sql.SEEN, {"ids": command_ids}, binary=True)
        for exists, rows in ((False, deleted), (True, todos)):
            for todo_id, user_id, partition_id, offset in rows:
                source = Source(partition_id, offset)
                states[todo_id] = TodoState(user_id=user_id, source=source, existed=exists, exists=exists)
        for command_id, fingerprint, reason in remembered:
            seen[command_id] = Earlier.read(fingerprint, reason)
        return states, seen

    @staticmethod
    def _write(connection: psycopg.Connection[Any], outcome: Outcome, now_s: int) -> None:
        created = {i: s for i, s in outcome.changed.items() if s.exists and not s.existed}
        updated = {i: s for i, s in outcome.changed.items() if s.exists and s.existed}
        deleted = {i: s for i, s in outcome.changed.items() if not s.exists}
        if created:
            connection.execute(sql.INSERT, _columns(created))
        if updated:
            connection.execute(sql.UPDATE, _columns(updated))
        if deleted:
            connection.execute(sql.DELETE, {"ids": Uuids(deleted)})
            connection.execute(sql.REMEMBER_DELETED, {"slot": DELETED.slot(now_s), **_columns(deleted)})
        if outcome.rejected:
            connection.execute(sql.REMEMBER_REJECTED, _rejections(outcome, REJECTED.slot(now_s)))
        if outcome.seen:
            connection.execute(
                sql.REMEMBER_SEEN,
                {
                    "slot": SEEN.slot(now_s),
                    "ids": Uuids(outcome.seen),
                    "fingerprints": BigInts([first.fingerprint for first in outcome.seen.values()]),
                    "reasons": _sparse([first.reason for first in outcome.seen.values()]),
                },
            )

    def _advance(self, connection: psycopg.Connection[Any], batches: Sequence[PartitionBatch]) -> None:
        moved = connection.execute(
            sql.ADVANCE,
            {
                "log": self._log,
                "partitions": [batch.partition for batch in batches],
                "expected": [batch.start.next_offset for batch in batches],
                "next": [batch.end.next_offset for batch in batches],
                "dead": [batch.end.dead_in_a_row for batch in batches],
            },
        ).fetchall()
        if len(moved) != len(batches):
            raise FenceLost("a partition moved although its row was locked")

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[psycopg.Connection[Any]]:
        """Statements of the body go out together, until one of them is fetched from.

        Each begins when the one before it is done, and sees what was committed until then: what follows a lock may
        look at what it guards. The first one that fails is raised by the next fetch, or at the end, in place of the
        commit.
        """
        # Not psycopg's transaction(): in a pipeline it waits for the server at its begin, and twice at its end.
        with self._session(doing) as connection, connection.pipeline():
            connection.execute("begin")
            try:
                yield connection
            except psycopg.OperationalError:
                # Or leaving the pipeline would wait once more for a server that does not answer.
                connection.close()
                raise
            connection.execute("commit")

    @contextmanager
    def _session(self, doing: str) -> Iterator[psycopg.Connection[Any]]:
        try:
            with translated(doing):
                yield self._connected()
        except BaseException:
            # Whatever it was, what this connection and the ring clock believe may be wrong now. And a transaction that
            # was not committed ends with its connection.
            self._rings.forget()
            self.close()
            raise

    def _connected(self) -> PatientConnection:
        if self._connection is None:
            connection = PatientConnection.connect(
                self._database_url, connect_timeout=_CONNECT_TIMEOUT_S, autocommit=True
            )
            try:
                connection.execute(_SESSION)
                register(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _fence(rows: Sequence[Sequence[Any]], batches: Sequence[PartitionBatch]) -> tuple[dict[int, int], int]:
    """Compare the rows locked with where the batches start; return the ids of the partitions, and the time.

    Raises FenceLost.
    """
    found = {partition: next_offset for partition, _, next_offset, _ in rows}
    if any(found.get(batch.partition) != batch.start.next_offset for batch in batches):
        raise FenceLost("another worker applied part of this batch")
    return {partition: partition_id for partition, partition_id, _, _ in rows}, rows[0][3]


def _columns(states: Mapping[UUID, TodoState]) -> dict[str, list[Any] | None]:
    values = states.values()
    return {
        "ids": Uuids(states),
        "user_ids": [state.user_id for state in values],
        "titles": _sparse([state.title for state in values]),
        "descriptions": _sparse([state.description for state in values]),
        "completed": _sparse([state.completed for state in values]),
        "created_at": [state.created_at for state in values],
        "updated_at": [state.updated_at for state in values],
        "changes": BigInts([state.changes for state in values]),
        "sources": Ints([state.source.partition_id for state in values]),
        "offsets": BigInts([state.source.offset for state in values]),
    }


def _sparse(values: list[Any]) -> list[Any] | None:
    """Return None for a column of nothing but NULLs: unnest fills up what is missing, and nothing has to be sent."""
    return None if values.count(None) == len(values) else values


def _rejections(outcome: Outcome, slot: int) -> dict[str, Any]:
    return {
        "slot": slot,
        "sources": [source.partition_id for source, _, _ in outcome.rejected],
        "offsets": [source.offset for source, _, _ in outcome.rejected],
        "command_ids": [command.command_id for _, command, _ in outcome.rejected],
        "user_ids": [command.user_id for _, command, _ in outcome.rejected],
        "reasons": [str(reason) for _, _, reason in outcome.rejected],
    }
