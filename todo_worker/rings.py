"""Memory that ends by itself: a table in as many partitions as it has periods to remember, used in turn.

A row written now goes to the slot of the present period. When a period begins whose slot was used before, that slot
is emptied (TRUNCATE: no dead rows, no vacuum, whatever its size). So a ring of N slots remembers everything for at
least N - 1 periods. The clock is the database's.
"""

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class Ring:
    table: str
    slots: int
    period_s: int

    def slot(self, now_s: int) -> int:
        """Return the slot that rows written at ``now_s`` (seconds since 1970, the database's clock) belong to."""
        return now_s // self.period_s % self.slots


# The partitions are made by the migrations; the numbers must agree with them.
SEEN: Final = Ring("seen", slots=5, period_s=300)
DELETED: Final = Ring("deleted", slots=9, period_s=86_400)
REJECTED: Final = Ring("rejected", slots=3, period_s=86_400)

_ENTER: Final = """
insert into rings (name, slot, period) values (%s, %s, %s)
on conflict (name, slot) do update set period = excluded.period where rings.period < excluded.period
returning true
"""


class RingClock:
    """Empties each ring's slot before the first row of a new period is written there."""

    def __init__(self, *rings: Ring) -> None:
        self._rings = rings
        self._entered: dict[str, int] = {}

    def advance(self, connection: psycopg.Connection[Any], now_s: int) -> None:
        """Make every ring ready for rows written at ``now_s``, inside the caller's transaction.

        Costs nothing within a period. Two workers may do it at once: the row in ``rings`` lets one of them truncate.
        """
        for ring in self._rings:
            period = now_s // ring.period_s
            if self._entered.get(ring.table) == period:
                continue
            if connection.execute(_ENTER, (ring.table, ring.slot(now_s), period)).fetchone():
                partition = sql.Identifier(f"{ring.table}_{ring.slot(now_s)}")
                connection.execute(sql.SQL("truncate {}").format(partition))
            self._entered[ring.table] = period

    def forget(self) -> None:
        """Ask the database again at the next ``advance``: the transaction of the last one did not commit."""
        self._entered.clear()
