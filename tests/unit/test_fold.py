"""The fold against a model: what a batch does must be what its commands do one after the other."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.commands import create, delete, keyed, update
from todo_api.core.commands import ANY_VERSION, Command, Kind
from todo_worker.fold import Earlier, Outcome, Reason, Source, TodoState, fold

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
    earlier = {command.command_id: Earlier(command.fingerprint(), None)}
    assert not fold(at(command), {IDS[0]: alive()}, earlier).changed


def test_a_command_id_with_another_payload_is_rejected() -> None:
    command = create(IDS[0])
    outcome = fold(at(command), {}, {command.command_id: Earlier(command.fingerprint() + 1, None)})
    assert reasons(outcome) == [Reason.COMMAND_ID_REUSED]
    assert not outcome.changed


def test_an_idempotency_key_with_another_payload_is_rejected_and_with_the_same_is_done() -> None:
    first = keyed(create(IDS[0], title="a"), "k")
    again, other = replace(first, issued_at=first.issued_at + timedelta(days=1)), replace(first, title="b")
    outcome = fold(at(first, again, other), {}, {})
    assert outcome.changed[IDS[0]].title == "a"
    assert outcome.rejected == [(Source(1, 2), other, Reason.IDEMPOTENCY_KEY_REUSED)]
    assert outcome.keyed == {first.command_id: Earlier(first.fingerprint(), None)}
    assert not outcome.seen


@pytest.mark.parametrize("state", [alive(), gone()])
def test_a_create_whose_key_is_forgotten_and_whose_todo_is_not_is_rejected(state: TodoState) -> None:
    again = keyed(create(IDS[0], title="another"), "k")
    outcome = fold(at(again, again), {IDS[0]: state}, {})
    assert reasons(outcome) == [Reason.IDEMPOTENCY_KEY_REUSED] * 2
    assert not outcome.changed


def test_a_key_covers_all_methods_and_todos_of_its_user_and_of_nobody_else() -> None:
    commands = at(
        keyed(create(IDS[0]), "k"),
        keyed(update(IDS[0], title="x"), "k"),
        keyed(create(IDS[1]), "k"),
        keyed(create(IDS[2], user="eve"), "k"),
    )
    outcome = fold(commands, {}, {})
    assert reasons(outcome) == [Reason.IDEMPOTENCY_KEY_REUSED] * 2
    assert set(outcome.changed) == {IDS[0], IDS[2]}


@pytest.mark.parametrize("key", [None, "k"])
def test_a_rejected_command_that_comes_again_is_rejected_again_for_the_same_reason(key: str | None) -> None:
    command = delete(IDS[0]) if key is None else keyed(delete(IDS[0]), key)
    outcome = fold(at(command, create(IDS[0]), command), {}, {})
    assert reasons(outcome) == [Reason.NO_SUCH_TODO] * 2
    assert outcome.changed[IDS[0]].exists
    earlier = outcome.seen | outcome.keyed
    assert reasons(fold(at(command, first=9), {IDS[0]: alive()}, earlier)) == [Reason.NO_SUCH_TODO]


@pytest.mark.parametrize("versions", [("1-7",), ("9-9", "1-7"), (ANY_VERSION,)])
def test_a_condition_that_holds_lets_the_command_through(versions: tuple[str, ...]) -> None:
    for command in (update(IDS[0], title="x", if_match=versions), delete(IDS[0], if_match=versions)):
        outcome = fold(at(command, first=8), {IDS[0]: alive(offset=7)}, {})
        assert (reasons(outcome), set(outcome.changed)) == ([], {IDS[0]})


@pytest.mark.parametrize("versions", [("1-6",), ("2-7",), ("1-70", "11-7"), ()])
def test_a_condition_that_does_not_hold_rejects_the_command(versions: tuple[str, ...]) -> None:
    for command in (update(IDS[0], title="x", if_match=versions), delete(IDS[0], if_match=versions)):
        outcome = fold(at(command, first=8), {IDS[0]: alive(offset=7)}, {})
        assert (reasons(outcome), set(outcome.changed)) == ([Reason.PRECONDITION_FAILED], set())


def test_of_two_changes_of_one_version_in_a_batch_the_second_is_rejected() -> None:
    commands = [update(IDS[0], title=title, if_match=("1-7",)) for title in ("first", "second")]
    after = update(IDS[0], completed=True, if_match=("1-8",))
    outcome = fold(at(*commands, after, first=8), {IDS[0]: alive(offset=7)}, {})
    assert outcome.rejected == [(Source(1, 9), commands[1], Reason.PRECONDITION_FAILED)]
    assert (outcome.changed[IDS[0]].title, outcome.changed[IDS[0]].completed) == ("first", True)


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({}, Reason.NO_SUCH_TODO),
        ({IDS[0]: gone()}, Reason.NO_SUCH_TODO),
        ({IDS[0]: alive("eve")}, Reason.NOT_OWNER),
    ],
)
def test_what_would_be_refused_anyway_is_refused_for_that_and_not_for_the_condition(
    states: dict[UUID, TodoState], reason: Reason
) -> None:
    for versions in ((ANY_VERSION,), ("5-5",)):
        assert reasons(fold(at(update(IDS[0], title="x", if_match=versions)), states, {})) == [reason]


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
