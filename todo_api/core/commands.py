"""Commands: what was asked for, as a frozen value with one encoding.

Everything that depends on who asked and when (ids, user, time) is decided in the API process, so that
applying a command a second time, anywhere, has the same outcome.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
import ujson

from todo_api.core.errors import InvalidCommand
from todo_api.core.todo import description_problem, title_problem, user_id_problem

VERSION: Final = 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# PostgreSQL's timestamptz reaches further; datetime does not.
_MAX_MICROS: Final = 253_402_300_799_999_999


class Kind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One create, update or delete of one todo by one user.

    ``title``, ``description`` and ``completed`` are None where the command leaves the value alone; a
    create always has a title and a description, a delete has none of the three. ``command_id`` is
    unique to the request; a record that is in the log twice carries the same one.
    """

    kind: Kind
    command_id: UUID
    todo_id: UUID
    user_id: str
    issued_at: datetime
    title: str | None = None
    description: str | None = None
    completed: bool | None = None

    @property
    def key(self) -> bytes:
        """The partition key: one todo, one partition, one order."""
        return str(self.todo_id).encode()

    def fingerprint(self) -> int:
        """Return 63 bits that differ when the payload differs, whatever the command id and time."""
        payload = ujson.dumps(
            [self.kind, str(self.todo_id), self.user_id, self.title, self.description, self.completed]
        )
        digest = hashlib.blake2b(payload.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def encode(self) -> bytes:
        """Return the record's value for the log: UTF-8 JSON of one flat object."""
        return ujson.dumps(
            {
                "v": VERSION,
                "kind": self.kind,
                "command_id": str(self.command_id),
                "todo_id": str(self.todo_id),
                "user_id": self.user_id,
                "issued_at_us": (self.issued_at - _EPOCH) // _MICROSECOND,
                "title": self.title,
                "description": self.description,
                "completed": self.completed,
            },
            ensure_ascii=False,
            escape_forward_slashes=False,
        ).encode()


class _Envelope(msgspec.Struct):
    """The wire form of version 1. Unknown fields are ignored, so that a newer API may add some."""

    v: int
    kind: Kind
    command_id: UUID
    todo_id: UUID
    user_id: str
    issued_at_us: int
    title: str | None = None
    description: str | None = None
    completed: bool | None = None


class _Version(msgspec.Struct):
    v: int


_envelope = msgspec.json.Decoder(_Envelope)
_version = msgspec.json.Decoder(_Version)


def decode(value: bytes | None) -> Command:
    """Return the command in a record's value.

    Raises InvalidCommand, with a reason for the dead letter, for anything that is not exactly one
    command of a version we know, holding values that PostgreSQL can store.
    """
    if value is None:
        raise InvalidCommand("no value (a tombstone is not a command)")
    try:
        wire = _envelope.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as ex:
        raise InvalidCommand(_unknown_version(value) or f"not a command: {ex}") from ex
    if wire.v != VERSION:
        raise InvalidCommand(f"unknown version {wire.v}, this worker knows {VERSION}")
    _check(wire)
    return Command(
        kind=wire.kind,
        command_id=wire.command_id,
        todo_id=wire.todo_id,
        user_id=wire.user_id,
        issued_at=_EPOCH + wire.issued_at_us * _MICROSECOND,
        title=wire.title,
        description=wire.description,
        completed=wire.completed,
    )


def _unknown_version(value: bytes) -> str | None:
    """Tell a command from the future, whatever its other fields look like, from plain rubbish."""
    try:
        version = _version.decode(value).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if version == VERSION else f"unknown version {version}, this worker knows {VERSION}"


def _check(wire: _Envelope) -> None:
    problems = [("user_id", user_id_problem(wire.user_id))]
    if wire.title is not None:
        problems.append(("title", title_problem(wire.title)))
    if wire.description is not None:
        problems.append(("description", description_problem(wire.description)))
    if not 0 <= wire.issued_at_us <= _MAX_MICROS:
        problems.append(("issued_at_us", "out of range"))
    contents = (wire.title, wire.description, wire.completed)
    if wire.kind is Kind.CREATE and (wire.title is None or wire.description is None):
        problems.append(("kind", "a create needs a title and a description"))
    if wire.kind is Kind.UPDATE and contents == (None, None, None):
        problems.append(("kind", "an update needs something to change"))
    if wire.kind is Kind.DELETE and contents != (None, None, None):
        problems.append(("kind", "a delete has no contents"))
    for field, problem in problems:
        if problem is not None:
            raise InvalidCommand(f"{field}: {problem}")
