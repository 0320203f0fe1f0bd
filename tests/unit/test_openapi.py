"""The OpenAPI document is what the app does: no route without its description, no described answer that never comes."""

import gzip
import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from falcon.inspect import inspect_routes, inspect_sinks, inspect_static_routes
from falcon.testing import Result
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.api import OPERATION_IDS, Api, MemoryPages, page
from todo_api.core.command_log import Position
from todo_api.core.errors import KeysUnavailable, LogUnavailable, StoreUnavailable
from todo_api.core.store import Fate, State
from todo_api.core.todo import DESCRIPTION_MAX_CHARS, TITLE_MAX_CHARS
from todo_api.pages import Page, PageKey
from todo_api.request_body import BODY_MAX_BYTES

TODO_ID = "018f0000-0000-7000-8000-00000000000a"
TODO = f"/todos/{TODO_ID}"
STORED = (
    f'{{"id":"{TODO_ID}","title":"milk","description":"","completed":false,"user_id":"alice",'
    '"created_at":"2026-01-01T00:00:00.5Z","updated_at":"2026-01-01T00:00:00.5Z"}'
).encode()
MILK = '{"title": "milk"}'
BATCH = """{"items": [{"action": "create", "title": "milk"}, {"action": "paint"}]}"""
TOO_LARGE = f'{{"title": "{"x" * BODY_MAX_BYTES}"}}'
OPERATION = OPERATION_IDS.encode(Position("memory:todo-commands", 0, 0), "alice")

# What every answer may have without saying so: HTTP's own, and directions to caches.
EVERYWHERE = {"content-length", "content-type", "cache-control", "vary"} | {
    "content-security-policy", "cross-origin-opener-policy", "cross-origin-resource-policy",
    "permissions-policy", "referrer-policy",
    "x-content-type-options",
}  # fmt: skip


class OneTodo(MemoryPages):
    """Every list has one todo in it, and goes on."""

    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        super().get(key, at_least)
        return page(key=key, body=b"[" + STORED + b"]", next_after="c" * 48)


@pytest.fixture
def api() -> Api:
    api = Api(pages=OneTodo())
    api.todos.todos[UUID(TODO_ID)] = (STORED, "1-1")
    return api


@pytest.fixture(scope="module")
def described() -> Any:
    return Api().get("/openapi.json").json


Example = Callable[[Api], Result]


def send(method: str, path: str, body: str = "", **headers: str) -> Example:
    """A request with Alice's token."""
    return lambda api: api.send(method, path, body, **headers)


def anonymous(method: str, path: str) -> Example:
    return lambda api: api.request(method, path)


def without_servers(method: str, path: str, body: str = "", **headers: str) -> Example:
    def ask(api: Api) -> Result:
        api.publisher.failure = LogUnavailable("away")
        api.pages.failure = api.todos.failure = api.fates.failure = StoreUnavailable("away")
        return api.send(method, path, body, **headers)

    return ask


def unready(api: Api) -> Result:
    api.readiness.drain()
    return api.get("/ready")


def again(path: str) -> Example:
    """The same request once more, with the ETag of the first answer."""
    return lambda api: api.get(path, if_none_match=api.get(path).headers["etag"])


def rejected(api: Api) -> Result:
    api.fates.fates[0] = Fate(True, "no_such_todo")
    return api.send("GET", f"/operations/{OPERATION}")


def of_a_write(method: str, path: str, body: str) -> dict[tuple[str, str, int], list[Example]]:
    """What every write with a body can be answered."""
    template = re.sub(TODO_ID, "{todo_id}", path)
    answers = {
        202: [send(method, path, body)],
        400: [send(method, path, "{"), send(method, path, body, idempotency_key=" ")],
        401: [anonymous(method, path)],
        413: [send(method, path, TOO_LARGE)],
        415: [
            send(method, path, body, content_type="text/plain"),
            send(method, path, body, content_encoding="gzip"),
        ],
        422: [send(method, path, '{"title": ""}'), send(method, path, "[]")],
        503: [without_servers(method, path, body)],
    }
    return {(method, template, status): examples for status, examples in answers.items()}


