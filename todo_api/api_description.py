"""What the API offers, for programs: ``/openapi.json``. The limits in it are the constants that the code checks with.

A test compares it with the routes, and with what they answer, in both directions: a route that is not described here,
or a description without its route, does not pass (tests/unit/test_openapi.py).
"""

import hashlib
from functools import cache
from typing import Final, NamedTuple

import falcon
import ujson
from falcon import Request, Response

from todo_api.api_schemas import BATCH_ITEMS_MAX, OPERATION_ID, SCHEMAS, UUID
from todo_api.batch import BODY_MAX_BYTES as BATCH_BODY_MAX_BYTES
from todo_api.core.exposition import CONTENT_TYPE as METRICS_TYPE
from todo_api.if_applied import OPERATIONS_MAX
from todo_api.openapi import Answer, Header, Operation, Parameter, document, reference
from todo_api.page_answer import matches
from todo_api.problems import CONTENT_TYPE as PROBLEM_TYPE
from todo_api.problems import PROBLEM_TYPES
from todo_api.request_body import BODY_MAX_BYTES
from todo_api.todos import LIMIT_MAX
from todo_api.write_headers import IDEMPOTENCY_KEY_MAX_CHARS

_JSON: Final = "application/json"
_HTML: Final = "text/html"
# After an upgrade nobody works with yesterday's document for longer than this.
_CACHE_CONTROL: Final = "public, max-age=300"

_DESCRIPTION: Final = f"""\
Reads are answered at once. Writes are answered 202 once they are safe in the command log, and take effect soon after:
`Operation-Location` tells, and `If-Applied` reads what is not older than a write.

`HEAD` works wherever `GET` does; `OPTIONS` answers 204 with `Allow`; any other method that is not listed here is
answered 405. Every path also works with `/v1` in front. Errors are `application/problem+json` (RFC 9457), with the path
of a page about it as `type`. JSON bodies have at most {BODY_MAX_BYTES} bytes; fields that are not listed are ignored.
"""
_TAGS: Final = {
    "todos": "Lists, single todos, and changes to them.",
    "operations": "What became of a write.",
    "problems": "What errors mean and what to do about them.",
    "service": "For load balancers, monitoring and people.",
}

_SECONDS: Final = {"type": "integer", "minimum": 0}
_STRING: Final = {"type": "string"}
HEADERS: Final = {
    "Age": Header(
        description="Seconds since this answer was certainly current, while our servers are away.",
        schema=_SECONDS,
    ),
    "Cache-Status": Header(description="RFC 9211; with Age, how overdue the answer is.", schema=_STRING),
    "Content-Encoding": Header(description="gzip, when it is accepted and shorter.", schema=_STRING),
    "ETag": Header(description="For If-None-Match.", schema=_STRING),
    "Link": Header(
        description='`<...>; rel="next"`: the following page; absent on the last.',
        schema=_STRING,
    ),
    "Location": Header(description="The path of the new todo.", schema=_STRING),
    "Operation-Location": Header(description="The path that tells what became of the write.", schema=_STRING),
    "Retry-After": Header(description="Seconds to wait before asking again.", schema=_SECONDS),
    "WWW-Authenticate": Header(description="RFC 6750: what was wrong with the token.", schema=_STRING),
    "Accept": Header(description="The media type that bodies must have.", schema=_STRING),
    "Accept-Encoding": Header(description="The encoding that bodies must have.", schema=_STRING),
    "X-Request-Id": Header(
        description="The id of this request in our log; yours, if you sent one.", schema=_STRING
    ),
}

_LIMIT: Final = Parameter(
    name="limit",
    where="query",
    description="How many at most. Without it: all, up to what the operator allows.",
    schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
)
_AFTER: Final = Parameter(
    name="after",
    where="query",
    description="The cursor from a Link header. Needs a limit, and the filters that it came with.",
    schema={"type": "string", "pattern": "^[A-Za-z0-9_-]{48}$"},
)
_COMPLETED: Final = Parameter(
    name="completed",
    where="query",
    description="Those alone that are completed, or not. Such a page may be short, even empty, with a Link to more.",
    schema={"type": "boolean"},
)
_USER: Final = Parameter(
    name="user", where="query", description="Your own alone; needs a token.", schema={"enum": ["me"]}
)
_IF_APPLIED: Final = Parameter(
    name="If-Applied",
    where="header",
    description=(
        f"Operations of your own, at most {OPERATIONS_MAX}, separated by commas: the answer is not older. "
        "Needs a token."
    ),
    schema=_STRING,
)
_IF_NONE_MATCH: Final = Parameter(
    name="If-None-Match", where="header", description="ETags of answers that you have.", schema=_STRING
)
_IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    where="header",
    description=(
        "Any text of yours: the same request with the same key takes effect once, and another request with it not at "
        "all. With or without quotes."
    ),
    schema={"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX_CHARS},
)
_IF_MATCH: Final = Parameter(
    name="If-Match",
    where="header",
    description="ETags of the todo, or *: in another state the change is rejected, as the operation then says.",
    schema=_STRING,
)
_TODO_ID: Final = Parameter(name="todo_id", where="path", description="The todo.", schema=UUID)
_OPERATION: Final = Parameter(
    name="operation_id", where="path", description="The operation, as in the 202.", schema=OPERATION_ID
)
_NAME: Final = Parameter(name="name", where="path", description="Its name.", schema=_STRING)

