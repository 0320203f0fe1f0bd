"""Decide what a batch of commands does. Pure: no clock, no database, the same answer for the same input.

All commands on one todo are in one partition, and the fence lets one worker at a time apply a partition. So the
todos' present states can be read once, every command of the batch be played on them here, in offset order, and the
outcome be written with a handful of set-based statements, however often one todo occurs in the batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from todo_api.core.commands import ANY_VERSION, Command, Kind
from todo_api.core.todo import version_tag


class Reason(StrEnum):
    """Why a well-formed command changed nothing. Shown to its owner by the operation's status."""

    NO_SUCH_TODO = "no_such_todo"
    NOT_OWNER = "not_owner"
    COMMAND_ID_REUSED = "command_id_reused"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    PRECONDITION_FAILED = "precondition_failed"


class Source(NamedTuple):
    """Where a command is: ``applied.id`` of its partition, and its offset there."""

    partition_id: int
    offset: int


class Earlier(NamedTuple):
    """What became of a command id: the fingerprint of its first command, and why that was rejected if it was."""

    fingerprint: int
    reason: Reason | None

    @classmethod
    def read(cls, fingerprint: int, reason: str | None) -> "Earlier":
        """Return what was stored."""
        return cls(fingerprint, None if reason is None else Reason(reason))


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
    """What to write: the states of the todos that changed, the rejected commands, the command ids to remember.

    Ids that come from an idempotency key are in ``keyed``, all others in ``seen``.
    """

    changed: dict[UUID, TodoState] = field(default_factory=dict)
    rejected: list[tuple[Source, Command, Reason]] = field(default_factory=list)
    seen: dict[UUID, Earlier] = field(default_factory=dict)
    keyed: dict[UUID, Earlier] = field(default_factory=dict)


def fold(
    commands: Iterable[tuple[Source, Command]],
    states: Mapping[UUID, TodoState],
    earlier: Mapping[UUID, Earlier],
) -> Outcome:
    """Play ``commands`` (in offset order within each partition) on ``states``.

    ``states`` holds every todo that the commands name and the database knows, alive or deleted; its values are
    changed in place. ``earlier`` holds the command ids that were applied or rejected before the batch.
    """
    outcome = Outcome()
    known = dict(states)
    for source, command in commands:
        fingerprint = command.fingerprint()
        memory = outcome.keyed if command.has_idempotency_key else outcome.seen
        first = memory.get(command.command_id) or earlier.get(command.command_id)
        if first is not None:
            # The same request a second time: it took effect already, or gets the same refusal.
            reason = first.reason if first.fingerprint == fingerprint else _reused(command)
            if reason is not None:
                outcome.rejected.append((source, command, reason))
            continue
        state = known.get(command.todo_id)
        if state is not None and _shows(state.source, source):
            continue  # the log is being read again from before what this todo shows
        reason = _refusal(command, state)
        memory[command.command_id] = Earlier(fingerprint, reason)
        if reason is not None:
            outcome.rejected.append((source, command, reason))
        elif command.kind is Kind.CREATE:
            if state is None:
                known[command.todo_id] = outcome.changed[command.todo_id] = _created(source, command)
            # else: created before, perhaps deleted since; a record that is in the log twice, long apart
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
    if command.kind is Kind.CREATE:
        # Its key is forgotten and its todo is not: nothing tells any more whether this is the same request, and to
        # call another one applied would lose it.
        return Reason.IDEMPOTENCY_KEY_REUSED if state is not None and command.has_idempotency_key else None
    if state is None or not state.exists:
        return Reason.NO_SUCH_TODO
    if command.if_match is not None and not _is_in_one_of(state, command.if_match):
        return Reason.PRECONDITION_FAILED
    return None


def _is_in_one_of(state: TodoState, versions: Sequence[str]) -> bool:
    return ANY_VERSION in versions or version_tag(*state.source) in versions


def _reused(command: Command) -> Reason:
    return Reason.IDEMPOTENCY_KEY_REUSED if command.has_idempotency_key else Reason.COMMAND_ID_REUSED


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