NOWHERE = f"/todos/{UUID(int=5)}"
EXAMPLES: dict[tuple[str, str, int], list[Example]] = {
    ("GET", "/todos", 200): [
        anonymous("GET", "/todos"),
        send("GET", "/todos?user=me&completed=true&limit=5"),
        send("GET", "/todos", accept_encoding="gzip"),
    ],
    ("GET", "/todos", 304): [again("/todos")],
    ("GET", "/todos", 400): [anonymous("GET", "/todos?limit=0"), send("GET", "/todos", if_applied="x")],
    ("GET", "/todos", 401): [anonymous("GET", "/todos?user=me")],
    ("GET", "/todos", 425): [send("GET", "/todos", if_applied=OPERATION)],
    ("GET", "/todos", 503): [without_servers("GET", "/todos")],
    **of_a_write("POST", "/todos", MILK),
    **of_a_write("POST", "/todos/batch", BATCH),
    ("POST", "/todos/batch", 413): [send("POST", "/todos/batch", TOO_LARGE * 17)],
    ("GET", "/todos/{todo_id}", 200): [anonymous("GET", TODO)],
    ("GET", "/todos/{todo_id}", 304): [again(TODO)],
    ("GET", "/todos/{todo_id}", 400): [send("GET", TODO, if_applied="x")],
    ("GET", "/todos/{todo_id}", 401): [lambda api: api.get(TODO, if_applied=OPERATION)],
    ("GET", "/todos/{todo_id}", 404): [anonymous("GET", NOWHERE), anonymous("GET", "/todos/x")],
    ("GET", "/todos/{todo_id}", 425): [send("GET", TODO, if_applied=OPERATION)],
    ("GET", "/todos/{todo_id}", 503): [without_servers("GET", TODO)],
    **of_a_write("PUT", TODO, MILK),
    ("PUT", "/todos/{todo_id}", 404): [send("PUT", "/todos/x", MILK)],
    **of_a_write("PATCH", TODO, MILK),
    ("PATCH", "/todos/{todo_id}", 404): [send("PATCH", "/todos/x", MILK)],
    ("DELETE", "/todos/{todo_id}", 202): [send("DELETE", TODO)],
    ("DELETE", "/todos/{todo_id}", 400): [send("DELETE", TODO, if_match="x")],
    ("DELETE", "/todos/{todo_id}", 401): [anonymous("DELETE", TODO)],
    ("DELETE", "/todos/{todo_id}", 404): [send("DELETE", "/todos/x")],
    ("DELETE", "/todos/{todo_id}", 503): [without_servers("DELETE", TODO)],
    ("GET", "/operations/{operation_id}", 200): [send("GET", f"/operations/{OPERATION}"), rejected],
    ("GET", "/operations/{operation_id}", 401): [anonymous("GET", f"/operations/{OPERATION}")],
    ("GET", "/operations/{operation_id}", 404): [send("GET", "/operations/x")],
    ("GET", "/operations/{operation_id}", 503): [without_servers("GET", f"/operations/{OPERATION}")],
    ("GET", "/problems", 200): [
        anonymous("GET", "/problems"),
        lambda api: api.get("/problems", accept="text/html"),
    ],
    ("GET", "/problems/{name}", 200): [
        anonymous("GET", "/problems/not-found"),
        lambda api: api.get("/problems/not-found", accept="text/html"),
    ],
    ("GET", "/problems/{name}", 404): [anonymous("GET", "/problems/x")],
    ("GET", "/health", 200): [anonymous("GET", "/health")],
    ("GET", "/ready", 200): [anonymous("GET", "/ready")],
    ("GET", "/ready", 503): [unready],
    ("GET", "/metrics", 200): [anonymous("GET", "/metrics")],
    ("GET", "/status.json", 200): [anonymous("GET", "/status.json")],
    ("GET", "/version", 200): [anonymous("GET", "/version")],
    ("GET", "/", 200): [anonymous("GET", "/"), lambda api: api.get("/", accept_encoding="gzip")],
    ("GET", "/", 304): [again("/")],
    ("GET", "/docs", 200): [anonymous("GET", "/docs"), lambda api: api.get("/docs", accept_encoding="gzip")],
    ("GET", "/docs", 304): [again("/docs")],
    ("GET", "/status", 200): [
        anonymous("GET", "/status"),
        lambda api: api.get("/status", accept_encoding="gzip"),
    ],
    ("GET", "/status", 304): [again("/status")],
    ("GET", "/assets/{name}", 200): [
        anonymous("GET", "/assets/todos.js"),
        anonymous("GET", "/assets/icon.svg"),
    ],
    ("GET", "/assets/{name}", 304): [again("/assets/todos.js")],
    ("GET", "/assets/{name}", 404): [anonymous("GET", "/assets/x")],
    ("GET", "/openapi.json", 200): [anonymous("GET", "/openapi.json")],
    ("GET", "/openapi.json", 304): [again("/openapi.json")],
}


