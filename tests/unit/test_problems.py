import logging

import falcon
import pytest

from tests.support.api import Api, assert_problem
from todo_api.core.errors import (
    CacheUnavailable,
    KeysUnavailable,
    LogUnavailable,
    StoreUnavailable,
    Unavailable,
)

INSIDE = "password=hunter2 at 10.0.0.7, line 42"


class Raises:
    """A resource that fails in the way it is told."""

    def __init__(self, failure):
        self.failure = failure

    def on_get(self, _req, resp):
        resp.text = "half an answer"
        resp.set_header("Cache-Control", "public")
        raise self.failure

    on_head = on_post = on_get


@pytest.fixture
def api():
    return Api()


def fail_with(api, failure, method="GET"):
    api.app.add_route("/fails", Raises(failure))
    return api.request(method, "/fails")


@pytest.mark.parametrize(
    "failure",
    [
        ValueError(INSIDE),
        KeyError(INSIDE),
        RecursionError(INSIDE),
        MemoryError(INSIDE),
        AssertionError(INSIDE),
    ],
)
def test_an_error_nobody_expected_is_500_without_a_word_of_the_inside(api, caplog, failure):
    answer = fail_with(api, failure)
    members = assert_problem(answer, 500, "internal-error")
    assert "hunter2" not in answer.text
    assert type(failure).__name__ not in answer.text
    assert "Traceback" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[1] is failure
    assert record.request_id == members["request_id"]


@pytest.mark.parametrize(
    "kind", [Unavailable, StoreUnavailable, LogUnavailable, CacheUnavailable, KeysUnavailable]
)
def test_a_server_that_is_away_is_503_with_the_time_to_wait(api, caplog, kind):
    answer = fail_with(api, kind(INSIDE))
    members = assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "hunter2" not in answer.text
    assert [record.request_id for record in caplog.records] == [members["request_id"]]


STATUSES = [
    *range(400, 407), *range(408, 418), 422, 423, 424, 426, 428, 429, 431, 451, *range(500, 506), 507, 508, 511
]  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_a_problem(api, status):
    assert_problem(fail_with(api, falcon.HTTPError(status, headers={"X-Kept": "yes"})), status)
    assert api.get("/fails").headers["x-kept"] == "yes"


def test_what_falcon_says_about_a_request_is_passed_on(api):
    answer = fail_with(api, falcon.HTTPInvalidHeader("it is odd", "X-Odd"))
    assert "X-Odd" in assert_problem(answer, 400, "bad-request")["detail"]


def test_the_time_to_wait_of_a_falcon_error_is_kept(api):
    answer = fail_with(api, falcon.HTTPTooManyRequests(retry_after=7))
    assert_problem(answer, 429, "too-many-requests")
    assert answer.headers["retry-after"] == "7"


def test_nothing_of_a_half_made_answer_is_left(api):
    answer = fail_with(api, StoreUnavailable("away"))
    assert "half" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_head_gets_the_status_and_headers_of_the_problem_alone(api):
    answer = fail_with(api, StoreUnavailable("away"), method="HEAD")
    assert answer.status_code == 503
    assert answer.content == b""
    assert answer.headers["retry-after"] == "1"
