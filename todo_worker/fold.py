"""Decide what a batch of commands does. Pure: no clock, no database, the same answer for the same input.

All commands on one todo are in one partition, and the fence lets one worker at a time apply a partition. So the
todos' present states can be read once, every command of the batch be played on them here, in offset order, and the
outcome be written with a handful of set-based statements, however often one todo occurs in the batch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from todo_api.core.commands import Command, Kind


class Reason(StrEnum):
    """Why a well-formed command changed nothing. Shown to its owner by the operation's status."""

    NO_SUCH_TODO = "no_such_todo"
    NOT_OWNER = "not_owner"
    COMMAND_ID_REUSED = "command_id_reused"


class Source(NamedTuple):
    """Where a command is: ``applied.id`` of its partition, and its offset there."""

    partition_id: int
    offset: int


@dataclass(slots=True)
class TodoState:
    """What the database knows of one todo before the batch, and, after the fold, what it shall know.

    ``existed`` and ``exists`` say whether the row was there before and is there after. Contents hold only what the
    batch sets: None leaves the stored value alone (a todo created in the batch has them all).
    """

    user_id: str
    source: Source
    existed: bool
    exists: bool
    created_at: datetime | None = None
    updated_at: datetime | None = None
    title: str | None = None
    description: str | None = None
    completed: bool | None = None
    changes: int = 0


@dataclass(slots=True)
class Outcome:
    """What to write: the states of the todos that changed, the rejected commands, the command ids to remember."""

    changed: dict[UUID, TodoState] = field(default_factory=dict)
    rejected: list[tuple[Source, Command, Reason]] = field(default_factory=list)
    seen: dict[UUID, int] = field(default_factory=dict)


def fold(
    commands: Iterable[tuple[Source, Command]],
    states: Mapping[UUID, TodoState],
    seen: Mapping[UUID, int],
) -> Outcome:
    """Play ``commands`` (in offset order within each partition) on ``states``.

    ``states`` holds every todo that the commands name and the database knows, alive or deleted; its values are
    changed in place. ``seen`` holds the fingerprints of command ids that took effect before the batch.
    """
    outcome = Outcome()
    known = dict(states)
    for source, command in commands:
        fingerprint = command.fingerprint()
        earlier = outcome.seen.get(command.command_id, seen.get(command.command_id))
        if earlier is not None:
            if earlier != fingerprint:
                outcome.rejected.append((source, command, Reason.COMMAND_ID_REUSED))
            continue  # the same record a second time: it took effect already
        state = known.get(command.todo_id)
        if state is not None and _shows(state.source, source):
            continue  # the log is being read again from before what this todo shows
        outcome.seen[command.command_id] = fingerprint
        reason = _refusal(command, state)
        if reason is not None:
            outcome.rejected.append((source, command, reason))
        elif command.kind is Kind.CREATE:
            if state is None:
                known[command.todo_id] = outcome.changed[command.todo_id] = _created(source, command)
            # else: created before, perhaps deleted since; a create is once for ever
        else:
            assert state is not None
            _change(state, source, command)
            outcome.changed[command.todo_id] = state
    return outcome


def _shows(applied: Source, source: Source) -> bool:
    return applied.partition_id == source.partition_id and applied.offset >= source.offset


def _refusal(command: Command, state: TodoState | None) -> Reason | None:
    # APPSEC: ownership is decided here, on rows locked against every other worker, from the verified token's user.
    if state is not None and state.user_id != command.user_id:
        return Reason.NOT_OWNER
    if command.kind is not Kind.CREATE and (state is None or not state.exists):
        return Reason.NO_SUCH_TODO
    return None


def _created(source: Source, command: Command) -> TodoState:
    return TodoState(
        user_id=command.user_id,
        source=source,
        existed=False,
        exists=True,
        created_at=command.issued_at,
        updated_at=command.issued_at,
        title=command.title,
        description=command.description,
        completed=False,
        changes=1,
    )


def _change(state: TodoState, source: Source, command: Command) -> None:
    state.source = source
    state.changes += 1
    if command.kind is Kind.DELETE:
        state.exists = False
        return
    if command.title is not None:
        state.title = command.title
    if command.description is not None:
        state.description = command.description
    if command.completed is not None:
        state.completed = command.completed
    # Clocks of two API processes may differ: time never runs backwards in a todo.
    state.updated_at = max(state.updated_at or command.issued_at, command.issued_at)
