"""The Python client, against a real HTTP server that answers what a test tells it to."""

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.stack.server import free_port
from todo_api.client import (
    ApiProblem,
    FieldProblem,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    Rejected,
    StillPending,
    TodoClient,
    TodoClientError,
    Unavailable,
    Unreachable,
    Write,
)

PROBLEM = {"type": "/problems/x", "title": "It is so", "status": 0, "detail": "because", "request_id": "r1"}
ACCEPTED = {"id": "t1", "message": "queued", "operation": "o1"}
TODO = {
    "id": "t1", "title": "milk", "description": "", "completed": False, "user_id": "ann",
    "created_at": "2026-01-02T03:04:05.678901Z", "updated_at": "2026-01-02T03:04:05.678901Z", "new": "ignored",
}  # fmt: skip


class Script:
    """Answers requests with what is in ``answers``, in order; the last stays. Keeps what was asked."""

    def __init__(self):
        self.answers = []
        self.requests = []

    def then(self, status, contents, **headers):
        self.answers.append(
            (status, contents, {name.replace("_", "-"): value for name, value in headers.items()})
        )
        return self

    def handle(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.requests.append((handler.command, handler.path, handler.headers, body))
        status, contents, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        sent = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(sent)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(sent)


# The last is that of the running test.
scripts: list[Script] = []


@pytest.fixture(scope="module")
def server():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            scripts[-1].handle(self)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def script(server):
    scripts.append(Script())
    return scripts[-1]


@pytest.fixture
def client(server, script):
    with TodoClient(f"http://127.0.0.1:{server.server_port}/", "a.b.c", deadline_s=3) as made:
        yield made


def test_a_create_carries_the_token_the_fields_and_a_key(client, script):
    script.then(202, ACCEPTED)

    assert client.create("Käse", "two") == Write("t1", "o1")
    assert client.create("Käse", "two", idempotency_key="mine") == Write("t1", "o1")

    (method, path, headers, body), (_, _, second, _) = script.requests
    assert (method, path, json.loads(body)) == ("POST", "/todos", {"title": "Käse", "description": "two"})
    assert headers["Authorization"] == "Bearer a.b.c"
    assert headers["Content-Type"] == "application/json"
    assert len(headers["Idempotency-Key"]) == 32
    assert second["Idempotency-Key"] == "mine"


def test_an_update_sends_only_what_is_given_and_a_delete_no_body(client, script):
    script.then(202, ACCEPTED)

    client.update("t1", completed=False)
    client.delete("t1")

    (method, path, _, body), (deleted, _, headers, nothing) = script.requests
    assert (method, path, json.loads(body)) == ("PATCH", "/todos/t1", {"completed": False})
    assert (deleted, nothing, headers["Content-Type"]) == ("DELETE", b"", None)


def test_an_id_from_elsewhere_stays_one_segment_of_the_path(client, script):
    script.then(202, ACCEPTED)
    client.delete("../operations/x?y#z")
    assert script.requests[0][1] == "/todos/..%2Foperations%2Fx%3Fy%23z"


@pytest.mark.parametrize("status", [425, 429, 500, 502, 503, 504])
def test_a_write_is_sent_again_with_the_same_key_until_it_is_accepted(client, script, status):
    script.then(status, PROBLEM).then(status, b"<html>").then(202, ACCEPTED)

    client.create("milk")

    keys = [headers["Idempotency-Key"] for _, _, headers, _ in script.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(client, script, as_date):
    # A date has whole seconds.
    value = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    script.then(503, PROBLEM, Retry_After=value).then(200, TODO)
    began = time.monotonic()

    client.get("t1")

    assert time.monotonic() - began >= 0.9


def test_at_the_deadline_the_last_problem_is_raised(client, script):
    script.then(503, PROBLEM, Retry_After="60")
    began = time.monotonic()

    with pytest.raises(Unavailable) as raised:
        client.get("t1")

    # What cannot succeed in time is not waited for.
    assert time.monotonic() - began < 2
    assert raised.value.retry_after_s == 60
    assert str(raised.value) == "503 It is so: because"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (401, NotAuthorized), (403, NotAuthorized), (404, NotFound), (405, InvalidRequest),
     (412, InvalidRequest), (413, InvalidRequest), (415, InvalidRequest), (301, InvalidRequest)],
)  # fmt: skip
def test_an_answer_that_will_not_change_is_raised_at_once(client, script, status, kind):
    script.then(status, PROBLEM)

    with pytest.raises(kind) as raised:
        client.get("t1")

    assert len(script.requests) == 1
    assert (raised.value.status, raised.value.type, raised.value.request_id) == (status, "/problems/x", "r1")


