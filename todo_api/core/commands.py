"""Commands: what was asked for, as a frozen value with one encoding.

Everything that depends on who asked and when (ids, user, time) is decided in the API process, so that
applying a command a second time, anywhere, has the same outcome.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from todo_api.core.errors import InvalidCommand
from todo_api.core.todo import description_problem, title_problem, user_id_problem

VERSION: Final = 2
# A record says the lowest version that can apply it, so that a worker of the version before, still at work while an
# upgrade rolls, dead-letters no more than it must. Version 2 brought conditions.
_VERSION_WITHOUT_CONDITION: Final = 1
ANY_VERSION: Final = "*"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# PostgreSQL's timestamptz reaches further; datetime does not.
_MAX_MICROS: Final = 253_402_300_799_999_999


class Kind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


# PERF: a struct is made in 0.2 us, a frozen dataclass in 3. Without references to itself it needs no garbage collector,
# which would go through thousands of them in each batch.
class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One create, update or delete of one todo by one user.

    ``title``, ``description`` and ``completed`` are None where the command leaves the value alone; a
    create always has a title and a description, a delete has none of the three. ``command_id`` is
    unique to the request; a record that is in the log twice carries the same one. With an idempotency
    key it is the UUIDv5 of user and key, the same for every request with that key.

    ``if_match`` holds version tags: the command takes effect only on a todo in one of these states, or, if
    ``ANY_VERSION`` is among them, in any. None is no condition; a create never has one.
    """

    kind: Kind
    command_id: UUID
    todo_id: UUID
    user_id: str
    issued_at: datetime
    title: str | None = None
    description: str | None = None
    completed: bool | None = None
    if_match: tuple[str, ...] | None = None

    @property
    def key(self) -> bytes:
        """The partition key: one todo, one partition, one order."""
        return str(self.todo_id).encode()

    @property
    def has_idempotency_key(self) -> bool:
        """Whether the client chose the command id, through its key."""
        return self.command_id.int >> 76 & 0xF == 5

    def fingerprint(self) -> int:
        """Return 63 bits that differ when the payload differs, whatever the command id and time."""
        payload = (self.kind, self.todo_id, self.user_id, self.title, self.description, self.completed)
        condition = () if self.if_match is None else (self.if_match,)
        digest = hashlib.blake2b(_encoder.encode(payload + condition), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def encode(self) -> bytes:
        """Return the record's value for the log: UTF-8 JSON of one flat object, without what is None."""
        return _encoder.encode(
            _Envelope(
                v=_VERSION_WITHOUT_CONDITION if self.if_match is None else VERSION,
                kind=self.kind,
                command_id=self.command_id,
                todo_id=self.todo_id,
                user_id=self.user_id,
                issued_at_us=(self.issued_at - _EPOCH) // _MICROSECOND,
                title=self.title,
                description=self.description,
                completed=self.completed,
                if_match=self.if_match,
            )
        )


class _Envelope(msgspec.Struct, omit_defaults=True, gc=False):
    """The wire form of all versions so far. Unknown fields are ignored, so that a newer API may add some."""

    v: int
    kind: Kind
    command_id: UUID
    todo_id: UUID
    user_id: str
    issued_at_us: int
    title: str | None = None
    description: str | None = None
    completed: bool | None = None
    if_match: tuple[str, ...] | None = None


class _Version(msgspec.Struct):
    v: int


_encoder = msgspec.json.Encoder()
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
    if not _is_known(wire.v):
        raise InvalidCommand(_unknown(wire.v))
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
        if_match=wire.if_match,
    )


def _is_known(version: int) -> bool:
    return 1 <= version <= VERSION


def _unknown(version: int) -> str:
    return f"unknown version {version}, this worker knows 1 to {VERSION}"


def _unknown_version(value: bytes) -> str | None:
    """Tell a command from the future, whatever its other fields look like, from plain rubbish."""
    try:
        version = _version.decode(value).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if _is_known(version) else _unknown(version)


def _check(wire: _Envelope) -> None:
    field, problem = "user_id", user_id_problem(wire.user_id)
    if problem is None and wire.title is not None:
        field, problem = "title", title_problem(wire.title)
    if problem is None and wire.description is not None:
        field, problem = "description", description_problem(wire.description)
    if problem is None and not 0 <= wire.issued_at_us <= _MAX_MICROS:
        field, problem = "issued_at_us", "out of range"
    if problem is None:
        field, problem = "kind", _kind_problem(wire)
    if problem is not None:
        raise InvalidCommand(f"{field}: {problem}")


def _kind_problem(wire: _Envelope) -> str | None:
    is_empty = wire.title is None and wire.description is None and wire.completed is None
    if wire.kind is Kind.CREATE:
        if wire.title is None or wire.description is None:
            return "a create needs a title and a description"
        return None if wire.if_match is None else "a create has no condition"
    if wire.kind is Kind.UPDATE:
        return "an update needs something to change" if is_empty else None
    return None if is_empty else "a delete has no contents"
