"""Put dead letters back into the command log, each once, and only where the order of its todo's commands holds.

A replayed command is applied behind everything that is in the log already. So it may go back only when no later
command for the same todo is there, applied or waiting. Two witnesses are asked, and both must agree:

- the log itself: every record behind the dead letter's old place is looked at, and none may have its key. Dead letters
  do not count, for they changed nothing, and a replayed record counts as of the place it came from;
- PostgreSQL: the row of the todo, or what is remembered of its deletion, must not show a later offset.

When the log has been cut off behind the old place, the row alone can still tell for an update or a delete. For a create
it cannot: later commands were rejected ("no such todo") and left no trace on the todo.

A command may still arrive between these questions and the replay. So an update or a delete goes back with a condition:
the version that its todo had when they were asked. If another command comes first, the worker rejects it.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from scripts.dead_letters.letters import DeadLetter, is_offset
from todo_api.core.command_log import Message, Position, Publisher, Record
from todo_api.core.command_log.reader import LogReader
from todo_api.core.commands import ANY_VERSION, VERSION, Command, Kind, decode
from todo_api.core.errors import InvalidCommand, RecordTooLarge
from todo_api.core.store import Fate
from todo_api.core.todo import version_tag
from todo_worker.fold import Reason

REPLAYED_FROM: Final = "todo-replayed-from"
_APPLY_TIMEOUT_S: Final = 10.0
_APPLY_POLL_S: Final = 0.1

_NEXT_OFFSET: Final = "select next_offset from applied where log = %s and partition = %s"
_TODO: Final = """
select user_id, true, log, partition, source_offset, applied.id
from todos join applied on applied.id = todos.source
where todos.id = %(id)s
union all
select user_id, false, log, partition, source_offset, applied.id
from deleted join applied on applied.id = deleted.source
where todo_id = %(id)s
order by source_offset desc limit 1
"""
_FATE: Final = """
select next_offset > %(offset)s,
       (select reason from rejected where source = applied.id and source_offset = %(offset)s limit 1)
