"""Every error answer, in one table: ``application/problem+json`` (RFC 9457).

``type`` is the path of a page about it (``/problems/<name>``, todo_api/problem_pages.py) and never changes: a client
compares it as text. A status without a page of its own is ``about:blank``, as the standard says. The members on top
of the standard's are ``request_id`` and, where they apply, ``errors``: the fields at fault, each
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
from todo_api.core.errors import NotYetApplied, RecordTooLarge, TodoError, Unavailable
from todo_api.request_ids import request_id

CONTENT_TYPE: Final = "application/problem+json"

_logger = logging.getLogger(__name__)


class ProblemType(NamedTuple):
    """``meaning`` and ``fix`` are for the person who reads the page about it. Without a name there is no page."""

    status: int
    name: str
    title: str
    meaning: str
    fix: str

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}" if self.name else "about:blank"


BAD_REQUEST: Final = ProblemType(
    400,
    "bad-request",
    "The request cannot be understood",
    "The request, or one of its headers, is not HTTP as the standard writes it.",
    "Read the detail: it names the part. A client library that builds requests for you avoids most of these.",
)
INVALID_HEADER: Final = ProblemType(
    400,
    "invalid-header",
    "A request header is not valid",
    "The member header names a request header whose value cannot be used.",
    "Correct the value as the detail says, or leave the header out.",
)
INVALID_PARAMETER: Final = ProblemType(
    400,
    "invalid-parameter",
    "A query parameter is not valid",
    "The member parameter names a query parameter whose value cannot be used.",
    "Correct the value as the detail says. Take cursors from Link headers, with the filters they came with.",
)
MALFORMED_BODY: Final = ProblemType(
    400,
    "malformed-body",
    "The body is not valid JSON",
    "The body is empty, cut off, or not JSON by RFC 8259. NaN, lone surrogates and repeated names are refused.",
    "Send UTF-8 JSON made by a JSON library, with its whole length in Content-Length.",
)
UNAUTHENTICATED: Final = ProblemType(
    401,
    "unauthenticated",
    "A valid token is required",
    "There was no bearer token, or it has expired, or it was not signed for this API.",
    "Send Authorization: Bearer and a token with exp and sub. WWW-Authenticate says what was wrong with the last one.",
)
NOT_FOUND: Final = ProblemType(
    404,
    "not-found",
    "There is nothing here",
    "No resource has this path. A todo may have been deleted, or its creation may not be applied yet.",
    "After a write, ask Operation-Location until it is applied, or read with If-Applied.",
)
METHOD_NOT_ALLOWED: Final = ProblemType(
    405,
    "method-not-allowed",
    "This method does not work here",
    "The resource exists and has no such method.",
    "Use one of the methods in Allow.",
)
TOO_LARGE: Final = ProblemType(
    413,
    "too-large",
    "The request is too large",
    "The body has more bytes than this resource takes.",
    "Send less at once; the detail says how much is taken.",
)
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    415,
    "unsupported-media-type",
    "The body must be plain JSON",
    "The headers say that the body is something else than uncompressed JSON in UTF-8.",
    "Send Content-Type: application/json and no Content-Encoding.",
)
INVALID_FIELDS: Final = ProblemType(
    422,
    "invalid-fields",
    "The body has fields that are not valid",
    "The body is JSON, and errors lists every field at fault with a JSON Pointer (RFC 6901) to it.",
    "Correct the fields that errors names.",
)
NOT_YET_APPLIED: Final = ProblemType(
    425,
    "not-yet-applied",
    "A write named in If-Applied is not applied yet",
    "The write is safe in the log; the worker has not come to it. An answer now would not show it.",
    "Ask again after Retry-After, or leave If-Applied out to get what there is now.",
)
TOO_MANY_REQUESTS: Final = ProblemType(
    429,
    "too-many-requests",
    "Too many requests in a short time",
    "The proxy in front of the API limits how often one client may ask.",
    "Wait as long as Retry-After says, and poll lists with If-None-Match.",
)
INTERNAL_ERROR: Final = ProblemType(
    500,
    "internal-error",
    "Something went wrong here",
    "A mistake of ours. It is in our log under the request_id.",
    "Report the request_id. A write may or may not have taken effect.",
)
UNAVAILABLE: Final = ProblemType(
    503,
    "unavailable",
    "A server behind this one is away",
    "The request is good, but a server that it needs does not answer.",
    "Try again after Retry-After. A write may or may not have taken effect.",
)
OVERLOADED: Final = ProblemType(
    503,
    "overloaded",
    "More is asked here than can be answered",
    "The request waited too long to be begun and was refused. Nothing was done.",
    "Try again after Retry-After, and then less and less often.",
)
NOT_READY: Final = ProblemType(
    503,
    "not-ready",
    "This process should get no requests now",
    "Only /ready says so, to load balancers: a server it requires is away, or the process is stopping.",
    "Send requests to another instance until /ready answers 200.",
)
# What rejected operations show: nobody is answered with these.
NO_SUCH_TODO: Final = ProblemType(
    404,
    "no-such-todo",
    "There was no such todo",
    "When the change was applied, no todo had this id.",
    "Check the id. The todo may have been deleted just before.",
)
NOT_OWNER: Final = ProblemType(
    403,
    "not-owner",
    "The todo is another user's",
    "Only the user who created a todo can change or delete it.",
    "Use a token of its owner.",
)
COMMAND_ID_REUSED: Final = ProblemType(
    422,
    "command-id-reused",
    "Another command with this id took effect before",
    "The log holds two different commands under one id. The first took effect, this one did not.",
    "Send the request again.",
)
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    422,
    "idempotency-key-reused",
    "The idempotency key was used before, for another request or too long ago",
    "One Idempotency-Key stands for one request: its method, todo, fields and If-Match. The first one counts. A create "
    "is refused, too, when its key made a todo so long ago that the request is forgotten.",
    "Send a new request with a new key. Repeat a key only to send the same request again, within a day. When a create "
    "came too late, look at Location: the todo of the first one has that path, unless it was deleted.",
)
PRECONDITION_FAILED: Final = ProblemType(
    412,
    "precondition-failed",
    "The todo was not in a state that If-Match names",
    "The todo was changed after the state was read whose ETag the request names.",
    "Read the todo again, and send the change with the ETag that it has now.",
)

PROBLEM_TYPES: Final = {
    kind.name: kind for kind in tuple(globals().values()) if isinstance(kind, ProblemType)
}

# What an error of Falcon's own becomes.
_BY_STATUS: Final = {
    kind.status: kind
    for kind in (
        BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS,
        INTERNAL_ERROR, UNAVAILABLE,
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
        return ujson.dumps(self.as_json(request_id=request_id), escape_forward_slashes=False).encode()

    def as_json(self, **more: str) -> dict[str, Any]:
        """Return its members, ``more`` among them: as an answer's, or as those of a part of one."""
        members: dict[str, Any] = {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            **more,
            **self.members,
        }
        if self.errors:
            members["errors"] = [error._asdict() for error in self.errors]
        return members


