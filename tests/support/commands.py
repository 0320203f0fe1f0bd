"""Commands for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from msgspec.structs import replace

from todo_api.core.commands import Command, Kind
from todo_api.core.ids import keyed_uuid

START = datetime(2026, 1, 1, tzinfo=UTC)


def create(todo_id: UUID | None = None, *, user: str = "ann", at_s: float = 0, **contents: Any) -> Command:
    values: dict[str, Any] = {"title": "milk", "description": ""} | contents
    return _command(Kind.CREATE, todo_id or uuid4(), user, at_s, **values)


def update(todo_id: UUID, *, user: str = "ann", at_s: float = 1, **contents: Any) -> Command:
    return _command(Kind.UPDATE, todo_id, user, at_s, **contents)


def delete(todo_id: UUID, *, user: str = "ann", at_s: float = 2, **contents: Any) -> Command:
    return _command(Kind.DELETE, todo_id, user, at_s, **contents)


def keyed(command: Command, key: str) -> Command:
    """Return the command as it is with this idempotency key; the todo stays the same."""
    return replace(command, command_id=keyed_uuid(command.user_id, key))


def _command(kind: Kind, todo_id: UUID, user: str, at_s: float, **contents: Any) -> Command:
    return Command(
        kind=kind,
        command_id=uuid4(),
        todo_id=todo_id,
        user_id=user,
        issued_at=START + timedelta(seconds=at_s),
        **contents,
    )
