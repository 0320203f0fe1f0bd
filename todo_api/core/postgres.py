"""PostgreSQL connections with bounded waits, and the one translation of psycopg's errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import psycopg
from psycopg.abc import PQGen
from psycopg_pool import PoolClosed

from todo_api.core.errors import StoreUnavailable


class BoundedConnection(psycopg.Connection[Any]):
    """A connection on which no single wait for the server lasts longer than ``answer_timeout_s``.

    ``statement_timeout`` is kept by the server, so it does not help against a server that is frozen or behind a
    black hole. A connection that ran into the bound is broken: close it (a pool does so by itself).
    """

    answer_timeout_s: ClassVar[float] = 1.0

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        bound = self.answer_timeout_s if timeout is None else min(timeout, self.answer_timeout_s)
        return super().wait(gen, interval=interval, timeout=bound)


class PatientConnection(BoundedConnection):
    """The worker's: a batch may take long on a busy server, and nobody waits for it but the log."""

    answer_timeout_s: ClassVar[float] = 20.0


_PASSING: Final = (
    # A lost or refused connection, no answer in time, admin shutdown, a full disk, deadlock, serialization failure,
    # lock and statement timeouts, and the pool's PoolTimeout and TooManyRequests.
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolClosed,
    # A standby that is to become the primary; our own bound on a transaction that was left open.
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn every failure that another attempt may not have into StoreUnavailable, keeping the cause.

    Errors of ours (wrong SQL, a broken constraint) pass through: trying again cannot help, and they must be seen.
    """
    try:
        yield
    except _PASSING as ex:
        raise StoreUnavailable(f"{doing}: {ex}") from ex
    except psycopg.errors.UndefinedTable as ex:
        raise StoreUnavailable(f"{doing}: the schema is missing, run `todo migrate`") from ex
