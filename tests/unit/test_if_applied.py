"""If-Applied: an answer that shows the reader's own writes, or 425; never an older one."""

from uuid import UUID

import pytest

from tests.support.api import OPERATION_IDS, Api, assert_problem, token
from todo_api.core.command_log import Position
from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import State

TODO_ID = UUID("018f0000-0000-7000-8000-00000000000a")
TODO = f"/todos/{TODO_ID}"


@pytest.fixture
def api():
    api = Api()
    api.todos.todos[TODO_ID] = (b"{}", "1-1")
    api.todos.next_offset = 5
    return api


def operation(offset, user="alice"):
    return OPERATION_IDS.encode(Position("memory:todo-commands", 0, offset), user)


APPLIED, PENDING = operation(4), operation(5)


def read(api, path, *operations, method="GET", **headers):
    """Read with Alice's token and these operations in If-Applied."""
    return api.send(method, path, **{"if_applied": ", ".join(operations)} | headers)


paths = pytest.mark.parametrize("path", ["/todos", "/todos?limit=10", TODO])


@paths
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_with_the_write_applied_the_answer_is_as_ever(api, path, method):
    answer = read(api, path, APPLIED, method=method)
    assert answer.status_code == 200
    assert answer.headers["etag"] == api.get(path).headers["etag"]


@paths
def test_with_the_write_not_applied_it_is_425_with_the_time_to_wait(api, path):
    answer = read(api, path, PENDING)
    assert_problem(answer, 425, "not-yet-applied")
    assert answer.headers["retry-after"] == "1"
    assert api.pages.asked == []


def test_a_list_is_asked_for_in_a_state_that_includes_the_write(api):
    read(api, "/todos", APPLIED)
    assert api.pages.asked_at_least == [State("e", 5)]
    api.get("/todos")
    assert api.pages.asked_at_least[-1] is None


def test_of_several_writes_every_one_must_be_applied(api):
    assert read(api, TODO, *map(operation, range(5))).status_code == 200
    assert_problem(read(api, TODO, APPLIED, PENDING), 425)
    assert_problem(read(api, TODO, PENDING, APPLIED), 425)


def test_what_is_known_already_is_not_sent_again(api):
    for path in ("/todos", TODO):
        etag = read(api, path, APPLIED).headers["etag"]
        assert read(api, path, APPLIED, if_none_match=etag).status_code == 304
        assert_problem(read(api, path, PENDING, if_none_match=etag), 425)


def test_no_cache_keeps_a_list_that_was_asked_for_like_this_or_answers_with_another(api):
    assert read(api, "/todos", APPLIED).headers["cache-control"] == "private, no-cache"
    assert "If-Applied" in api.get("/todos").headers["vary"]


@paths
def test_without_a_token_it_is_401(api, path):
    assert_problem(api.get(path, if_applied=APPLIED), 401, "unauthenticated")


@paths
@pytest.mark.parametrize(
    "value",
    ["", " ", ",", f"{APPLIED},", f",{APPLIED}", "x", "*", f'"{APPLIED}"', APPLIED[:-1], APPLIED + "A", "A" * 60,
     "A" * 5000, operation(4, "bob"), f"{APPLIED} {APPLIED}", f"{APPLIED};{APPLIED}", "\u00e9", f"{APPLIED},x"],
)  # fmt: skip
def test_what_is_no_operation_of_ones_own_is_400_and_names_the_header(api, path, value):
    assert assert_problem(read(api, path, value), 400, "invalid-header")["header"] == "If-Applied"


def test_more_than_32_operations_are_refused(api):
    assert read(api, TODO, *[APPLIED] * 32).status_code == 200
    assert "32" in assert_problem(read(api, TODO, *[APPLIED] * 33), 400, "invalid-header")["detail"]


def test_another_user_reads_after_writes_of_their_own(api):
    as_bob = {"authorization": f"Bearer {token('bob')}"}
    assert read(api, TODO, operation(4, "bob"), **as_bob).status_code == 200
    assert_problem(read(api, TODO, APPLIED, **as_bob), 400)


def test_a_todo_that_the_write_deleted_is_404(api):
    assert_problem(read(api, f"/todos/{UUID(int=7)}", APPLIED), 404, "not-found")


def test_with_the_store_away_it_is_503_not_an_old_page(api):
    api.todos.failure = StoreUnavailable("away")
    for path in ("/todos", TODO):
        assert_problem(read(api, path, APPLIED), 503, "unavailable")


def test_a_bad_limit_or_id_is_told_before_anything_else(api):
    assert_problem(read(api, "/todos?limit=0", "x"), 400, "invalid-parameter")
    assert_problem(read(api, "/todos/x", "x"), 404, "not-found")
