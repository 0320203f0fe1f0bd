from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todo_api.core.store import Cursor
from todo_api.cursors import CursorSigner, InvalidCursor

SIGNER = CursorSigner(b"k" * 32)
CURSOR = Cursor(datetime(2024, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC), UUID(int=0x1234))


YEARS = (datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001


@given(created_at=st.datetimes(*YEARS, timezones=st.just(UTC)), todo_id=st.uuids())
def test_every_cursor_comes_back_exactly(created_at, todo_id):
    text = SIGNER.encode(Cursor(created_at, todo_id))
    assert SIGNER.decode(text) == Cursor(created_at, todo_id)
    assert len(text) == 48


def test_a_time_of_another_zone_is_the_same_cursor():
    here = Cursor(CURSOR.created_at.astimezone(tz=None), CURSOR.todo_id)
    assert SIGNER.encode(here) == SIGNER.encode(CURSOR)


@pytest.mark.parametrize("position", range(48))
def test_a_cursor_with_one_character_changed_is_refused(position):
    text = SIGNER.encode(CURSOR)
    other = "A" if text[position] != "A" else "B"
    with pytest.raises(InvalidCursor):
        SIGNER.decode(text[:position] + other + text[position + 1 :])


@pytest.mark.parametrize(
    "text", ["", "A", "A" * 47, "A" * 49, "A" * 48, "=" * 48, "A" * 47 + "\n", "é" * 48, "\0" * 48, "+/" * 24]
)
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(InvalidCursor):
        SIGNER.decode(text)


def test_a_cursor_of_another_key_is_refused():
    with pytest.raises(InvalidCursor):
        SIGNER.decode(CursorSigner(b"other" * 8).encode(CURSOR))


def test_a_cursor_before_and_after_are_different_texts():
    later = Cursor(CURSOR.created_at + timedelta(microseconds=1), CURSOR.todo_id)
    assert SIGNER.encode(later) != SIGNER.encode(CURSOR)


FILTERS = ["", "completed=True", "completed=False", "user=ann", "user=bob", "completed=True&user=ann"]


@pytest.mark.parametrize("made_for", FILTERS)
@pytest.mark.parametrize("used_with", FILTERS)
def test_a_cursor_is_good_for_the_filters_it_was_made_for_alone(made_for, used_with):
    text = SIGNER.encode(CURSOR, made_for)
    if made_for == used_with:
        assert SIGNER.decode(text, used_with) == CURSOR
    else:
        with pytest.raises(InvalidCursor):
            SIGNER.decode(text, used_with)