def test_wrong_fields_are_named(client, script):
    script.then(422, PROBLEM | {"errors": [{"pointer": "/title", "detail": "is required"}]})

    with pytest.raises(InvalidRequest, match="/title is required") as raised:
        client.create("")

    assert raised.value.errors == (FieldProblem("/title", "is required"),)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'"x"'])
def test_an_error_that_is_no_problem_json_is_still_an_error_with_its_status(client, script, body):
    script.then(404, body)
    with pytest.raises(ApiProblem, match="404 The API answered 404"):
        client.get("t1")


def test_a_success_that_is_not_json_says_so_at_once(client, script):
    script.then(200, b"<html>Welcome</html>")
    with pytest.raises(TodoClientError, match="is this the API"):
        client.get("t1")
    assert len(script.requests) == 1


def test_when_nobody_answers_it_is_unreachable_after_the_deadline():
    with TodoClient(f"http://127.0.0.1:{free_port()}", deadline_s=0.3) as client, pytest.raises(Unreachable):
        client.get("t1")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://x/?a=b", "http://x/#a"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="http"):
        TodoClient(url)


def test_a_token_may_be_renewed_for_each_request(server, script):
    script.then(200, TODO)
    tokens = iter(["first", "second"])
    with TodoClient(f"http://127.0.0.1:{server.server_port}", lambda: next(tokens)) as client:
        client.get("t1")
        client.get("t1")
    assert [headers["Authorization"] for _, _, headers, _ in script.requests] == [
        "Bearer first",
        "Bearer second",
    ]


def test_a_read_after_writes_names_them(client, script):
    script.then(200, TODO)

    todo = client.get("t1", after=[Write("t1", "o1"), Write("t2", "o2")])

    assert script.requests[0][2]["If-Applied"] == "o1, o2"
    assert (todo.title, todo.created_at.isoformat()) == ("milk", "2026-01-02T03:04:05.678901+00:00")


def test_all_todos_are_fetched_page_by_page_as_they_are_needed(client, script):
    script.then(200, [TODO, TODO], Link='</todos?limit=2&after=abc>; rel="next"').then(200, [TODO])
    todos = client.todos(page_size=2)

    next(todos)
    assert [path for _, path, _, _ in script.requests] == ["/todos?limit=2"]
    assert len(list(todos)) == 2
    assert [path for _, path, _, _ in script.requests] == ["/todos?limit=2", "/todos?limit=2&after=abc"]


@pytest.mark.parametrize("target", ["https://elsewhere.example/todos", "//elsewhere.example/todos", "todos"])
def test_the_token_never_follows_a_link_to_another_host(client, script, target):
    script.then(200, [TODO], Link=f'<{target}>; rel="next"')
    with pytest.raises(TodoClientError, match="no path of its own"):
        list(client.todos())
    assert len(script.requests) == 1


def test_waiting_ends_when_the_write_is_applied(client, script):
    pending = {"operation": "o1", "status": "pending"}
    script.then(200, pending, Retry_After="1").then(503, PROBLEM).then(200, pending | {"status": "applied"})

    client.wait(Write("t1", "o1"))

    assert [path for _, path, _, _ in script.requests] == ["/operations/o1"] * 3


def test_a_rejection_is_raised_with_its_reason(client, script):
    reason = {"type": "/problems/not-owner", "title": "The todo is another user's", "status": 403}
    script.then(200, {"operation": "o1", "status": "rejected", "problem": reason})

    with pytest.raises(Rejected, match="403 The todo is another user's") as raised:
        client.wait(Write("t1", "o1"))

    assert raised.value.type == "/problems/not-owner"
    assert client.operation(Write("t1", "o1")).status == "rejected"


def test_waiting_ends_at_the_deadline_with_the_write_still_pending(client, script):
    script.then(200, {"operation": "o1", "status": "pending"}, Retry_After="1")
    with pytest.raises(StillPending, match="o1"):
        client.wait(Write("t1", "o1"), deadline_s=0.5)
    assert script.requests
