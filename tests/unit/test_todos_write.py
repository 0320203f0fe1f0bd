import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.api import ALICE, OPERATION_IDS, Api, assert_problem, token
from todo_api.core.command_log import Position
from todo_api.core.commands import Kind
from todo_api.core.errors import LogUnavailable, RecordTooLarge
from todo_api.core.ids import keyed_uuid
from todo_api.core.todo import version_tag

TODO_ID = UUID("018f0000-0000-7000-8000-00000000000a")
ITEM = f"/todos/{TODO_ID}"
CHANGES = [("PUT", ITEM), ("PATCH", ITEM)]
WRITES = [
    ("POST", "/todos", '{"title":"t"}'),
    *[(*call, '{"title":"t"}') for call in CHANGES],
    ("DELETE", ITEM, ""),
]


@pytest.fixture
def api():
    return Api()


def fields_at_fault(result):
    return [error["pointer"] for error in assert_problem(result, 422, "invalid-fields")["errors"]]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_write_is_answered_when_it_is_in_the_log(api, method, path, body):
    answer = api.send(method, path, body)
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["operation-location"] == f"/operations/{answer.json['operation']}"
    assert set(answer.json) == {"id", "message", "operation"}
    command = api.publisher.commands[0]
    assert answer.json["id"] == str(command.todo_id)
    assert command.user_id == ALICE
    assert command.command_id.version == 7
    assert abs(datetime.now(UTC) - command.issued_at) < timedelta(minutes=1)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_the_operation_names_the_position_for_its_owner_alone(api, method, path, body):
    api.send("POST", "/todos", '{"title":"earlier"}')
    operation = api.send(method, path, body).json["operation"]
    assert OPERATION_IDS.decode(operation, ALICE) == Position(api.publisher.log, 0, 1)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_the_record_has_the_todo_as_its_key(api, method, path, body):
    answer = api.send(method, path, body)
    assert api.publisher.records[0].key == answer.json["id"].encode()


def test_a_new_todo_gets_an_id_and_a_location(api):
    first, second = (api.send("POST", "/todos", '{"title":"t"}') for _ in range(2))
    assert UUID(first.json["id"]).version == 7
    assert first.json["id"] < second.json["id"]
    assert first.headers["location"] == f"/todos/{first.json['id']}"


def test_a_create_has_its_text_and_no_state(api):
    api.send("POST", "/todos", '{"title":"  a title\\n","description":"  kept as it is\\n"}')
    command = api.publisher.commands[0]
    assert (command.kind, command.title, command.description) == (Kind.CREATE, "a title", "  kept as it is\n")
    assert command.completed is None


def test_a_create_without_description_has_an_empty_one(api):
    api.send("POST", "/todos", '{"title":"t"}')
    assert api.publisher.commands[0].description == ""


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ('{"title":" new "}', ("new", None, None)),
        ('{"description":""}', (None, "", None)),
        ('{"completed":true}', (None, None, True)),
        ('{"completed":false}', (None, None, False)),
        ('{"title":"t","description":"d","completed":true}', ("t", "d", True)),
    ],
)
def test_a_change_leaves_alone_what_it_leaves_out(api, method, path, body, changed):
    assert api.send(method, path, body).status_code == 202
    command = api.publisher.commands[0]
    assert (command.title, command.description, command.completed) == changed
    assert (command.kind, command.todo_id) == (Kind.UPDATE, TODO_ID)


def test_a_delete_has_no_contents(api):
    api.send("DELETE", ITEM)
    command = api.publisher.commands[0]
    assert (command.kind, command.todo_id) == (Kind.DELETE, TODO_ID)
    assert (command.title, command.description, command.completed) == (None, None, None)


def test_the_spelling_of_an_id_does_not_change_the_key(api):
    api.send("DELETE", ITEM.upper().replace("/TODOS", "/todos"))
    assert api.publisher.records[0].key == str(TODO_ID).encode()


STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    title=STORABLE.map(str.strip).filter(lambda text: 1 <= len(text) <= 200),
    description=STORABLE,
    raw=st.booleans(),
)
def test_text_reaches_the_log_exactly(title, description, raw):
    api = Api()
    body = json.dumps({"title": title, "description": description}, ensure_ascii=not raw)
    assert api.send("POST", "/todos", body.encode()).status_code == 202
    assert (api.publisher.commands[0].title, api.publisher.commands[0].description) == (title, description)


