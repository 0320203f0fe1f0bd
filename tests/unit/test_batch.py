import json
from uuid import UUID, uuid4

import pytest

from tests.support.api import ALICE, OPERATION_IDS, Api, assert_problem, token
from todo_api.core.command_log import Position
from todo_api.core.commands import Kind
from todo_api.core.errors import LogUnavailable, RecordTooLarge

TODO_ID = "018f0000-0000-7000-8000-00000000000a"
CREATE = {"action": "create", "title": "milk"}
UPDATE = {"action": "update", "id": TODO_ID, "completed": True}
DELETE = {"action": "delete", "id": TODO_ID}


@pytest.fixture
def api():
    return Api()


def post(api, items, **headers):
    return api.send("POST", "/todos/batch", json.dumps({"items": items}), **headers)


def pointers(result):
    return [error["pointer"] for error in assert_problem(result, 422, "invalid-fields")["errors"]]


def test_creates_updates_and_deletes_go_to_the_log_together_each_with_its_result(api):
    answer = post(api, [CREATE, UPDATE, DELETE])

    assert answer.status_code == 202
    assert answer.headers["retry-after"] == "1"
    commands = api.publisher.commands
    assert [command.kind for command in commands] == [Kind.CREATE, Kind.UPDATE, Kind.DELETE]
    assert [(command.title, command.completed) for command in commands] == [
        ("milk", None), (None, True), (None, None),
    ]  # fmt: skip
    assert {command.user_id for command in commands} == {ALICE}
    for offset, (result, command) in enumerate(zip(answer.json["results"], commands, strict=True)):
        assert set(result) == {"status", "id", "operation"}
        assert (result["status"], result["id"]) == (202, str(command.todo_id))
        position = OPERATION_IDS.decode(result["operation"], ALICE)
        assert position == Position(api.publisher.log, 0, offset)
    assert [record.key.decode() for record in api.publisher.records][1:] == [TODO_ID, TODO_ID]


def test_an_item_that_is_wrong_gets_its_problem_and_the_others_are_accepted(api):
    answer = post(api, [CREATE, {"action": "create", "title": " "}, "nonsense", DELETE])

    assert answer.status_code == 202
    good, blank, nonsense, deleted = answer.json["results"]
    assert (good["status"], deleted["status"]) == (202, 202)
    assert (blank["status"], blank["problem"]["type"]) == (422, "/problems/invalid-fields")
    assert [error["pointer"] for error in blank["problem"]["errors"]] == ["/title"]
    assert nonsense["problem"]["errors"] == [{"pointer": "", "detail": "must be an object"}]
    assert [command.kind for command in api.publisher.commands] == [Kind.CREATE, Kind.DELETE]


def test_when_every_item_is_wrong_all_mistakes_are_told_and_nothing_is_sent(api):
    items = [
        {"action": "create"},
        {"action": "create", "title": "t", "id": TODO_ID, "if_match": "*"},
        {"action": "paint"},
        {"action": ["create"]},
        {"action": "update", "id": TODO_ID},
        {"action": "update", "id": "7", "title": "t"},
        {"action": "delete"},
        {"action": "delete", "id": TODO_ID, "if_match": "3-1702"},
        {"action": "update", "id": TODO_ID, "title": 1, "completed": "yes"},
        [],
    ]
    assert pointers(post(api, items)) == [
        "/items/0/title", "/items/1/id", "/items/1/if_match", "/items/2/action", "/items/3/action", "/items/4",
        "/items/5/id", "/items/6/id", "/items/7/if_match", "/items/8/title", "/items/8/completed", "/items/9",
    ]  # fmt: skip
    assert api.publisher.records == []


@pytest.mark.parametrize(
    "body", [{}, [], [CREATE], {"items": {}}, {"items": []}, {"items": [CREATE] * 501}, "items", None]
)
def test_a_batch_is_an_object_with_1_to_500_items(api, body):
    assert pointers(api.send("POST", "/todos/batch", json.dumps(body))) == ["/items"]
    assert api.publisher.records == []


