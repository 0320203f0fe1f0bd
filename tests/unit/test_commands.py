from typing import Any

import pytest
import ujson
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.commands import create, delete, keyed, update
from todo_api.core.commands import ANY_VERSION, decode
from todo_api.core.errors import InvalidCommand
from todo_api.core.ids import uuid7

titles = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=200).filter(
    lambda title: title.strip() == title
)


@given(titles, st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=1000))
def test_what_is_encoded_is_decoded_exactly(title: str, description: str) -> None:
    command = create(title=title, description=description)
    assert decode(command.encode()) == command


@pytest.mark.parametrize("make", [update, delete])
def test_updates_and_deletes_come_back_too(make: Any) -> None:
    created = create()
    command = update(created.todo_id, completed=True) if make is update else delete(created.todo_id)
    assert decode(command.encode()) == command


@pytest.mark.parametrize("versions", [(), (ANY_VERSION,), ("3-17", "3-18")])
def test_a_condition_comes_back_too(versions: tuple[str, ...]) -> None:
    command = update(create().todo_id, title="x", if_match=versions)
    assert decode(command.encode()) == command


OF_VERSION_1 = (
    '{"v":1,"kind":"update","command_id":"018f0000-0000-7000-8000-000000000001",'
    '"todo_id":"018f0000-0000-7000-8000-000000000002","user_id":"ann","issued_at_us":1767225600000000,'
    '"title":"té","description":null,"completed":true}'
).encode()


def test_what_the_version_before_wrote_is_decoded_and_has_the_fingerprint_it_had() -> None:
    command = decode(OF_VERSION_1)
    assert (command.title, command.completed, command.if_match) == ("té", True, None)
    assert command.fingerprint() == 8678511627756892282


def test_only_a_command_that_needs_the_new_version_says_so() -> None:
    assert decode(OF_VERSION_1).encode() == OF_VERSION_1.replace(b'"description":null,', b"")
    assert ujson.loads(update(create().todo_id, title="x", if_match=()).encode())["v"] == 2


def test_an_id_from_a_key_is_told_from_all_others() -> None:
    command = create()
    assert not command.has_idempotency_key
    assert not replace(command, command_id=uuid7()).has_idempotency_key
    assert keyed(command, "k").has_idempotency_key


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_invalid_command_and_nothing_worse(value: bytes) -> None:
    with pytest.raises(InvalidCommand):
        decode(value)


WIRE = ujson.loads(create().encode())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 3}, "unknown version 3"),
        ({"v": 0}, "unknown version 0"),
        ({"v": 9, "kind": "archive"}, "unknown version 9"),
        ({"kind": "archive"}, "kind"),
        ({"kind": "delete"}, "a delete has no contents"),
        ({"kind": "update", "title": None, "description": None}, "needs something to change"),
        ({"title": None}, "a create needs a title"),
        ({"title": 7}, "title"),
        ({"title": ""}, "title: must not be blank"),
        ({"title": " x"}, "title: must not begin"),
        ({"title": "x" * 201}, "at most 200"),
        ({"title": "a\0b"}, "U+0000"),
        ({"description": "x" * 10_001}, "at most 10000"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 256}, "user_id"),
        ({"todo_id": "7"}, "todo_id"),
        ({"command_id": None}, "command_id"),
        ({"issued_at_us": -1}, "issued_at_us"),
        ({"issued_at_us": 10**18}, "issued_at_us"),
        ({"completed": "yes"}, "completed"),
        ({"if_match": ["1-1"]}, "a create has no condition"),
        ({"if_match": [7]}, "if_match"),
        ({"if_match": "*"}, "if_match"),
    ],
)
def test_a_command_that_cannot_be_applied_is_invalid_and_says_why(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidCommand) as caught:
        decode(ujson.dumps(WIRE | change).encode())
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", [None, b"", b"null", b"[]", b"{}", b"\xff", b'{"v":1', b"[" * 100_000])
def test_what_is_no_object_is_invalid(value: bytes | None) -> None:
    with pytest.raises(InvalidCommand):
        decode(value)


def test_a_lone_surrogate_is_invalid() -> None:
    value = create(title="marker").encode().replace(b"marker", b"\\ud800")
    with pytest.raises(InvalidCommand):
        decode(value)


def test_unknown_fields_are_ignored_so_that_a_newer_api_may_add_some() -> None:
    command = create()
    assert decode(ujson.dumps(ujson.loads(command.encode()) | {"priority": 3}).encode()) == command


def test_the_fingerprint_depends_on_the_payload_and_on_nothing_else() -> None:
    command = create()
    again = create(command.todo_id, at_s=50)
    assert again.fingerprint() == command.fingerprint()
    different = [
        replace(command, title="tea"),
        replace(command, description="x"),
        replace(command, completed=True),
        replace(command, user_id="bob"),
        replace(command, todo_id=create().todo_id),
        replace(command, if_match=()),
        replace(command, if_match=("1-1",)),
    ]
    assert len({command.fingerprint(), *(other.fingerprint() for other in different)}) == len(different) + 1