def test_the_document_is_openapi(described: Any) -> None:
    assert list(OpenAPIV31SpecValidator(described).iter_errors()) == []


def test_every_route_is_described_and_nothing_else_is(described: Any) -> None:
    app = Api().app
    assert not inspect_sinks(app)
    assert not inspect_static_routes(app)
    served = {
        # Falcon's converters are not part of the path.
        (method.method.lower(), re.sub(r"{(\w+):\w+}", r"{\1}", route.path))
        for route in inspect_routes(app)
        for method in route.methods
        if not method.internal
    }
    written = {(method, path) for path, methods in described["paths"].items() for method in methods}
    gets = {("head", path) for method, path in served if method == "get"}
    assert written == served - gets, "describe it in todo_api/api_description.py"


def test_there_is_an_example_of_every_described_answer_and_no_other(described: Any) -> None:
    written = {
        (method.upper(), path, int(status))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    assert written == set(EXAMPLES)


CASES = [(*key, example) for key, examples in EXAMPLES.items() for example in examples]


@pytest.mark.parametrize(
    ("method", "path", "status", "example"), CASES, ids=lambda part: None if callable(part) else str(part)
)
def test_an_answer_is_as_described(
    api: Api, described: Any, method: str, path: str, status: int, example: Example
) -> None:
    answer = example(api)
    assert answer.status_code == status, answer.content
    written = described["paths"][path][method.lower()]["responses"][str(status)]

    headers = {name.lower(): header for name, header in written.get("headers", {}).items()}
    assert {name for name, header in headers.items() if header["required"]} <= set(answer.headers)
    assert set(answer.headers) - EVERYWHERE <= set(headers)
    for name, header in headers.items():
        if name in answer.headers and header["schema"]["type"] == "integer":
            assert int(answer.headers[name]) >= 0

    if "content" not in written:
        assert answer.content == b""
        return
    media = answer.headers["content-type"].partition(";")[0]
    schema = written["content"][media]["schema"]
    if media.endswith("json"):
        whole = schema | {"components": described["components"]}
        content = (
            answer.content if "content-encoding" not in answer.headers else gzip.decompress(answer.content)
        )
        errors = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(json.loads(content))
        assert [error.message for error in errors] == []


def test_what_no_operation_has_is_answered_405(described: Any) -> None:
    api = Api()
    for path, methods in described["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} - set(methods):
            answer = api.send(method.upper(), path)
            assert answer.status_code == 405, (method, path)
            allowed = {name.lower() for name in answer.headers["allow"].split(", ")}
            assert allowed - {"head", "options"} == set(methods)


def test_head_and_options_work_on_every_path(described: Any) -> None:
    api = Api()
    for path, methods in described["paths"].items():
        options = api.request("OPTIONS", path)
        assert (options.status_code, options.content) == (204, b"")
        assert {name.lower() for name in options.headers["allow"].split(", ")} - {"head", "options"} == set(
            methods
        )
        if "get" in methods:
            head, get = api.request("HEAD", path), api.request("GET", path)
            assert (head.status_code, head.content) == (get.status_code, b"")


def test_the_limits_are_those_of_the_code(described: Any) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["NewTodo"]["properties"]["title"]["maxLength"] == TITLE_MAX_CHARS
    assert schemas["TodoChanges"]["properties"]["description"]["maxLength"] == DESCRIPTION_MAX_CHARS


def test_every_schema_is_used(described: Any) -> None:
    used = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert used == set(described["components"]["schemas"])


def test_operations_have_names_of_their_own(described: Any) -> None:
    names = [
        operation["operationId"] for methods in described["paths"].values() for operation in methods.values()
    ]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


def test_caches_may_keep_the_document_for_a_while() -> None:
    answer = Api().get("/openapi.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["etag"].startswith('"')


def test_keys_that_cannot_be_fetched_are_503() -> None:
    class NoKeys:
        def verify(self, authorization: str | None) -> str:
            raise KeysUnavailable("away")

    api = Api(verifier=NoKeys())  # type: ignore[arg-type]
    assert api.send("GET", f"/operations/{OPERATION}").status_code == 503
