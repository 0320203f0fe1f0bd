"""The write path answers what Falcon answers, and leaves to Falcon whatever it does not know.

The other tests of the API send their requests through it, too (tests/support/api.py).
"""

import json
import re
from typing import Any
from uuid import UUID

import falcon.testing
import pytest

from tests.support.api import Api, token
from todo_api.core.errors import LogUnavailable, RecordTooLarge
from todo_api.core.trace_context import REQUEST_ID

TODO = {"title": "  Write  ", "description": "Two pages"}
# What is new in each answer: ids of todos, requests and operations.
IDS = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|(?<=/operations/)[\w-]+|(?<=\"operation\":\")[\w-]+"
)


class Ways:
    """The same API twice: as a process has it, and Falcon alone. ``reached_falcon`` counts for the first."""

    def __init__(self) -> None:
        self.with_path, self.alone = Api(), Api()
        self.reached_falcon = 0
        falcon_app = self.with_path.app

        def counted(environ: Any, start_response: Any) -> Any:
            self.reached_falcon += 1
            return falcon_app(environ, start_response)

        self.with_path.write_path._app = counted
        self.authorization = f"Bearer {token()}"
        for api in (self.with_path, self.alone):
            api.verifier.verify(self.authorization)

    def send(
        self, body: bytes, headers: dict[str, str], path: str = "/todos", method: str = "POST"
    ) -> list[Any]:
        """Return both answers, without what is new in each."""
        answers = []
        for app in (self.with_path.write_path, self.alone.app):
            environ = falcon.testing.create_environ(path=path, method=method, body=body, headers=headers)
            answered: list[Any] = []
            content = b"".join(app(environ, lambda *given, a=answered: a.append(given[:2])))
            ((status, raw_headers),) = answered
            plain = {name.lower(): IDS.sub("<id>", value) for name, value in raw_headers}
            answers.append((status, plain, IDS.sub("<id>", content.decode())))
        return answers

    def plain(self, body: bytes = json.dumps(TODO).encode(), **headers: str) -> list[Any]:
        standard = {"Authorization": self.authorization, "Content-Type": "application/json"}
        return self.send(body, standard | {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def ways() -> Ways:
    return Ways()


@pytest.mark.parametrize(
    "body",
    [
        b'{"title":"t"}',
        b' {"title": " t ", "description": "", "completed": true, "more": [1, {"a": null}]} ',
        '{"title":"Grün 🌱 \\" \\u00e9"}'.encode(),
        json.dumps({"title": "t" * 200, "description": "d" * 10_000}).encode(),
    ],
)
def test_a_good_todo_is_accepted_without_falcon_and_alike(ways, body):
    first, second = ways.plain(body, X_Request_Id="a-request")
    assert first == second
    assert first[0] == "202 Accepted"
    assert ways.reached_falcon == 0
    (record,) = ways.with_path.publisher.records
    ((command,), (same,)) = ways.with_path.publisher.commands, ways.alone.publisher.commands
    assert (command.title, command.description, command.completed) == (
        same.title,
        same.description,
        same.completed,
    )
    assert dict(record.headers)[REQUEST_ID] == b"a-request"


def test_the_command_is_that_of_the_answer(ways):
    environ = falcon.testing.create_environ(
        path="/todos",
        method="POST",
        body=json.dumps(TODO),
        headers={"Authorization": ways.authorization, "Content-Type": "application/json"},
    )
    answered: list[Any] = []
    (content,) = ways.with_path.write_path(environ, lambda *given: answered.append(given))
    answer, headers = json.loads(content), dict(answered[0][1])
    (command,) = ways.with_path.publisher.commands
    assert command.todo_id == UUID(answer["id"])
    assert (command.title, command.description, command.user_id) == ("Write", "Two pages", "alice")
    assert headers["location"] == f"/todos/{answer['id']}"
    assert headers["operation-location"] == f"/operations/{answer['operation']}"
    assert int(headers["content-length"]) == len(content)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"{", {}),
        (b'{"title":"t","title":"u"}', {}),
        (b'{"title":" "}', {}),
        (b'{"title":"' + b"t" * 201 + b'"}', {}),
        (b'{"description":1}', {}),
        (b'{"title":"t"}', {"Content_Type": "text/plain"}),
        (b'{"title":"t"}', {"Content_Type": 'application/json; charset="utf-8"'}),
        (b'{"title":"t"}', {"Content_Encoding": "gzip"}),
        (b'{"title":"t"}', {"Idempotency_Key": "a"}),
        (b'{"title":"t"}', {"If_Match": "*"}),
        (b'{"title":"t"}', {"Authorization": "Bearer nonsense"}),
        (b'{"title":"t"}', {"Authorization": ""}),
        (b'{"title":"t"}', {"Content_Length": "99"}),
        (b'{"title":"t"}', {"Content_Length": "+13"}),
        (b'{"title":"t"}', {"Content_Length": "000000013"}),
        (b'{"title":"t"}' + b" " * 70_000, {}),
        (b'{"title":"t"}', {"Traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}),
    ],
)
def test_anything_else_is_answered_by_falcon_which_finds_the_body_whole(ways, body, headers):
    first, second = ways.plain(body, **headers)
    assert first == second
    assert ways.reached_falcon == 1
    assert len(ways.with_path.publisher.records) == len(ways.alone.publisher.records)


@pytest.mark.parametrize("failure", [LogUnavailable("away"), RecordTooLarge("large")])
def test_a_command_that_failed_is_answered_by_falcon_and_not_sent_again(ways, failure):
    attempts = 0

    def publish(_record: object) -> None:
        nonlocal attempts
        attempts += 1
        raise failure

    ways.with_path.publisher.publish = publish
    ways.alone.publisher.failure = failure
    first, second = ways.plain(X_Request_Id="a-request")
    assert first == second
    assert attempts == 1
    assert first[1]["x-request-id"] == "a-request"


def test_other_paths_and_methods_pass(ways):
    headers = {"Authorization": ways.authorization, "Content-Type": "application/json"}
    for path, method in (
        ("/todos", "PUT"),
        ("/todos/batch", "POST"),
        ("/todos/", "POST"),
        ("/health", "GET"),
    ):
        first, second = ways.send(b'{"title":"t"}', headers, path, method)
        assert first == second
    assert ways.reached_falcon == 4


def test_what_it_accepts_is_counted(ways):
    ways.plain()
    counted = {
        (series.metric.name, series.labels): series.values for series in ways.with_path.telemetry.read()
    }
    assert counted["todo_api_http_requests_total", ("/todos", "POST", "2xx")] == (1.0,)
    assert counted["todo_api_http_requests_total", ("/todos", "POST", "5xx")] == (0.0,)
    assert sum(counted["todo_api_http_request_duration_seconds", ("/todos", "POST")][:-1]) == 1.0
