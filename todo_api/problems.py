"""Every error answer, in one table: ``application/problem+json`` (RFC 9457).

``type`` is a URN that never changes (``urn:todo-api:problem:<name>``): a client compares it as text. The members
on top of the standard's are ``request_id`` and, where they apply, ``errors``: the fields at fault, each
with a JSON Pointer (RFC 6901) into the request body. What went wrong inside is in our log under the request id,
never in the answer.
"""

import http
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import falcon
import ujson
from falcon import Request, Response

from todo_api.auth import Unauthenticated
from todo_api.core.errors import RecordTooLarge, TodoError, Unavailable
from todo_api.request_ids import request_id

CONTENT_TYPE: Final = "application/problem+json"

_logger = logging.getLogger(__name__)


class ProblemType(NamedTuple):
    status: int
    name: str
    title: str

    @property
    def uri(self) -> str:
        return f"urn:todo-api:problem:{self.name}"


BAD_REQUEST: Final = ProblemType(400, "bad-request", "The request cannot be understood")
INVALID_PARAMETER: Final = ProblemType(400, "invalid-parameter", "A query parameter is not valid")
MALFORMED_BODY: Final = ProblemType(400, "malformed-body", "The body is not valid JSON")
UNAUTHENTICATED: Final = ProblemType(401, "unauthenticated", "A valid token is required")
NOT_FOUND: Final = ProblemType(404, "not-found", "There is nothing here")
METHOD_NOT_ALLOWED: Final = ProblemType(405, "method-not-allowed", "This method does not work here")
TOO_LARGE: Final = ProblemType(413, "too-large", "The request is too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(415, "unsupported-media-type", "The body must be plain JSON")
INVALID_FIELDS: Final = ProblemType(422, "invalid-fields", "The body has fields that are not valid")
INTERNAL_ERROR: Final = ProblemType(500, "internal-error", "Something went wrong here")
UNAVAILABLE: Final = ProblemType(503, "unavailable", "A server behind this one is away")
# What rejected operations show: nobody is answered with these.
NO_SUCH_TODO: Final = ProblemType(404, "no-such-todo", "There was no such todo")
NOT_OWNER: Final = ProblemType(403, "not-owner", "The todo is another user's")
COMMAND_ID_REUSED: Final = ProblemType(
    422, "command-id-reused", "Another command with this id took effect before"
)
NOT_READY: Final = ProblemType(503, "not-ready", "This process should get no requests now")

# What an error of Falcon's own becomes.
_BY_STATUS: Final = {
    kind.status: kind
    for kind in (
        BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INTERNAL_ERROR, UNAVAILABLE,
    )
}  # fmt: skip


class FieldError(NamedTuple):
    """``pointer`` is a JSON Pointer into the request body; '' is the whole of it."""

    pointer: str
    detail: str


class Problem(TodoError):
    """An error answer. Raise it where the mistake is found; every word of it reaches the client."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.errors = errors
        self.members = members or {}

    def body(self, request_id: str) -> bytes:
        """Return the JSON of the answer."""
        members: dict[str, Any] = {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }
        if self.errors:
            members["errors"] = [error._asdict() for error in self.errors]
        return ujson.dumps(members, escape_forward_slashes=False).encode()


def add_problem_handlers(app: falcon.App[Any, Any]) -> None:
    """Make ``app`` answer every error as a problem."""
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(Unavailable, _on_unavailable)
    app.add_error_handler(RecordTooLarge, _on_record_too_large)
    app.add_error_handler(Unauthenticated, _on_unauthenticated)
    app.add_error_handler(Problem, _on_problem)


def _answer(req: Request, resp: Response, problem: Problem) -> None:
    resp.status = problem.kind.status
    resp.content_type = CONTENT_TYPE
    resp.text = resp.stream = None
    resp.data = problem.body(request_id(req))
    # A 404 may be cached by default (RFC 9111), and the todo may be there a moment later.
    resp.set_header("Cache-Control", "no-store")
    resp.set_headers(dict(problem.headers))


def _on_problem(req: Request, resp: Response, ex: Problem, _params: dict[str, Any]) -> None:
    _answer(req, resp, ex)


def _on_unauthenticated(req: Request, resp: Response, ex: Unauthenticated, _params: dict[str, Any]) -> None:
    _answer(req, resp, Problem(UNAUTHENTICATED, str(ex), headers={"WWW-Authenticate": ex.challenge}))


def _on_record_too_large(req: Request, resp: Response, _ex: RecordTooLarge, _params: dict[str, Any]) -> None:
    _answer(req, resp, Problem(TOO_LARGE, "the todo is larger than one record may be"))


def _on_unavailable(req: Request, resp: Response, ex: Unavailable, _params: dict[str, Any]) -> None:
    fields = {"event": "request.unavailable", "request_id": request_id(req), "error": type(ex).__name__}
    _logger.warning("answered 503: %s", ex, extra=fields)
    detail = "the request is good; please try again after the time in Retry-After"
    _answer(req, resp, Problem(UNAVAILABLE, detail, headers={"Retry-After": str(ex.retry_after_s)}))


def _on_http_error(req: Request, resp: Response, ex: falcon.HTTPError, _params: dict[str, Any]) -> None:
    phrase = http.HTTPStatus(ex.status_code).phrase
    kind = _BY_STATUS.get(ex.status_code) or ProblemType(
        ex.status_code, phrase.lower().replace(" ", "-"), phrase
    )
    _answer(req, resp, Problem(kind, ex.description or kind.title, headers=dict(ex.headers or {})))


def _on_unexpected(req: Request, resp: Response, ex: Exception, _params: dict[str, Any]) -> None:
    # APPSEC: the answer tells nothing about the inside; the traceback is in the log under the same id.
    fields = {
        "event": "request.failed",
        "request_id": request_id(req),
        "method": req.method,
        "path": req.path,
    }
    _logger.error("answered 500", exc_info=ex, extra=fields)
    _answer(req, resp, Problem(INTERNAL_ERROR, "the request id helps us to find out what"))