_HEADERS_OF_PROBLEM: Final = {
    401: ("WWW-Authenticate",),
    425: ("Retry-After",),
    503: ("Retry-After",),
}


def _problems(*statuses: int) -> dict[int, Answer]:
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> Answer:
    titles = [kind.title for kind in PROBLEM_TYPES.values() if kind.status == status]
    return Answer(
        description="; ".join(titles),
        content={PROBLEM_TYPE: reference("Problem")},
        headers=("X-Request-Id", *_HEADERS_OF_PROBLEM.get(status, ())),
        sometimes=("Accept", "Accept-Encoding") if status == 415 else (),
    )


def _json(schema: str, description: str, *headers: str) -> Answer:
    return Answer(description=description, content={_JSON: reference(schema)}, headers=headers)


_UNCHANGED: Final = Answer(
    description="You have it already.",
    content={},
    headers=("ETag",),
    sometimes=("Age", "Cache-Status", "X-Request-Id"),
)


def _accepted(*headers: str) -> Answer:
    told = "It is in the log, and will be applied."
    return _json("Accepted", told, "Operation-Location", "Retry-After", "X-Request-Id", *headers)


def _change(summary: str) -> Operation:
    return Operation(
        summary=summary,
        description="What is left out keeps its value. Only the owner's change takes effect.",
        tag="todos",
        auth="required",
        parameters=(_TODO_ID, _IDEMPOTENCY_KEY, _IF_MATCH),
        body=reference("TodoChanges"),
        answers={202: _accepted(), **_problems(400, 401, 404, 413, 415, 422, 503)},
    )


_LIST: Final = Answer(
    description="Todos, newest first.",
    content={_JSON: {"type": "array", "items": reference("Todo")}},
    headers=("ETag",),
    sometimes=("Link", "Content-Encoding", "Age", "Cache-Status", "X-Request-Id"),
)

OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("GET", "/todos"): Operation(
        summary="List todos",
        tag="todos",
        auth="optional",
        parameters=(_LIMIT, _AFTER, _COMPLETED, _USER, _IF_APPLIED, _IF_NONE_MATCH),
        answers={200: _LIST, 304: _UNCHANGED, **_problems(400, 401, 425, 503)},
    ),
    ("POST", "/todos"): Operation(
        summary="Create a todo",
        tag="todos",
        auth="required",
        parameters=(_IDEMPOTENCY_KEY,),
        body=reference("NewTodo"),
        answers={202: _accepted("Location"), **_problems(400, 401, 413, 415, 422, 503)},
    ),
    ("POST", "/todos/batch"): Operation(
        summary="Create, change and delete several todos",
        description=(
            f"Up to {BATCH_ITEMS_MAX} items in a body of at most {BATCH_BODY_MAX_BYTES} bytes. Each has a result in "
            "its place, with a status of its own: 202 for all means that at least one was accepted. The "
            "Idempotency-Key covers the items in their places."
        ),
        tag="todos",
        auth="required",
        parameters=(_IDEMPOTENCY_KEY,),
        body=reference("Batch"),
        answers={
            202: _json("BatchResults", "What became of each item.", "Retry-After", "X-Request-Id"),
            **_problems(400, 401, 413, 415, 422, 503),
        },
    ),
    ("GET", "/todos/{todo_id}"): Operation(
        summary="Read a todo",
        tag="todos",
        auth="optional",
        parameters=(_TODO_ID, _IF_APPLIED, _IF_NONE_MATCH),
        answers={
            200: _json("Todo", "The todo.", "ETag", "X-Request-Id"),
            304: _UNCHANGED,
            **_problems(400, 401, 404, 425, 503),
        },
    ),
    ("PUT", "/todos/{todo_id}"): _change("Change a todo (the same as PATCH)"),
    ("PATCH", "/todos/{todo_id}"): _change("Change a todo"),
    ("DELETE", "/todos/{todo_id}"): Operation(
        summary="Delete a todo",
        description="Only the owner's takes effect.",
        tag="todos",
        auth="required",
        parameters=(_TODO_ID, _IDEMPOTENCY_KEY, _IF_MATCH),
        answers={202: _accepted(), **_problems(400, 401, 404, 503)},
    ),
    ("GET", "/operations/{operation_id}"): Operation(
        summary="What became of a write",
        description="`pending`, `applied`, or `rejected` with the reason, remembered for two days at least.",
        tag="operations",
        auth="required",
        parameters=(_OPERATION,),
        answers={
            200: Answer(
                description="The state of the write; with Retry-After while it is pending.",
                content={_JSON: reference("OperationStatus")},
                headers=("X-Request-Id",),
                sometimes=("Retry-After",),
            ),
            **_problems(401, 404, 503),
        },
    ),
    ("GET", "/problems"): Operation(
        summary="Every type of problem",
        tag="problems",
        answers={
            200: Answer(
                description="JSON, or HTML for those who prefer it.",
                content={_JSON: {"type": "array", "items": reference("ProblemType")}, _HTML: _STRING},
            )
        },
    ),
    ("GET", "/problems/{name}"): Operation(
        summary="What a problem means and what to do about it",
        tag="problems",
        parameters=(_NAME,),
        answers={
            200: Answer(
                description="JSON, or HTML for those who prefer it.",
                content={_JSON: reference("ProblemType"), _HTML: _STRING},
            ),
            **_problems(404),
        },
    ),
    ("GET", "/health"): Operation(
        summary="Whether this process answers",
        tag="service",
        answers={
            200: Answer(description="It does.", content={"text/plain": _STRING}, headers=("X-Request-Id",))
        },
    ),
    ("GET", "/ready"): Operation(
        summary="Whether this process should get requests",
        tag="service",
        answers={200: _json("Readiness", "It should.", "X-Request-Id"), **_problems(503)},
    ),
    ("GET", "/metrics"): Operation(
        summary="Figures of the instance, for Prometheus",
        tag="service",
        answers={
            200: Answer(
                description="The text format.",
                content={METRICS_TYPE.partition(";")[0]: _STRING},
                headers=("X-Request-Id",),
            )
        },
    ),
    ("GET", "/status.json"): Operation(
        summary="The instance in a few figures",
        tag="service",
        answers={
            200: _json("Status", "Totals since the start, and how far the workers are.", "X-Request-Id")
        },
    ),
    ("GET", "/version"): Operation(
        summary="Which release this is",
        tag="service",
        answers={200: _json("Version", "The release, and the Python it runs on.", "X-Request-Id")},
    ),
    ("GET", "/"): Operation(
        summary="The todo page, for people",
        tag="service",
        parameters=(_IF_NONE_MATCH,),
        answers={
            200: Answer(
                description="The page.",
                content={_HTML: _STRING},
                headers=("ETag", "X-Request-Id"),
                sometimes=("Content-Encoding",),
            ),
            304: _UNCHANGED,
        },
    ),
    ("GET", "/docs"): Operation(
        summary="This description, to read and to try",
        tag="service",
        parameters=(_IF_NONE_MATCH,),
        answers={
            200: Answer(
                description="The page.",
                content={_HTML: _STRING},
                headers=("ETag", "X-Request-Id"),
                sometimes=("Content-Encoding",),
            ),
            304: _UNCHANGED,
        },
    ),
    ("GET", "/status"): Operation(
        summary="The status page, for people",
        tag="service",
        parameters=(_IF_NONE_MATCH,),
        answers={
            200: Answer(
                description="The page.",
                content={_HTML: _STRING},
                headers=("ETag", "X-Request-Id"),
                sometimes=("Content-Encoding",),
            ),
            304: _UNCHANGED,
        },
    ),
    ("GET", "/assets/{name}"): Operation(
        summary="A file of the pages",
        tag="service",
        parameters=(_NAME, _IF_NONE_MATCH),
        answers={
            200: Answer(
                description="The file.",
                content=dict.fromkeys((_HTML, "text/css", "text/javascript", "image/svg+xml"), _STRING),
                headers=("ETag", "X-Request-Id"),
                sometimes=("Content-Encoding",),
            ),
            304: _UNCHANGED,
            **_problems(404),
        },
    ),
    ("GET", "/openapi.json"): Operation(
        summary="This document",
        tag="service",
        parameters=(_IF_NONE_MATCH,),
        answers={
            200: Answer(
                description="OpenAPI 3.1.",
                content={_JSON: {"type": "object", "required": ["openapi", "info", "paths"]}},
                headers=("ETag",),
            ),
            304: _UNCHANGED,
        },
    ),
}


class _Rendered(NamedTuple):
    body: bytes
    etag: str


@cache
def _rendered(without: frozenset[str]) -> _Rendered:
    described = document(
        {call: operation for call, operation in OPERATIONS.items() if call[1] not in without},
        title="Todo API",
        description=_DESCRIPTION,
        tags=_TAGS,
        schemas=SCHEMAS,
        headers=HEADERS,
        servers=[("/", "The newest version"), ("/v1", "Version 1, with links that stay in it")],
    )
    body = ujson.dumps(described, escape_forward_slashes=False).encode()
    return _Rendered(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class ApiDescription:
    """``/openapi.json``, ``without`` the paths that are served elsewhere."""

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self._without = without

    def on_get(self, req: Request, resp: Response) -> None:
        body, etag = _rendered(self._without)
        resp.set_header("ETag", etag)
        resp.set_header("Cache-Control", _CACHE_CONTROL)
        if_none_match = req.get_header("If-None-Match")
        if if_none_match is not None and matches(if_none_match, etag):
            resp.status = falcon.HTTP_304
        else:
            resp.data = body

    on_head = on_get
