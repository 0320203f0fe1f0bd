import pytest

from tests.support.api import OPERATION_IDS, Api, assert_problem, token
from todo_api.core.command_log import Position
from todo_api.core.store import Fate

BOB = "bob"


@pytest.fixture
def api() -> Api:
    return Api()


def mine(offset: int = 0, user: str = "alice") -> str:
    return f"/operations/{OPERATION_IDS.encode(Position('memory:todo-commands', 0, offset), user)}"


def test_a_write_leads_to_its_operation(api: Api) -> None:
    answer = api.send("POST", "/todos", '{"title": "milk"}')
    status = api.send("GET", answer.headers["operation-location"])
    assert status.status_code == 200
    assert status.json == {"operation": answer.json["operation"], "status": "pending"}
    assert status.headers["retry-after"] == "1"
    assert status.headers["cache-control"] == "no-store"


def test_an_applied_operation_says_so(api: Api) -> None:
    api.fates.fates[4] = Fate(True, None)
    status = api.send("GET", mine(4))
    assert status.json["status"] == "applied"
    assert "retry-after" not in status.headers


@pytest.mark.parametrize(
    ("reason", "name", "code"),
    [
        ("no_such_todo", "no-such-todo", 404),
        ("not_owner", "not-owner", 403),
        ("command_id_reused", "command-id-reused", 422),
        ("idempotency_key_reused", "idempotency-key-reused", 422),
        ("precondition_failed", "precondition-failed", 412),
    ],
)
def test_a_rejected_operation_gives_the_reason_as_a_problem(
    api: Api, reason: str, name: str, code: int
) -> None:
    api.fates.fates[4] = Fate(True, reason)
    status = api.send("GET", mine(4))
    assert status.status_code == 200
    assert status.json["status"] == "rejected"
    assert status.json["problem"]["type"] == f"/problems/{name}"
    assert status.json["problem"]["status"] == code


def test_nobody_else_sees_an_operation(api: Api) -> None:
    assert_problem(api.send("GET", mine(user=BOB)), 404, "not-found")
    assert_problem(api.request("GET", mine()), 401, "unauthenticated")
    assert api.send("GET", mine(user=BOB), authorization=f"Bearer {token(BOB)}").status_code == 200


@pytest.mark.parametrize("operation", ["x", "A" * 60, "%00", "A" * 600, mine()[12:-1], mine()[12:] + "A"])
def test_what_is_no_operation_id_is_not_found(api: Api, operation: str) -> None:
    assert_problem(api.send("GET", f"/operations/{operation}"), 404, "not-found")


def test_only_reading_works(api: Api) -> None:
    assert_problem(api.send("DELETE", mine()), 405, "method-not-allowed")
    assert api.send("HEAD", mine()).status_code == 200
