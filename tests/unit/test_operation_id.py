import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todo_api.core.command_log import Position
from todo_api.core.operation_id import InvalidOperationId, OperationIds

IDS = OperationIds(b"k" * 32)
POSITION = Position("kafka:todo-commands", 3, 123_456_789)
LOG = st.from_regex(r"(kafka|streams):[A-Za-z0-9._-]{1,249}", fullmatch=True)


@given(
    log=LOG,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    user_id=st.text(min_size=1, max_size=255).filter(lambda text: "\0" not in text),
)
def test_every_position_comes_back_for_its_owner(log, partition, offset, user_id):
    text = IDS.encode(Position(log, partition, offset), user_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert IDS.decode(text, user_id) == Position(log, partition, offset)


@given(user_id=st.text(max_size=20))
def test_another_user_cannot_read_it(user_id):
    text = IDS.encode(POSITION, "owner")
    if user_id != "owner":
        with pytest.raises(InvalidOperationId):
            IDS.decode(text, user_id)


def test_a_name_that_ends_where_the_user_begins_is_another_operation():
    text = IDS.encode(Position("kafka:ab", 0, 0), "c")
    with pytest.raises(InvalidOperationId):
        IDS.decode(text, "bc")
    assert text != IDS.encode(Position("kafka:a", 0, 0), "bc")


@pytest.mark.parametrize("position", range(len(IDS.encode(POSITION, "owner"))))
def test_an_id_with_one_character_changed_is_refused(position):
    text = IDS.encode(POSITION, "owner")
    for other in "AB_":
        if other != text[position]:
            with pytest.raises(InvalidOperationId):
                IDS.decode(text[:position] + other + text[position + 1 :], "owner")


@given(text=st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]{0,600}", fullmatch=True)))
def test_what_is_no_id_is_refused(text):
    with pytest.raises(InvalidOperationId):
        IDS.decode(text, "owner")


def test_padding_is_a_second_spelling_and_refused():
    with pytest.raises(InvalidOperationId):
        IDS.decode(IDS.encode(POSITION, "owner") + "=", "owner")


def test_an_id_of_another_key_is_refused():
    with pytest.raises(InvalidOperationId):
        OperationIds(b"other" * 8).decode(IDS.encode(POSITION, "owner"), "owner")
