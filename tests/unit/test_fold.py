"""The fold against a model: what a batch does must be what its commands do one after the other."""

from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.commands import create, delete, update
from todo_api.core.commands import Command, Kind
from todo_worker.fold import Outcome, Reason, Source, TodoState, fold

IDS = [UUID(int=number) for number in (1, 2, 3)]


def at(*commands: Command, partition: int = 1, first: int = 0) -> list[tuple[Source, Command]]:
    return [(Source(partition, first + index), command) for index, command in enumerate(commands)]


def alive(user: str = "ann", offset: int = -1, partition: int = 1) -> TodoState:
    return TodoState(user_id=user, source=Source(partition, offset), existed=True, exists=True)


def gone(user: str = "ann", offset: int = -1, partition: int = 1) -> TodoState:
    return TodoState(user_id=user, source=Source(partition, offset), existed=False, exists=False)


def reasons(outcome: Outcome) -> list[Reason]:
    return [reason for _, _, reason in outcome.rejected]


def test_a_create_makes_the_todo_with_its_contents() -> None:
    command = create(IDS[0], title="tea", description="green")
    state = fold(at(command), {}, {}).changed[IDS[0]]
    assert (state.title, state.description, state.completed, state.user_id) == ("tea", "green", False, "ann")
    assert state.created_at == state.updated_at == command.issued_at
    assert not state.existed
    assert state.exists


def test_an_update_changes_what_it_names_and_leaves_the_rest_alone() -> None:
    state = fold(at(update(IDS[0], completed=True)), {IDS[0]: alive()}, {}).changed[IDS[0]]
    assert (state.title, state.description, state.completed) == (None, None, True)


def test_later_updates_in_a_batch_win_over_earlier_ones() -> None:
    commands = at(create(IDS[0]), update(IDS[0], title="a"), update(IDS[0], title="b"))
    state = fold(commands, {}, {}).changed[IDS[0]]
    assert (state.title, state.changes, state.source) == ("b", 3, Source(1, 2))


def test_a_todo_created_and_deleted_in_one_batch_is_not_there_but_remembered() -> None:
    state = fold(at(create(IDS[0]), delete(IDS[0])), {}, {}).changed[IDS[0]]
    assert not state.exists
    assert not state.existed


def test_nothing_happens_to_a_todo_that_is_not_there_or_was_deleted() -> None:
    outcome = fold(at(update(IDS[0], title="x"), delete(IDS[1])), {IDS[1]: gone()}, {})
    assert reasons(outcome) == [Reason.NO_SUCH_TODO] * 2
    assert not outcome.changed


def test_another_users_todo_is_left_alone() -> None:
    commands = at(
        update(IDS[0], user="eve", title="x"), delete(IDS[0], user="eve"), create(IDS[0], user="eve")
    )
    outcome = fold(commands, {IDS[0]: alive("ann")}, {})
    assert reasons(outcome) == [Reason.NOT_OWNER] * 3
    assert not outcome.changed


def test_a_deleted_todo_is_not_created_again() -> None:
    outcome = fold(at(create(IDS[0])), {IDS[0]: gone()}, {})
    assert not outcome.changed
    assert not outcome.rejected


def test_a_record_that_is_in_the_log_twice_takes_effect_once() -> None:
    command = update(IDS[0], title="x")
    outcome = fold(at(command, update(IDS[0], title="y"), command), {IDS[0]: alive()}, {})
    assert outcome.changed[IDS[0]].title == "y"
    seen = {command.command_id: command.fingerprint()}
    assert not fold(at(command), {IDS[0]: alive()}, seen).changed


def test_a_command_id_with_another_payload_is_rejected() -> None:
    command = create(IDS[0])
    outcome = fold(at(command), {}, {command.command_id: command.fingerprint() + 1})
    assert reasons(outcome) == [Reason.COMMAND_ID_REUSED]
    assert not outcome.changed


def test_a_log_that_is_read_again_changes_nothing_that_is_newer() -> None:
    commands = at(create(IDS[0]), update(IDS[0], title="old"))
    assert not fold(commands, {IDS[0]: alive(offset=7)}, {}).changed
    assert not fold(commands, {IDS[0]: gone(offset=7)}, {}).changed


def test_offsets_of_another_partition_or_log_say_nothing() -> None:
    outcome = fold(at(update(IDS[0], title="new")), {IDS[0]: alive(offset=7, partition=2)}, {})
    assert outcome.changed[IDS[0]].title == "new"


def test_time_never_runs_backwards_in_a_todo() -> None:
    commands = at(create(IDS[0], at_s=100), update(IDS[0], at_s=50, title="x"))
    state = fold(commands, {}, {}).changed[IDS[0]]
    assert state.updated_at == state.created_at


users = st.sampled_from(["ann", "eve"])
todo_ids = st.sampled_from(IDS)
texts = st.none() | st.sampled_from(["a", "b", "c"])
some_command = st.one_of(
    st.builds(lambda i, u, t: create(i, user=u, title=t or "new"), todo_ids, users, texts),
    st.builds(
        lambda i, u, t, c: update(i, user=u, title=t, completed=c), todo_ids, users, texts, st.booleans()
    ),
    st.builds(lambda i, u: delete(i, user=u), todo_ids, users),
)


def one_by_one(commands: list[Command]) -> dict[UUID, Any]:
    """The model: plain dictionaries, a command at a time; None where a todo was deleted."""
    todos: dict[UUID, Any] = {}
    seen = set()
    for command in commands:
        if command.command_id in seen:
            continue
        seen.add(command.command_id)
        todo = todos.get(command.todo_id)
        if command.kind is Kind.CREATE:
            if command.todo_id not in todos:
                todos[command.todo_id] = [command.user_id, command.title, False]
        elif todo is not None and todo[0] == command.user_id:
            if command.kind is Kind.DELETE:
                todos[command.todo_id] = None
            else:
                todo[1] = command.title if command.title is not None else todo[1]
                todo[2] = command.completed if command.completed is not None else todo[2]
    # A deleted todo's owner is remembered, which the model does not need: nobody can touch it again.
    return todos


@settings(max_examples=300)
@given(st.lists(some_command, max_size=20), st.data())
def test_a_batch_does_what_its_commands_do_one_by_one(commands: list[Command], data: st.DataObject) -> None:
    repeats = data.draw(st.lists(st.sampled_from(commands), max_size=5)) if commands else []
    commands = [*commands, *repeats]
    changed = fold(at(*commands), {}, {}).changed
    folded = {
        todo_id: [state.user_id, state.title, state.completed] if state.exists else None
        for todo_id, state in changed.items()
    }
    assert folded == one_by_one(commands)