from applied where log = %(log)s and partition = %(partition)s
"""


class Later(NamedTuple):
    """A record with the key of a dead letter. ``origin`` is the offset it has in the order of commands: its own, or,
    when it was replayed, the one it had at first."""

    offset: int
    origin: int


class TodoRow(NamedTuple):
    """What PostgreSQL knows of a todo: whose, still there, and which command changed it last."""

    user_id: str
    exists: bool
    log: str
    partition: int
    offset: int
    source: int


class Result(NamedTuple):
    """What became of one dead letter. ``is_good``: it is back, in its order. ``to`` is None when it was refused."""

    letter: DeadLetter
    is_good: bool
    to: Position | None
    text: str


class LogScan:
    """Every record with one of ``keys`` in one partition from ``start`` on; goes on reading when asked again."""

    def __init__(self, reader: LogReader, partition: int, start: int, keys: Iterable[bytes]) -> None:
        self._reader = reader
        self._partition = partition
        self._found: dict[bytes, list[Later]] = {key: [] for key in keys}
        self.next_offset = start
        self.oldest = 0

    def advance(self) -> None:
        """Read on to the present end of the log."""
        bounds = self._reader.bounds().get(self._partition)
        if bounds is None:
            return
        self.oldest = bounds.oldest
        for message in self._reader.read(self._partition, max(self.next_offset, bounds.oldest), bounds.end):
            if message.key in self._found:
                self._found[message.key].append(Later(message.offset, _origin(message)))
        self.next_offset = max(self.next_offset, bounds.end)

    def found(self, key: bytes) -> Sequence[Later]:
        return self._found[key]


class Replayer:
    """Replays letters of the log that ``reader`` reads. ``mark`` records a replay for good.

    ``letters`` are all there are, the oldest first: one letter's order depends on the others.
    """

    def __init__(
        self,
        reader: LogReader,
        publisher: Publisher,
        connection: psycopg.Connection[Any],
        letters: Sequence[DeadLetter],
        mark: Callable[[int, Position], None],
        *,
        apply_timeout_s: float = _APPLY_TIMEOUT_S,
    ) -> None:
        self._reader = reader
        self._publisher = publisher
        self._connection = connection
        self._letters = [letter for letter in letters if letter.log == reader.log]
        self._mark = mark
        self._apply_timeout_s = apply_timeout_s
        self._done = {_place(letter) for letter in letters if letter.replayed_to is not None}
        self._scans: dict[int, LogScan] = {}

    def replay(self, letter: DeadLetter) -> Result:
        """Put ``letter`` back, or say why not. Waits up to 10 s for a worker to apply it.

        Raises LogUnavailable (whether it is back is then unknown; asking again finds out) or psycopg.Error.
        """
        command, problem = self._decoded(letter)
        if command is None:
            return Result(letter, False, None, problem)
        # Before the log: whatever takes effect after this is another version, or is found there.
        applied = self._next_offset(letter.message.partition)
        row = self._todo(command)
        scan = self._scan(letter.message.partition)
        scan.advance()
        refusal = self._refusal(letter, command, scan, row)
        if refusal is not None:
            return Result(letter, False, None, refusal)
        # A replayed record that waits for a worker, of an older letter, will make another version of the todo.
        is_current = all(each.offset < applied for each in scan.found(command.key))
        version = _version(command, row) if is_current else None
        before = scan.next_offset
        try:
            to = self._publisher.publish(_record(letter.message, version))
        except RecordTooLarge as ex:
            return Result(letter, False, None, f"the log does not take it back: {ex}")
        self._done.add(_place(letter))
        self._mark(letter.position, to)
        scan.advance()
        overtaken = [later.offset for later in scan.found(command.key) if before <= later.offset < to.offset]
        if (overtaken and version is None) or to.partition != letter.message.partition:
            return Result(letter, False, to, _out_of_order(to, overtaken))
        return self._outcome(letter, to, overtaken)

    def _decoded(self, letter: DeadLetter) -> tuple[Command | None, str]:
        if letter.replayed_to is not None:
            return None, f"it was replayed already, to {letter.replayed_to}"
        if letter.original is None:
            return None, "no worker wrote it, so where it belongs is not known"
        if letter.log != self._reader.log:
            return None, f"it is of {letter.log or 'no log'}, the settings say {self._reader.log}"
        try:
            command = decode(letter.original.value)
        except InvalidCommand as ex:
            return None, f"it would be a dead letter again: {ex}"
        if letter.original.key != command.key:
            return None, "its key is not the id of its todo, so it would be applied out of order"
        return command, ""

    def _scan(self, partition: int) -> LogScan:
        if partition not in self._scans:
            of_partition = [
                letter.message for letter in self._letters if letter.message.partition == partition
            ]
            start = min(map(_origin, of_partition)) + 1
            keys = {message.key for message in of_partition if message.key is not None}
            self._scans[partition] = LogScan(self._reader, partition, start, keys)
        return self._scans[partition]

    def _refusal(
        self, letter: DeadLetter, command: Command, scan: LogScan, row: TodoRow | None
    ) -> str | None:
        origin = _origin(letter.message)
        if self._next_offset(letter.message.partition) <= letter.message.offset:
            return "no worker has passed it yet: it is still in the log, to be applied from there"
        siblings = [other for other in self._letters if other.message.key == command.key]
        if waiting := self._waiting_before(letter, siblings):
            return f"dead letter {waiting} of the same todo is older: replay or purge that first"
        dead = {other.message.offset for other in siblings}
        later = [
            each for each in scan.found(command.key) if each.origin >= origin and each.offset not in dead
        ]
        if same := [each for each in later if each.origin == origin]:
            return f"it was replayed already: it is at offset {same[0].offset} again"
        if later:
            return f"a later command for the same todo is in the log, at offset {later[0].offset}"
        if refusal := _row_refusal(letter, row, self._reader.log, scan.found(command.key)):
            return refusal
        if command.kind is Kind.CREATE:
            if scan.oldest > origin + 1:
                return (
                    f"the log begins at offset {scan.oldest}: whether later commands for the todo were rejected "
                    "because of this one can no longer be known"
                )
            return None if row is None else "its todo is there already, or was and is deleted"
        if row is None or not row.exists:
            return f"it would be rejected: {Reason.NO_SUCH_TODO}"
        return None if row.user_id == command.user_id else f"it would be rejected: {Reason.NOT_OWNER}"

    def _waiting_before(self, letter: DeadLetter, siblings: Iterable[DeadLetter]) -> str:
        for other in siblings:
            if _place(other) in self._done or _origin(other.message) >= _origin(letter.message):
                continue
            if self._decoded(other)[0] is not None:
                return str(other.position)
        return ""

    def _next_offset(self, partition: int) -> int:
        row = self._connection.execute(_NEXT_OFFSET, (self._reader.log, partition)).fetchone()
        return int(row[0]) if row else 0

    def _todo(self, command: Command) -> TodoRow | None:
        row = self._connection.execute(_TODO, {"id": command.todo_id}).fetchone()
        return TodoRow(*row) if row else None

    def _outcome(self, letter: DeadLetter, to: Position, overtaken: Sequence[int]) -> Result:
        deadline = time.monotonic() + self._apply_timeout_s
        at = f"partition {to.partition}, offset {to.offset}"
        while True:
            row = self._connection.execute(_FATE, to._asdict()).fetchone()
            fate = Fate(*row) if row else Fate(False, None)
            if fate.is_done:
                if fate.rejected_because is None:
                    return Result(letter, True, to, f"applied ({at})")
                why = f", after the command of offset {overtaken[0]} for the same todo" if overtaken else ""
                return Result(letter, False, to, f"rejected: {fate.rejected_because}{why} ({at})")
            if time.monotonic() > deadline:
                return Result(letter, True, to, f"in the log, waiting for a worker ({at})")
            time.sleep(_APPLY_POLL_S)


def _row_refusal(letter: DeadLetter, row: TodoRow | None, log: str, found: Sequence[Later]) -> str | None:
    origin = _origin(letter.message)
    if row is None or row.log == "seed":
        return None
    if (row.log, row.partition) != (log, letter.message.partition):
        return (
            f"its todo was changed last from partition {row.partition} of {row.log}, which has another order"
        )
    # A replayed record that came from further in front is no later command, though its offset is larger.
    is_older = any(each.offset == row.offset and each.origin < origin for each in found)
    if row.offset > origin and not is_older:
        return f"a later command for the same todo has taken effect, that of offset {row.offset}"
    return None


def _place(letter: DeadLetter) -> tuple[int, int]:
    """Where the message was. A message may be dead-lettered twice: then two letters have the same place."""
    return letter.message.partition, letter.message.offset


def _origin(message: Message) -> int:
    for name, value in reversed(message.headers):
        if name == REPLAYED_FROM and is_offset(value.decode(errors="replace")):
            return int(value)
    return message.offset


def _version(command: Command, row: TodoRow | None) -> str | None:
    """Return the version in which a command must find its todo, or None for no such condition.

    With an idempotency key it stays as it is: the worker compares its client's retries with all of it.
    """
    if row is None or command.kind is Kind.CREATE or command.has_idempotency_key:
        return None
    tag = version_tag(row.source, row.offset)
    own = command.if_match
    return tag if own is None or ANY_VERSION in own or tag in own else None


def _record(message: Message, version: str | None) -> Record:
    assert message.key is not None
    assert message.value is not None
    value = message.value
    if version is not None:
        # Not decoded and encoded again: it may have fields that only others know.
        fields = json.loads(value)
        fields |= {"v": max(fields["v"], VERSION), "if_match": [version]}
        value = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    headers = tuple(header for header in message.headers if header[0] != REPLAYED_FROM)
    origin = str(_origin(message)).encode()
    return Record(message.key, value, (*headers, (REPLAYED_FROM, origin)))


def _out_of_order(to: Position, overtaken: Sequence[int]) -> str:
    if overtaken:
        return (
            f"back at partition {to.partition}, offset {to.offset}, but a command for the same todo arrived just "
            f"before it, at offset {overtaken[0]}: compare the todo with what its owner wants"
        )
    return (
        f"back in another partition ({to.partition}): the number of partitions was changed, order is not kept"
    )
