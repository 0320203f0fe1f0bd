"""The dead letters of one topic, as the worker wrote them, and the marks of those that were put back."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from todo_api.core.command_log import Headers, Message, Position, Publisher, Record
from todo_api.core.command_log.reader import Bounds, LogReader
from todo_worker.dead_letters import HEADER_NAMES

_PARTITION: Final = 0
# A mark is a record of its own behind the letters, so it lives at least as long as the letter it names.
_MARK: Final = "todo-replayed"
_MARK_POSITION: Final = "todo-replayed-to"
_OFFSET: Final = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. ``position`` is where it is among the dead letters.

    ``original`` is the message as it was in ``log``; None when no worker of ours wrote this record, of which
    ``record`` then is all there is. ``replayed_to`` says where it was put back, if it was.
    """

    position: int
    record: Message
    original: Message | None
    log: str
    reason: str
    time: datetime | None
    replayed_to: str | None

    @property
    def message(self) -> Message:
        """The original message, or the record when there is none."""
        return self.original or self.record

    @property
    def size_bytes(self) -> int:
        return len(self.message.key or b"") + len(self.message.value or b"")


class DeadLetterLog:
    """The dead letters that ``reader`` can see. Raises LogUnavailable as the reader does."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    def bounds(self) -> Bounds:
        """Return the positions that there are: none, when nothing was ever written."""
        return self._reader.bounds().get(_PARTITION, Bounds(0, 0))

    def letters(self) -> Iterator[DeadLetter]:
        """Yield every dead letter, the oldest first. Reads the log twice: marks come behind what they mark."""
        oldest, end = self.bounds()
        marks: dict[int, str] = {}
        for record in self._reader.read(_PARTITION, oldest, end):
            marks |= _mark(record)
        for record in self._reader.read(_PARTITION, oldest, end):
            if not _mark(record):
                yield _letter(record, marks.get(record.offset))

    def purge(self, before: int) -> None:
        """Throw away every dead letter at a position below ``before``, for good."""
        self._reader.cut(_PARTITION, before)


def mark_replayed(publisher: Publisher, position: int, to: Position) -> None:
    """Record that the dead letter at ``position`` was put back and is now at ``to``. Raises LogUnavailable."""
    headers = (
        (_MARK, str(position).encode()),
        (_MARK_POSITION, f"partition {to.partition}, offset {to.offset}".encode()),
    )
    publisher.publish(Record(b"", b"", headers))


def _mark(record: Message) -> dict[int, str]:
    if [name for name, _ in record.headers] != [_MARK, _MARK_POSITION] or record.value:
        return {}
    marked, to = (value.decode(errors="replace") for _, value in record.headers)
    return {int(marked): to} if is_offset(marked) else {}


def is_offset(text: str) -> bool:
    """Say whether a header holds an offset or a partition. APPSEC: anybody may have written it."""
    return _OFFSET.fullmatch(text) is not None


def _letter(record: Message, replayed_to: str | None) -> DeadLetter:
    own = len(record.headers) - len(HEADER_NAMES)
    # APPSEC: a message may carry headers of these names itself; the worker's are the last ones.
    names, values = tuple(zip(*record.headers[max(own, 0) :], strict=True)) or ((), ())
    fields = dict(zip(names, (value.decode(errors="replace") for value in values), strict=True))
    if names != HEADER_NAMES or not (
        is_offset(fields["todo-partition"]) and is_offset(fields["todo-offset"])
    ):
        return DeadLetter(record.offset, record, None, "", "not written by a worker", None, replayed_to)
    return DeadLetter(
        position=record.offset,
        record=record,
        original=_original(record, record.headers[:own], fields),
        log=fields["todo-log"],
        reason=fields["todo-reason"],
        time=_time(fields["todo-time"]),
        replayed_to=replayed_to,
    )


def _original(record: Message, headers: Headers, fields: dict[str, str]) -> Message:
    return Message(
        partition=int(fields["todo-partition"]),
        offset=int(fields["todo-offset"]),
        key=None if fields["todo-key-is-null"] == "1" else record.key,
        value=None if fields["todo-value-is-null"] == "1" else record.value,
        headers=headers,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
