"""What the API reads from PostgreSQL. It never writes there: only the worker does."""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from psycopg_pool import ConnectionPool

from todo_api.core.command_log import Position
from todo_api.core.errors import NotYetApplied
from todo_api.core.postgres import BoundedConnection, translated
from todo_api.core.todo import version_tag

# Waiting for a connection and then for the answer stays below the 2 s in which every request is answered.
_POOL_TIMEOUT_S: Final = 0.5
_CONNECT_TIMEOUT_S: Final = 2

# A filtered page looks at no more todos than this, unless it may show more: some 5 ms of the database's time.
_EXAMINED: Final = 10_000

# In the rows of read_versions.sql.
_VERSION_BYTES: Final = 20

# PERF: a todo that is read by itself costs this process 7 us of CPU, all 10,000 in one text 10 ms (ADR 19).
_MISSING_MAX: Final = 2_000

_T = TypeVar("_T")

_GENERATION: Final = """
select (select id from epoch), (select coalesce(sum(next_offset), 0)::bigint from applied)
"""


class State(NamedTuple):
    """Which state of the table something shows: the history (epoch) and the number of commands applied in it."""

    epoch: str
    generation: int

    def includes(self, other: "State") -> bool:
        """Say whether everything that ``other`` shows is in this one: each commit makes the generation larger."""
        return self.epoch == other.epoch and self.generation >= other.generation


class Cursor(NamedTuple):
    """The last row of a page: the next page begins below it."""

    created_at: datetime
    todo_id: UUID


class PageRows(NamedTuple):
    """``body`` is a JSON array in UTF-8; ``next_cursor`` is None on the last page.

    Filtered by ``completed`` a page may be short, even empty, and not the last.
    """

    state: State
    body: bytes
    next_cursor: Cursor | None


class ListRows(NamedTuple):
    """The newest todos, each as a JSON object in UTF-8, by version: other contents have another one.

    ``next_cursor`` is None when these are all there are.
    """

    state: State
    rows: Mapping[bytes, bytes]
    next_cursor: Cursor | None


class Fate(NamedTuple):
    """What became of a command. ``rejected_because`` is the worker's reason, None when it took effect."""

    is_done: bool
    rejected_because: str | None


class PoolFigures(NamedTuple):
    """Connections now; ``timeouts`` counts the requests that got none."""

    in_use: int
    idle: int
    max_size: int
    waiting: int
    timeouts: int