def test_everything_that_is_not_the_clients_is_ignored(api):
    body = (
        '{"title":"t","id":"018f0000-0000-7000-8000-0000000000ff","user_id":"mallory","created_at":"1970-01-01",'
        '"completed":true,"command_id":"x","kind":"delete","issued_at_us":0,"__proto__":{"a":1},"nested":[{"a":[1]}]}'
    )
    answer = api.send("POST", "/todos", body, x_user_id="mallory", x_http_method_override="DELETE")
    assert answer.status_code == 202
    command = api.publisher.commands[0]
    assert (command.kind, command.user_id, command.completed) == (Kind.CREATE, ALICE, None)
    assert str(command.todo_id) != "018f0000-0000-7000-8000-0000000000ff"
    assert command.issued_at.year > 2000


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("todo_id", ["x", "1", "%00", TODO_ID.hex, f"{{{TODO_ID}}}", f"{TODO_ID}x"])
def test_a_write_to_an_id_that_cannot_be_is_404(api, method, todo_id):
    assert_problem(api.send(method, f"/todos/{todo_id}", '{"title":"t"}'), 404, "not-found")
    assert api.publisher.records == []


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ("{}", ["/title"]),
        ('{"title":null}', ["/title"]),
        ('{"title":1}', ["/title"]),
        ('{"title":true}', ["/title"]),
        ('{"title":["t"]}', ["/title"]),
        ('{"title":{"t":1}}', ["/title"]),
        ('{"title":""}', ["/title"]),
        ('{"title":" \\t\\u00a0\\u3000\\n"}', ["/title"]),
        ('{"title":"%s"}' % ("x" * 201), ["/title"]),
        ('{"title":"a\\u0000b"}', ["/title"]),
        ('{"Title":"t"}', ["/title"]),
        ('{"title":"t","description":null}', ["/description"]),
        ('{"title":"t","description":5}', ["/description"]),
        ('{"title":"t","description":"\\u0000"}', ["/description"]),
        ('{"title":"t","description":"%s"}' % ("x" * 10_001), ["/description"]),
        ('{"title":"","description":1}', ["/title", "/description"]),
        ('{"description":1}', ["/title", "/description"]),
        ("[]", [""]),
        ('[{"title":"t"}]', [""]),
        ("null", [""]),
        ('"title"', [""]),
        ("1", [""]),
        ("true", [""]),
    ],
)
def test_a_new_todo_with_bad_fields_is_refused_with_a_pointer_to_each(api, body, pointers):
    assert fields_at_fault(api.send("POST", "/todos", body)) == pointers
    assert api.publisher.records == []


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ("{}", [""]),
        ('{"other":1}', [""]),
        ('{"title":null}', ["/title"]),
        ('{"description":null}', ["/description"]),
        ('{"completed":null}', ["/completed"]),
        ('{"completed":1}', ["/completed"]),
        ('{"completed":0}', ["/completed"]),
        ('{"completed":"true"}', ["/completed"]),
        ('{"completed":[]}', ["/completed"]),
        ('{"title":" ","description":[],"completed":"no"}', ["/title", "/description", "/completed"]),
        ('{"title":"good","completed":2}', ["/completed"]),
        ("[]", [""]),
        ("null", [""]),
    ],
)
def test_a_change_with_bad_fields_is_refused_with_a_pointer_to_each(api, method, path, body, pointers):
    assert fields_at_fault(api.send(method, path, body)) == pointers
    assert api.publisher.records == []


@pytest.mark.parametrize("text", ["x" * 200, "\U0001f600" * 200, "e\u0301" * 100])
def test_a_title_of_200_code_points_is_taken(api, text):
    assert api.send("POST", "/todos", f'{{"title":"{text}"}}').status_code == 202
    assert api.publisher.commands[0].title == text


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_log_that_is_away_is_503_and_tells_nothing(api, method, path, body):
    api.publisher.failure = LogUnavailable("broker kafka.internal:9092 refused")
    answer = api.send(method, path, body)
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "kafka" not in answer.text


def test_a_record_that_the_log_cannot_take_is_413(api):
    api.publisher.failure = RecordTooLarge("1 MiB")
    assert_problem(api.send("POST", "/todos", '{"title":"t"}'), 413, "too-large")


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_write_with_a_key_is_the_same_command_each_time(api, method, path, body):
    first, second, other, bobs = (
        api.send(method, path, body, idempotency_key=key, authorization=f"Bearer {token(user)}")
        for key, user in [("k", ALICE), ('"k"', ALICE), ("l", ALICE), ("k", "bob")]
    )
    ids = [command.command_id for command in api.publisher.commands]
    assert ids[0] == ids[1] == keyed_uuid(ALICE, "k")
    assert len(set(ids)) == 3
    assert all(command.has_idempotency_key for command in api.publisher.commands)
    assert first.json["id"] == second.json["id"]
    if method == "POST":
        assert len({first.json["id"], other.json["id"], bobs.json["id"]}) == 3
        assert first.headers["location"] == second.headers["location"]


@pytest.mark.parametrize(("method", "path", "body"), WRITES[1:])
def test_a_condition_is_in_the_command(api, method, path, body):
    assert api.send(method, path, body, if_match='"3-17"').status_code == 202
    assert api.send(method, path, body).status_code == 202
    assert [command.if_match for command in api.publisher.commands] == [("3-17",), None]


def test_the_tag_that_get_gives_is_the_one_that_a_write_may_insist_on(api):
    api.todos.todos[TODO_ID] = (b"{}", version_tag(3, 17))
    api.send("DELETE", ITEM, if_match=api.get(ITEM).headers["etag"])
    assert api.publisher.commands[0].if_match == (version_tag(3, 17),)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_without_a_token_nothing_is_written(api, method, path, body):
    answer = api.request(method, path, body=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="todo-api"'
    assert api.publisher.records == []


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_with_a_bad_token_nothing_is_written(api, method, path, body):
    answer = api.send(method, path, body, authorization=f"Bearer {token(key='x' * 32)}")
    assert_problem(answer, 401, "unauthenticated")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert api.publisher.records == []


def test_a_user_is_told_by_the_token_alone(api):
    api.send("POST", "/todos?user_id=mallory", '{"title":"t"}', authorization=f"Bearer {token('bob')}")
    assert api.publisher.commands[0].user_id == "bob"
