"""What can go wrong for a client, cut by what its caller does next."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class TodoClientError(Exception):
    """The root of everything the client raises by itself."""


class Unreachable(TodoClientError):
    """No answer came before the deadline. A write may have been accepted all the same: send it again with its key."""


class StillPending(TodoClientError):
    """The write is accepted and will be applied, but was not when the deadline passed. Wait again."""


class FieldProblem(NamedTuple):
    """A field that the API does not take: ``pointer`` is a JSON Pointer into the body that was sent."""

    pointer: str
    detail: str


class ApiProblem(TodoClientError):
    """The API answered with a problem (RFC 9457). ``type`` names the kind for programs, the rest is for people."""

    def __init__(self, status: int, members: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.type = str(members.get("type", "about:blank"))
        self.title = str(members.get("title", f"The API answered {status}"))
        self.detail = str(members.get("detail", ""))
        self.request_id: str | None = members.get("request_id")
        self.errors = tuple(
            FieldProblem(str(error["pointer"]), str(error["detail"])) for error in members.get("errors", ())
        )
        self.retry_after_s = retry_after_s
        super().__init__(status, members)

    def __str__(self) -> str:
        fields = "; ".join(f"{error.pointer} {error.detail}" for error in self.errors)
        return f"{self.status} {self.title}" + "".join(f": {text}" for text in (self.detail, fields) if text)


class InvalidRequest(ApiProblem):
    """400, 405, 413, 415 or 422: the same request will never succeed."""


class NotAuthorized(ApiProblem):
    """401 or 403: there is no token, it is not accepted (any more), or the todo is another user's."""


class NotFound(ApiProblem):
    """404: there is no such todo (yet), or no such operation of this user."""


class Unavailable(ApiProblem):
    """425, 429 or 5xx, still so at the deadline: the request is good, and may succeed later."""


class Rejected(ApiProblem):
    """The write was accepted and then changed nothing, by rule; ``status`` is what a synchronous API had answered."""


def problem(status: int, members: Mapping[str, Any], retry_after_s: float | None) -> ApiProblem:
    """Return the error for an answer with this status."""
    if status in (401, 403):
        kind: type[ApiProblem] = NotAuthorized
    elif status == 404:
        kind = NotFound
    elif status in (425, 429) or status >= 500:
        kind = Unavailable
    else:
        kind = InvalidRequest
    return kind(status, members, retry_after_s)
