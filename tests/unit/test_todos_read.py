import gzip
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.support.api import CURSORS, Api, assert_problem
from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import Cursor
from todo_api.cursors import CursorSigner
from todo_api.pages import PageKey

CURSOR = CURSORS.encode(Cursor(datetime(2024, 1, 1, tzinfo=UTC), UUID(int=1)))
OF_DONE = CURSORS.encode(Cursor(datetime(2024, 1, 1, tzinfo=UTC), UUID(int=1)), "completed=True")
TODO_ID = UUID("018f0000-0000-7000-8000-00000000000a")
BODY = b'{"id":"018f0000-0000-7000-8000-00000000000a"}'


@pytest.fixture
def api():
    api = Api()
    api.todos.todos[TODO_ID] = (BODY, "2-17")
    return api


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("", PageKey(None)),
        ("?", PageKey(None)),
        ("?limit=1", PageKey(1)),
        ("?limit=1000", PageKey(1000)),
        (f"?limit=10&after={CURSOR}", PageKey(10, CURSOR)),
        (f"?after={CURSOR}&limit=10", PageKey(10, CURSOR)),
        ("?limit=10&utm_source=x&unknown", PageKey(10)),
        ("?%6Cimit=10", PageKey(10)),
        ("?completed=true", PageKey(None, completed=True)),
        ("?completed=false&limit=10", PageKey(10, completed=False)),
        (f"?limit=10&after={OF_DONE}&completed=true", PageKey(10, OF_DONE, completed=True)),
    ],
)
def test_the_parameters_choose_the_page(api, query, key):
    answer = api.get(f"/todos{query}")
    assert answer.status_code == 200
    assert api.pages.asked == [key]
    assert answer.headers["content-type"] == "application/json"
    assert answer.json[0]["limit"] == str(key.limit)


LIMITS = [
    "", "0", "00", "01", "+1", "-1", "1.0", "1e2", "1_0", " 1", "1 ", "1001", "9999", "10000", "99999999999999999999",
    "x", "0x10", "NaN", "null", "%00", "1%00", "%D9%A1", "%EF%BC%91", "1%0A", "1;2", "1,2", "[]", "' or 1=1",
]  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_no_number_from_1_to_1000_is_refused_by_name(api, limit):
    members = assert_problem(api.get(f"/todos?limit={limit}"), 400, "invalid-parameter")
    assert members["parameter"] == "limit"
    assert "from 1 to 1000" in members["detail"]
    assert api.pages.asked == []


@pytest.mark.parametrize(
    "after",
    [
        "",
        "x",
        CURSOR[:-1],
        CURSOR + "A",
        CURSOR[:-1] + "!",
        "%00",
        "A" * 48,
        "A" * 5000,
        "%FF" * 48,
        CURSOR.swapcase(),
    ],
)
def test_a_cursor_we_did_not_make_is_refused_by_name(api, after):
    members = assert_problem(api.get(f"/todos?limit=10&after={after}"), 400, "invalid-parameter")
    assert members["parameter"] == "after"
    assert api.pages.asked == []


def test_a_cursor_signed_with_another_key_is_refused(api):
    forged = CursorSigner(b"f" * 32).encode(Cursor(datetime(2024, 1, 1, tzinfo=UTC), UUID(int=1)))
    assert_problem(api.get(f"/todos?limit=10&after={forged}"), 400, "invalid-parameter")


def test_a_cursor_without_a_limit_is_refused(api):
    members = assert_problem(api.get(f"/todos?after={CURSOR}"), 400, "invalid-parameter")
    assert members["parameter"] == "after"
    assert "limit" in members["detail"]


@pytest.mark.parametrize(
    "value", ["", "True", "1", "yes", "null", "true ", "%00", "truefalse", "[]", "true,false"]
)
def test_completed_that_is_neither_true_nor_false_is_refused_by_name(api, value):
    assert assert_problem(api.get(f"/todos?completed={value}"), 400)["parameter"] == "completed"


@pytest.mark.parametrize("value", ["", "ME", "alice", "me,me", "%00", "*", "me "])
def test_another_user_than_oneself_is_refused_by_name(api, value):
    assert assert_problem(api.send("GET", f"/todos?user={value}"), 400)["parameter"] == "user"


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ("", "completed=True"),
        ("", "user=alice"),
        ("completed=true", ""),
        ("completed=true", "completed=False"),
        ("user=me", ""),
        ("user=me", "user=bob"),
        ("user=me&completed=true", "user=me"),
        ("user=me", "completed=True&user=alice"),
    ],
)
def test_a_cursor_of_another_list_is_refused(api, query, filters):
    cursor = CURSORS.encode(Cursor(datetime(2024, 1, 1, tzinfo=UTC), UUID(int=1)), filters)
    answer = api.send("GET", f"/todos?limit=10&after={cursor}&{query}")
    assert assert_problem(answer, 400, "invalid-parameter")["parameter"] == "after"
    assert api.pages.asked == []


