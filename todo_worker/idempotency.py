"""The memory of idempotency keys: the first command with a key decides, whichever worker applies it.

A key covers all of its user's requests. Requests with one key about different todos are in different partitions, and
two workers may apply them at the same moment. Then the primary key of ``idempotency_keys`` decides: the second insert
waits for the first, is left out, and its worker begins the batch again, knowing now what came first.

Like the rings (``rings.py``), the table has slots that are used and emptied in turn. But a primary key holds within one
slot only; so which slot is the present one is a row that everybody locks, not a matter of each transaction's clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from todo_worker.arrays import BigInts, Uuids
from todo_worker.fold import Earlier

SLOTS: Final = 4

_SLOT: Final = """
select slot, since + %(period_s)s * interval '1 second' <= now() from idempotency_slot for share
"""
_FIND: Final = (
    "select command_id, fingerprint, reason from idempotency_keys where command_id = any(%(ids)b::uuid[])"
)
_REMEMBER: Final = """
insert into idempotency_keys (slot, command_id, fingerprint, reason)
select %(slot)s, * from unnest(%(ids)b::uuid[], %(fingerprints)b::bigint[], %(reasons)b::text[])
on conflict do nothing
returning slot
"""
_TURN: Final = """
update idempotency_slot set slot = (slot + 1) %% %(slots)s, since = now()
where since + %(period_s)s * interval '1 second' <= now()
returning slot
"""


class KeyTaken(Exception):
    """Another worker's transaction, which committed just now, was first with one of these keys."""


class IdempotencyKeys:
    """Remembers each key for at least ``hours``. Works inside the caller's transactions; not for several threads."""

    def __init__(self, hours: int) -> None:
        self._period_s = hours * 3600 / (SLOTS - 1)
        self.is_turn_due = False

    def turn(self, connection: psycopg.Connection[Any]) -> None:
        """Go on to the next slot and empty it, unless another worker did so, in a transaction that does nothing else.

        Waits for all transactions that write to the present slot.
        """
        turned = connection.execute(_TURN, {"period_s": self._period_s, "slots": SLOTS}).fetchone()
        if turned is not None:
            partition = sql.Identifier(f"idempotency_keys_{turned[0]}")
            connection.execute(sql.SQL("truncate {}").format(partition))
        self.is_turn_due = False

    def find(
        self, connection: psycopg.Connection[Any], ids: Sequence[UUID]
    ) -> tuple[int, dict[UUID, Earlier]]:
        """Return the slot for ``remember``, the present one until this transaction ends, and what is known already."""
        # The lock first: a statement that waited for a turn may look at what was there before it.
        locked = connection.execute(_SLOT, {"period_s": self._period_s})
        found = connection.execute(_FIND, {"ids": Uuids(ids)}, binary=True)
        row = locked.fetchone()
        assert row is not None
        slot, self.is_turn_due = row
        return slot, {
            command_id: Earlier.read(fingerprint, reason) for command_id, fingerprint, reason in found
        }

    def remember(
        self, connection: psycopg.Connection[Any], slot: int, outcomes: Mapping[UUID, Earlier]
    ) -> None:
        """Keep what became of the first commands with these ids. Raises KeyTaken when they were not the first."""
        # In one order for all workers, so that two with several keys in common cannot wait for each other.
        ids = Uuids(sorted(outcomes))
        remembered = connection.execute(
            _REMEMBER,
            {
                "slot": slot,
                "ids": ids,
                "fingerprints": BigInts([outcomes[command_id].fingerprint for command_id in ids]),
                "reasons": [outcomes[command_id].reason for command_id in ids],
            },
        ).fetchall()
        if len(remembered) != len(ids):
            raise KeyTaken