def test_500_items_of_the_largest_batch_are_accepted(api):
    answer = post(api, [CREATE | {"description": "d" * 1_900}] * 500)
    assert answer.status_code == 202
    assert len({result["id"] for result in answer.json["results"]}) == 500


def test_a_body_above_1_mib_is_refused(api):
    assert_problem(post(api, [CREATE | {"description": "d" * 2_200}] * 500), 413, "too-large")


class Partly:
    """A log that takes only titles that begin with m. The rest is as with MemoryPublisher."""

    def __init__(self, publisher, failure):
        self._publish = publisher.publish
        self._failure = failure

    def __call__(self, records):
        return [
            self._publish(record) if b'"title":"m' in record.value else self._failure for record in records
        ]


@pytest.mark.parametrize(
    ("failure", "status", "name"),
    [(LogUnavailable("broker 7"), 503, "unavailable"), (RecordTooLarge("9 bytes"), 413, "too-large")],
)
def test_what_the_log_did_not_take_is_never_hidden_behind_what_it_took(api, failure, status, name):
    api.publisher.publish_many = Partly(api.publisher, failure)
    answer = post(api, [CREATE, CREATE | {"title": "bread"}])

    assert answer.status_code == 202
    taken, refused = answer.json["results"]
    assert taken["status"] == 202
    assert (refused["status"], refused["problem"]["type"]) == (status, f"/problems/{name}")
    # Nothing of the inside.
    assert str(failure) not in answer.text


def test_a_log_that_is_away_is_503_for_the_whole_batch_though_some_items_are_wrong(api):
    api.publisher.publish_many = Partly(api.publisher, LogUnavailable("broker 7"))
    answer = post(api, [{"action": "paint"}, CREATE | {"title": "bread"}])
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_an_idempotency_key_covers_each_item_in_its_place(api):
    first = post(api, [CREATE, CREATE, UPDATE], idempotency_key="key").json["results"]
    again = post(api, [CREATE, CREATE, UPDATE], idempotency_key="key").json["results"]
    other = post(api, [CREATE, CREATE, UPDATE], idempotency_key="key2").json["results"]

    assert [result["id"] for result in first] == [result["id"] for result in again]
    assert first[0]["id"] != first[1]["id"] != other[1]["id"]
    ids = [command.command_id for command in api.publisher.commands]
    assert ids[:3] == ids[3:6]
    assert len(set(ids)) == 6
    # Nor is it the key of a single request.
    api.send("POST", "/todos", '{"title":"milk"}', idempotency_key="key")
    assert api.publisher.commands[-1].command_id not in ids


def test_an_item_may_insist_on_a_version(api):
    post(api, [UPDATE | {"if_match": '"3-1702"'}, DELETE | {"if_match": "*"}, DELETE])
    assert [command.if_match for command in api.publisher.commands] == [("3-1702",), ("*",), None]


def test_a_condition_that_is_null_is_refused_and_not_taken_for_none(api):
    reply = post(api, [DELETE | {"if_match": None}])
    assert reply.json["errors"][0]["pointer"] == "/items/0/if_match"
    assert api.publisher.commands == []


def test_if_match_for_the_whole_batch_is_refused(api):
    assert_problem(post(api, [DELETE], if_match="*"), 400, "invalid-header")
    assert api.publisher.records == []


def test_a_batch_needs_a_token(api):
    assert_problem(post(api, [CREATE], authorization=""), 401, "unauthenticated")
    bobs = post(api, [CREATE], authorization=f"Bearer {token('bob')}").json["results"][0]
    assert api.publisher.commands[-1].user_id == "bob"
    assert UUID(bobs["id"]) == api.publisher.commands[-1].todo_id


def test_batch_is_not_taken_for_the_id_of_a_todo(api):
    assert_problem(api.get("/todos/batch"), 405, "method-not-allowed")
    assert_problem(api.get(f"/todos/{uuid4()}"), 404, "not-found")
