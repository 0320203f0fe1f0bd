"""Many writes in one request: checked one by one, appended together, waited for once."""

from typing import Any, Final
from uuid import UUID

import falcon
import ujson
from falcon import Request, Response

from todo_api.api_schemas import BATCH_ITEMS_MAX
from todo_api.auth import Verifier
from todo_api.core.commands import Command, Kind
from todo_api.core.errors import RecordTooLarge, TodoError, Unavailable
from todo_api.intake import RETRY_AFTER_S, CommandIntake, new_command
from todo_api.problems import INVALID_FIELDS, FieldError, Problem, record_too_large, unavailable
from todo_api.request_body import read_json
from todo_api.todo_fields import NO_FIELDS, changed_fields, new_todo, parse_todo_id
from todo_api.write_headers import IF_MATCH_FORM, idempotency_key, refuse_if_match, versions_in

BODY_MAX_BYTES: Final = 1024 * 1024

_ACTIONS: Final = {kind.value: kind for kind in Kind}


class TodoBatch:
    """``/todos/batch``

    202 when at least one item is in the log; each item has a result in its place, of its own status. When none is:
    503 if that may be the log's fault, else 422 with all mistakes.
    """

    def __init__(self, *, verifier: Verifier, intake: CommandIntake) -> None:
        self._verifier = verifier
        self._intake = intake

    def on_post(self, req: Request, resp: Response) -> None:
        user_id = self._verifier.verify(req.auth)
        key = idempotency_key(req)
        refuse_if_match(req)
        commands: dict[int, Command] = {}
        failures: dict[int, TodoError] = {}
        items = _items(read_json(req, BODY_MAX_BYTES))
        for index, item in enumerate(items):
            # A line break is in no key of a client: no single request has this one.
            own_key = None if key is None else f"{key}\n{index}"
            try:
                commands[index] = _command(item, user_id, own_key)
            except Problem as ex:
                failures[index] = ex
        operations: dict[int, str] = {}
        outcomes = self._intake.accept_many(list(commands.values())) if commands else []
        for index, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, TodoError):
                failures[index] = outcome
            else:
                operations[index] = outcome
        if not operations:
            raise _total_failure(failures)
        resp.status = falcon.HTTP_202
        resp.set_header("Retry-After", str(RETRY_AFTER_S))
        results = [
            _accepted(commands[index], operations[index]) if index in operations else _failed(failures[index])
            for index in range(len(items))
        ]
        resp.data = ujson.dumps({"results": results}, escape_forward_slashes=False).encode()


def _items(body: object) -> list[Any]:
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise _invalid([FieldError("/items", "must be a list of items")])
    if not 1 <= len(items) <= BATCH_ITEMS_MAX:
        raise _invalid([FieldError("/items", f"must have 1 to {BATCH_ITEMS_MAX} items, has {len(items)}")])
    return items


def _command(item: object, user_id: str, key: str | None) -> Command:
    """Return what one item asks for. Raises Problem, with pointers into the item."""
    if not isinstance(item, dict):
        raise _invalid([FieldError("", "must be an object")])
    action = item.get("action")
    kind = _ACTIONS.get(action) if isinstance(action, str) else None
    if kind is None:
        raise _invalid([FieldError("/action", f"must be one of {', '.join(_ACTIONS)}")])
    if kind is Kind.CREATE:
        unknown = [
            FieldError(f"/{name}", "is not for a todo that is new")
            for name in ("id", "if_match")
            if name in item
        ]
        if unknown:
            raise _invalid(unknown)
        return new_command(kind, user_id, new_todo(item), idempotency_key=key)
    todo_id, versions = _target(item)
    fields = changed_fields(item) if kind is Kind.UPDATE else NO_FIELDS
    return new_command(kind, user_id, fields, todo_id=todo_id, idempotency_key=key, if_match=versions)


def _target(item: dict[str, Any]) -> tuple[UUID, tuple[str, ...] | None]:
    text = item.get("id")
    todo_id = parse_todo_id(text) if isinstance(text, str) else None
    if todo_id is None:
        raise _invalid([FieldError("/id", "must be the id of a todo")])
    if "if_match" not in item:
        return todo_id, None
    # A null too is refused: it was meant to be a condition.
    condition = item["if_match"]
    versions = versions_in(condition) if isinstance(condition, str) else None
    if versions is None:
        raise _invalid([FieldError("/if_match", IF_MATCH_FORM)])
    return todo_id, versions


def _accepted(command: Command, operation: str) -> dict[str, Any]:
    return {"status": 202, "id": str(command.todo_id), "operation": operation}


def _failed(failure: TodoError) -> dict[str, Any]:
    problem = _problem(failure)
    return {"status": problem.kind.status, "problem": problem.as_json()}


def _problem(failure: TodoError) -> Problem:
    if isinstance(failure, Problem):
        return failure
    if isinstance(failure, Unavailable):
        return unavailable(failure)
    assert isinstance(failure, RecordTooLarge)
    return record_too_large()


def _total_failure(failures: dict[int, TodoError]) -> TodoError:
    """Return the one error that stands for all: the log's, or every mistake with pointers into the body."""
    for failure in failures.values():
        if not isinstance(failure, Problem):
            return failure
    return _invalid(
        [
            FieldError(f"/items/{index}{error.pointer}", error.detail)
            for index, failure in sorted(failures.items())
            for error in _problem(failure).errors
        ]
    )


def _invalid(errors: list[FieldError]) -> Problem:
    return Problem(INVALID_FIELDS, "errors names each field and what is wrong with it", errors=errors)