def record_too_large() -> Problem:
    return Problem(TOO_LARGE, "the todo is larger than one record may be")


def unavailable(ex: Unavailable) -> Problem:
    detail = "the request is good; please try again after the time in Retry-After"
    return Problem(UNAVAILABLE, detail, headers={"Retry-After": str(ex.retry_after_s)})


def add_problem_handlers(app: falcon.App[Any, Any]) -> None:
    """Make ``app`` answer every error as a problem."""
    app.add_error_handler(Exception, _on_unexpected)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(Unavailable, _on_unavailable)
    app.add_error_handler(RecordTooLarge, _on_record_too_large)
    app.add_error_handler(NotYetApplied, _on_not_yet_applied)
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


def _on_not_yet_applied(req: Request, resp: Response, _ex: NotYetApplied, _params: dict[str, Any]) -> None:
    detail = "the write is in the log and not applied yet; please ask again after the time in Retry-After"
    headers = {"Retry-After": str(NotYetApplied.retry_after_s)}
    _answer(req, resp, Problem(NOT_YET_APPLIED, detail, headers=headers))


def _on_record_too_large(req: Request, resp: Response, _ex: RecordTooLarge, _params: dict[str, Any]) -> None:
    _answer(req, resp, record_too_large())


def _on_unavailable(req: Request, resp: Response, ex: Unavailable, _params: dict[str, Any]) -> None:
    fields = {"event": "request.unavailable", "request_id": request_id(req), "error": type(ex).__name__}
    _logger.warning("answered 503: %s", ex, extra=fields)
    _answer(req, resp, unavailable(ex))


def _on_http_error(req: Request, resp: Response, ex: falcon.HTTPError, _params: dict[str, Any]) -> None:
    phrase = http.HTTPStatus(ex.status_code).phrase
    kind = _BY_STATUS.get(ex.status_code) or ProblemType(ex.status_code, "", phrase, "", "")
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
