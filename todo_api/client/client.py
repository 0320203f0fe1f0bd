"""The todos, for a Python program: typed, patient, and safe to repeat."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self
from urllib.parse import quote

from todo_api.client.errors import Rejected, StillPending
from todo_api.client.transport import Answer, Backoff, Transport

_DEADLINE_S: Final = 30.0
_TIMEOUT_S: Final = 10.0
# Commands are mostly applied within this time; after this first look Retry-After is honoured.
_FIRST_LOOK_S: Final = 0.1
PAGE_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """A todo as the API shows it."""

    id: str
    title: str
    description: str
    completed: bool
    user_id: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Self:
        return cls(
            id=members["id"],
            title=members["title"],
            description=members["description"],
            completed=members["completed"],
            user_id=members["user_id"],
            created_at=datetime.fromisoformat(members["created_at"]),
            updated_at=datetime.fromisoformat(members["updated_at"]),
        )


@dataclass(frozen=True, slots=True)
class Write:
    """A write that the API accepted: it will be applied, or rejected by rule. ``operation`` tells which."""

    todo_id: str
    operation: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What became of a write. ``problem`` says why it was rejected."""

    status: Literal["pending", "applied", "rejected"]
    problem: Rejected | None = None


class TodoClient:
    """Speaks to one API as one user. Threads may share it. Use it as a context manager, or ``close`` it.

    ``token`` may be a function, called for each request, for tokens that are renewed. A request is sent again while the
    API is away or busy, for ``deadline_s`` in all, after what ``Retry-After`` says; each write carries an idempotency
    key, so that it takes effect once however often it is sent. ``timeout_s`` bounds one attempt.

    Every method raises Unreachable or Unavailable when the API was away until the deadline, and the kinds of ApiProblem
    that fit.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str] | None = None,
        *,
        deadline_s: float = _DEADLINE_S,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._transport = Transport(base_url, token, timeout_s=timeout_s)
        self._deadline_s = deadline_s

    def close(self) -> None:
        """Close the connections. The client may still be used; it opens new ones."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, title: str, description: str = "", *, idempotency_key: str | None = None) -> Write:
        """Create a todo. With a key of your own the call may be repeated later, by another process too."""
        contents = {"title": title, "description": description}
        return self._write("POST", "/todos", contents, idempotency_key)

    def update(
        self,
        todo_id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        completed: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Write:
        """Change what is given of a todo; what is None keeps its value."""
        fields = {"title": title, "description": description, "completed": completed}
        changes = {name: value for name, value in fields.items() if value is not None}
        return self._write("PATCH", _path("todos", todo_id), changes, idempotency_key)

    def delete(self, todo_id: str, *, idempotency_key: str | None = None) -> Write:
        """Delete a todo."""
        return self._write("DELETE", _path("todos", todo_id), None, idempotency_key)

    def operation(self, write: Write) -> Operation:
        """Return what has become of a write so far."""
        operation, _ = self._look(write, self._deadline_s)
        return operation

    def wait(self, write: Write, *, deadline_s: float | None = None) -> None:
        """Return when the write is applied. Raises Rejected with the reason, and StillPending at the deadline.

        The first look is after 0.1 s, the next after what ``Retry-After`` says; a shorter deadline never looks.
        """
        backoff = Backoff(self._deadline_s if deadline_s is None else deadline_s)
        delay_s: float | None = _FIRST_LOOK_S
        while backoff.wait(delay_s):
            operation, delay_s = self._look(write, backoff.left_s)
            if operation.problem is not None:
                raise operation.problem
            if operation.status == "applied":
                return
        raise StillPending(f"operation {write.operation} is accepted, and not applied yet")

    def get(self, todo_id: str, *, after: Iterable[Write] = ()) -> Todo:
        """Return a todo, as it was ``after`` these writes at the earliest. Raises NotFound."""
        return Todo.of(self._get(_path("todos", todo_id), after).contents)

    def page(self, limit: int = 100, *, after: Iterable[Write] = ()) -> list[Todo]:
        """Return the ``limit`` newest todos, as they were ``after`` these writes at the earliest."""
        return [Todo.of(members) for members in self._get(f"/todos?limit={limit}", after).contents]

    def todos(self, page_size: int = PAGE_MAX) -> Iterator[Todo]:
        """Yield all todos, the newest first, fetched a page at a time while you go.

        What is created meanwhile is not among them, what is deleted or changed meanwhile may be.
        """
        path: str | None = f"/todos?limit={page_size}"
        while path is not None:
            answer = self._get(path)
            yield from map(Todo.of, answer.contents)
            path = answer.next_path

    def _write(self, method: str, path: str, contents: object, idempotency_key: str | None) -> Write:
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        accepted = self._transport.request(
            method, path, contents=contents, headers=headers, deadline_s=self._deadline_s
        ).contents
        return Write(accepted["id"], accepted["operation"])

    def _get(self, path: str, after: Iterable[Write] = ()) -> Answer:
        operations = ", ".join(write.operation for write in after)
        headers = {"If-Applied": operations} if operations else {}
        return self._transport.request("GET", path, headers=headers, deadline_s=self._deadline_s)

    def _look(self, write: Write, deadline_s: float) -> tuple[Operation, float | None]:
        answer = self._transport.request("GET", _path("operations", write.operation), deadline_s=deadline_s)
        reason = answer.contents.get("problem")
        rejected = None if reason is None else Rejected(reason["status"], reason)
        return Operation(answer.contents["status"], rejected), answer.retry_after_s


def _path(*segments: str) -> str:
    # APPSEC: an id from elsewhere stays one segment.
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)