def test_the_list_of_ones_own_needs_a_token_and_is_not_for_caches(api):
    assert_problem(api.get("/todos?user=me"), 401, "unauthenticated")
    answer = api.send("GET", "/todos?user=me&completed=false&limit=3")
    assert api.pages.asked == [PageKey(3, completed=False, user_id="alice")]
    assert answer.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("query", "following"),
    [
        ("", "limit=1000&after={}"),
        ("limit=7", "limit=7&after={}"),
        ("completed=true&limit=7", "limit=7&after={}&completed=true"),
        ("user=me", "limit=1000&after={}&user=me"),
        ("user=me&completed=false&limit=2", "limit=2&after={}&completed=false&user=me"),
    ],
)
def test_the_link_to_the_next_page_keeps_the_filters(api, query, following):
    api.pages.next_after = CURSOR
    link = api.send("GET", f"/todos?{query}").headers["link"]
    assert link == f'</todos?{following.format(CURSOR)}>; rel="next"'


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=1&limit=1", "limit"),
        ("completed=true&completed=true", "completed"),
        ("user=me&user=me", "user"),
        (f"limit=1&after={CURSOR}&after=x", "after"),
    ],
)
def test_a_parameter_given_twice_is_refused_by_name(api, query, name):
    assert assert_problem(api.get(f"/todos?{query}"), 400)["parameter"] == name


def test_the_list_is_compressed_for_those_who_ask(api):
    answer = api.get("/todos", accept_encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.content)) == api.get("/todos").json


def test_a_list_that_is_known_already_is_not_sent_again(api):
    etag = api.get("/todos").headers["etag"]
    answer = api.get("/todos", if_none_match=etag)
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer.headers["etag"] == etag
    assert "content-type" not in answer.headers
    assert "content-length" not in answer.headers


def test_head_has_the_headers_of_get_and_no_body(api):
    for path in ("/todos", "/todos?limit=5", f"/todos/{TODO_ID}"):
        full, head = api.get(path), api.request("HEAD", path)
        assert head.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(full.content)
        ours = {"x-request-id"}
        assert {k: v for k, v in head.headers.items() if k not in ours} == {
            k: v for k, v in full.headers.items() if k not in ours
        }


def test_an_answer_that_caches_share_carries_nobodys_request_id(api):
    assert "x-request-id" not in api.get("/todos", x_request_id="mine").headers
    assert api.get(f"/todos/{TODO_ID}", x_request_id="mine").headers["x-request-id"] == "mine"


def test_reading_needs_no_token_and_ignores_a_bad_one(api):
    assert api.get("/todos", authorization="Bearer rubbish").status_code == 200
    assert api.get(f"/todos/{TODO_ID}", authorization="Bearer rubbish").status_code == 200


def test_a_list_that_no_store_can_give_is_503(api):
    api.pages.failure = StoreUnavailable("host db.internal port 5432 refused")
    answer = api.get("/todos")
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "db.internal" not in answer.text


def test_one_todo_is_answered_as_stored(api):
    answer = api.get(f"/todos/{TODO_ID}")
    assert answer.status_code == 200
    assert answer.content == BODY
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"


def test_one_todo_that_is_known_already_is_not_sent_again(api):
    etag = api.get(f"/todos/{TODO_ID}").headers["etag"]
    assert api.get(f"/todos/{TODO_ID}", if_none_match=f'"x", {etag}').status_code == 304
    assert api.get(f"/todos/{TODO_ID}", if_none_match='"x"').status_code == 200


def test_a_todo_that_changed_has_another_tag(api):
    before = api.get(f"/todos/{TODO_ID}").headers["etag"]
    api.todos.todos[TODO_ID] = (BODY, "2-18")
    assert api.get(f"/todos/{TODO_ID}").headers["etag"] != before


def test_the_case_of_an_id_does_not_matter(api):
    assert api.get(f"/todos/{str(TODO_ID).upper()}").content == BODY


BAD_IDS = [
    "1", "x", "%00", f"{TODO_ID}%00", f"{TODO_ID}x", f"%20{TODO_ID}", f"{TODO_ID}%0A", f"%7B{TODO_ID}%7D",
    f"urn:uuid:{TODO_ID}", TODO_ID.hex, str(TODO_ID)[:-1], "a" * 8000, "%FF%FE", "..", ".", "%2e%2e%2f", "null",
    "0" * 36, str(TODO_ID).replace("a", "%D0%B0"), str(TODO_ID).replace("-", "_"), "*", "'", "%27%20or%201=1",
    f"{TODO_ID};x", f"{TODO_ID},{TODO_ID}",
]  # fmt: skip


@pytest.mark.parametrize("todo_id", BAD_IDS)
def test_an_id_that_cannot_be_is_404(api, todo_id):
    assert_problem(api.get(f"/todos/{todo_id}"), 404, "not-found")


def test_an_id_that_is_not_there_is_404(api):
    assert_problem(api.get(f"/todos/{UUID(int=5)}"), 404, "not-found")


def test_one_todo_that_the_store_cannot_give_is_503(api):
    api.todos.failure = StoreUnavailable("away")
    assert_problem(api.get(f"/todos/{TODO_ID}"), 503, "unavailable")
