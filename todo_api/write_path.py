"""The shortest way for a new todo: in front of Falcon, for ``POST /todos`` with nothing unusual about it.

PERF: in a loop 45 us instead of 101, most of which are Falcon's request, response and middleware. Whatever is not
plainly right, and all that has a special header, goes on to Falcon, which answers it; so does an error of the command
log. The steps are those of ``TodoCollection.on_post``, made of the same functions; tests compare the answers.
"""

import time
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from todo_api.auth import Verifier
from todo_api.core.errors import TodoError
from todo_api.core.trace_context import headers_of
from todo_api.intake import CREATED, FAILED, RETRY_AFTER_S, CommandIntake, accepted_body
from todo_api.problems import Problem
from todo_api.request_body import BODY_MAX_BYTES
from todo_api.request_ids import id_of
from todo_api.strict_json import MalformedJson, parse
from todo_api.telemetry import BEGAN_AT, Telemetry
from todo_api.todo_fields import new_todo

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# What Falcon's way looks at and this one does not.
_UNUSUAL: Final = (
    "HTTP_IDEMPOTENCY_KEY",
    "HTTP_IF_MATCH",
    "HTTP_CONTENT_ENCODING",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_TRACEPARENT",
)
_RETRY_AFTER: Final = ("retry-after", str(RETRY_AFTER_S))
_CONTENT_TYPE: Final = ("content-type", "application/json")


class WritePath:
    """A WSGI layer. Not for a process that traces or tells how long parts took: it does neither."""

    def __init__(
        self,
        app: "WSGIApplication",
        *,
        verifier: Verifier,
        intake: CommandIntake,
        telemetry: Telemetry,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._intake = intake
        self._telemetry = telemetry

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/todos" and environ["REQUEST_METHOD"] == "POST":
            answer = self._accepted(environ)
            if answer is not None:
                headers, body = answer
                start_response("202 Accepted", headers)
                return [body]
        return self._app(environ, start_response)

    def _accepted(self, environ: dict[str, Any]) -> tuple[list[tuple[str, str]], bytes] | None:
        """Return the headers and the body of a 202, or None when Falcon is to answer."""
        began_at = time.perf_counter()
        size = _size(environ)
        # APPSEC: known to be good from an earlier request, or not looked at here.
        user_id = self._verifier.remembered(environ.get("HTTP_AUTHORIZATION"))
        if size is None or user_id is None:
            return None
        body = environ["wsgi.input"].read(size)
        try:
            fields = new_todo(parse(body))
        except (Problem, MalformedJson):
            environ["wsgi.input"] = BytesIO(body)
            return None
        if len(body) != size:
            environ["wsgi.input"] = BytesIO(body)
            return None
        request_id = id_of(environ.get("HTTP_X_REQUEST_ID"))
        command = self._intake.new_todo(user_id, fields)
        todo_id = str(command.todo_id)
        try:
            operation = self._intake.append(command, headers_of(request_id, ()))
        except TodoError as ex:
            environ |= {FAILED: ex, BEGAN_AT: began_at, "wsgi.input": BytesIO(body)}
            environ["HTTP_X_REQUEST_ID"] = request_id
            return None
        answer = accepted_body(todo_id, CREATED, operation)
        self._telemetry.answered("/todos", "POST", "2xx", time.perf_counter() - began_at)
        headers = [
            ("operation-location", f"/operations/{operation}"),
            _RETRY_AFTER,
            ("location", f"/todos/{todo_id}"),
            ("x-request-id", request_id),
            ("content-length", str(len(answer))),
            _CONTENT_TYPE,
        ]
        return headers, answer


def _size(environ: dict[str, Any]) -> int | None:
    """Return how many bytes the body has, or None when anything about the request is unusual."""
    if environ.get("CONTENT_TYPE") != "application/json":
        return None
    for name in _UNUSUAL:
        if name in environ:
            return None
    length = environ.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdigit()) or len(length) > 5:
        return None
    size = int(length)
    return size if 0 < size <= BODY_MAX_BYTES else None