class ReadStore:
    """Read access through a pool of this process. Every call blocks at most about 1.5 s.

    All methods raise StoreUnavailable.
    """

    def __init__(self, database_url: str, *, pool_size: int) -> None:
        self._read_page = _statement("read_page.sql")
        self._read_versions = _statement("read_versions.sql")
        self._read_rows = _statement("read_rows.sql")
        self._read_list = _statement("read_list.sql")
        self._read_todo = _statement("read_todo.sql")
        self._read_applied = _statement("read_applied.sql")
        self._read_fate = _statement("read_operation.sql")
        self._pool: ConnectionPool[BoundedConnection] = ConnectionPool(
            database_url,
            connection_class=BoundedConnection,
            kwargs={"autocommit": True, "connect_timeout": _CONNECT_TIMEOUT_S},
            min_size=1,
            max_size=max(1, pool_size),
            timeout=_POOL_TIMEOUT_S,
            # A queue longer than the pool could serve within the timeout helps nobody.
            max_waiting=max(8, pool_size),
            open=False,
            name="todo-reads",
        )

    def start(self) -> None:
        """Begin connecting in the background and return at once. Call it after the fork, once."""
        self._pool.open(wait=False)

    def stop(self, timeout_s: float) -> None:
        self._pool.close(timeout_s)

    def read_page(
        self,
        limit: int,
        after: Cursor | None,
        *,
        user_id: str | None = None,
        completed: bool | None = None,
    ) -> PageRows:
        """Return the ``limit`` newest todos below ``after``, and the state they show, from one snapshot.

        None is no filter. With ``completed`` at most 10,000 todos (``limit``, if that is more) are looked at; the next
        cursor goes on behind them.
        """
        epoch, generation, body, last_at, last_id = self._row(
            self._read_page,
            {
                "rows": limit,
                "after_at": after.created_at if after else None,
                "after_id": after.todo_id if after else None,
                "user_id": user_id,
                "completed": completed,
                # Without a filter a page looks at what it shows, and at one more to know whether there are others.
                # Told that, PostgreSQL takes the index; else, before it has statistics, it sorts the whole table.
                "examined": limit + 1 if completed is None else max(_EXAMINED, limit),
            },
            # A plan that is made for all parameters at once could not use an index for those that are null here.
            prepare=False,
        )
        cursor = Cursor(last_at, last_id) if last_at is not None else None
        return PageRows(State(epoch, generation), body.encode(), cursor)

    def read_list(self, limit: int, known: ListRows | None) -> ListRows:
        """Return the ``limit`` newest todos, from one snapshot. Those that are known are not read again.

        When nothing or little is known it costs half as much again as ``read_page``.
        """

        def read(connection: BoundedConnection) -> ListRows:
            if known is None:
                return _list_rows(self._head(connection, self._read_list, limit))
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                head = self._head(connection, self._read_versions, limit)
                epoch, generation, versions, last_at, last_id = head
                # Another history may have come to the same versions.
                old = known.rows if known.state.epoch == epoch else {}
                order = _versions(versions)
                rows: dict[bytes, Any] = dict(zip(order, map(old.get, order), strict=True))
                missing = [UUID(bytes=version[:16]) for version, row in rows.items() if row is None]
                if len(missing) > _MISSING_MAX:
                    return _list_rows(self._head(connection, self._read_list, limit))
                if missing:
                    rows.update(connection.execute(self._read_rows, {"ids": missing}, binary=True))
            return ListRows(State(epoch, generation), rows, Cursor(last_at, last_id) if last_at else None)

        return self._with_connection(read)

    @staticmethod
    def _head(connection: BoundedConnection, statement: bytes, limit: int) -> Any:
        # Not prepared: a plan for every limit would sort the table.
        return connection.execute(statement, {"rows": limit}, prepare=False, binary=True).fetchone()

    def read_todo(self, todo_id: UUID, applied: Sequence[Position] = ()) -> tuple[bytes, str] | None:
        """Return the todo as a JSON object in UTF-8 and its version tag, or None when there is none.

        Raises NotYetApplied when what was read does not include the commands at all of the positions ``applied``.
        """
        is_applied, body, source, offset = self._row(
            self._read_todo, {"todo_id": todo_id, **_arrays(applied)}
        )
        if not is_applied:
            raise NotYetApplied
        return None if body is None else (body.encode(), version_tag(source, offset))

    def read_fate(self, position: Position) -> Fate:
        """Return what became of the command at ``position``."""
        row = self._row(self._read_fate, position._asdict())
        return Fate(False, None) if row is None else Fate(*row)

    def state_with(self, applied: Sequence[Position]) -> State:
        """Return the current state, which includes the commands at these positions. Raises NotYetApplied otherwise."""
        epoch, generation, is_applied = self._row(self._read_applied, _arrays(applied))
        if not is_applied:
            raise NotYetApplied
        return State(epoch, generation)

    def state(self) -> State:
        """Return the current state."""
        return State(*self._row(_GENERATION.encode(), {}))

    def pool_figures(self) -> PoolFigures:
        """Return how the pool is, without waiting for it."""
        stats = self._pool.get_stats()
        idle = stats["pool_available"]
        return PoolFigures(
            in_use=stats["pool_size"] - idle,
            idle=idle,
            max_size=stats["pool_max"],
            waiting=stats["requests_waiting"],
            timeouts=stats.get("requests_errors", 0),
        )

    def ping(self) -> None:
        """Return if the database answers and has our schema."""
        self.state()

    def _row(self, statement: bytes, parameters: dict[str, Any], *, prepare: bool = True) -> Any:
        return self._with_connection(
            lambda connection: connection.execute(statement, parameters, prepare=prepare).fetchone()
        )

    def _with_connection(self, read: Callable[[BoundedConnection], _T]) -> _T:
        # After a restart of the server each pooled connection fails once; reads are safe to repeat, so a second
        # connection is tried before the caller hears of it.
        for last_attempt in (False, True):
            with translated("reading"):
                connection = self._pool.getconn()
                try:
                    return read(connection)
                except Exception:
                    if last_attempt or not connection.broken:
                        raise
                finally:
                    self._pool.putconn(connection)
        raise AssertionError("unreachable")


def _list_rows(row: Any) -> ListRows:
    epoch, generation, versions, last_at, last_id, bodies = row
    order = _versions(versions)
    rows = dict(zip(order, bodies.encode().split(b"\n"), strict=True)) if order else {}
    return ListRows(State(epoch, generation), rows, Cursor(last_at, last_id) if last_at else None)


def _versions(versions: bytes) -> tuple[bytes, ...]:
    # PERF: 1 ms less for 10,000 than cutting them off one by one.
    return struct.unpack(f"{_VERSION_BYTES}s" * (len(versions) // _VERSION_BYTES), versions)


def _arrays(positions: Sequence[Position]) -> dict[str, list[Any]]:
    return {
        "logs": [position.log for position in positions],
        "partitions": [position.partition for position in positions],
        "offsets": [position.offset for position in positions],
    }


def _statement(name: str) -> bytes:
    folder = files("todo_api.core") / "sql"
    # One spelling of a todo for all: an answer is the same bytes, whichever statement made it.
    return (folder / name).read_bytes().replace(b":todo_as_json", (folder / "todo_as_json.sql").read_bytes())
