"""The fields of a todo in a request body: read, checked, and every mistake reported at once."""

import re
from typing import Any, Final, NamedTuple
from uuid import UUID

from todo_api.core.todo import description_problem, title_problem
from todo_api.problems import INVALID_FIELDS, FieldError, Problem


class TodoFields(NamedTuple):
    """None is a field that the body leaves out."""

    title: str | None
    description: str | None
    completed: bool | None


NO_FIELDS: Final = TodoFields(None, None, None)
# UUID() also takes braces, prefixes and missing hyphens; one todo has one path.
_TODO_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_todo_id(text: str) -> UUID | None:
    """Return the id of a todo as a client writes it, or None when there cannot be such a todo."""
    return UUID(text) if _TODO_ID.fullmatch(text.lower()) else None


def new_todo(body: object) -> TodoFields:
    """Return title and description for a new todo; ``completed`` is not the client's to set. Raises Problem (422)."""
    members = _object(body)
    errors: list[FieldError] = []
    title = _title(members, errors)
    description = _description(members, errors)
    if "title" not in members:
        errors.insert(0, FieldError("/title", "is required"))
    _refuse(errors)
    return TodoFields(title, description or "", None)


def changed_fields(body: object) -> TodoFields:
    """Return the fields to change, at least one. Raises Problem (422)."""
    members = _object(body)
    errors: list[FieldError] = []
    fields = TodoFields(_title(members, errors), _description(members, errors), _completed(members, errors))
    if not errors and fields == NO_FIELDS:
        errors.append(FieldError("", "must have at least one of title, description, completed"))
    _refuse(errors)
    return fields


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        _refuse([FieldError("", "must be an object")])
        raise AssertionError("unreachable")
    return body


def _title(members: dict[str, Any], errors: list[FieldError]) -> str | None:
    title = _text(members, "title", errors)
    if title is None:
        return None
    title = title.strip()
    return title if _holds("title", title_problem(title), errors) else None


def _description(members: dict[str, Any], errors: list[FieldError]) -> str | None:
    description = _text(members, "description", errors)
    if description is None:
        return None
    return description if _holds("description", description_problem(description), errors) else None


def _completed(members: dict[str, Any], errors: list[FieldError]) -> bool | None:
    completed = members.get("completed")
    if "completed" not in members or isinstance(completed, bool):
        return completed
    errors.append(FieldError("/completed", "must be true or false"))
    return None


def _text(members: dict[str, Any], name: str, errors: list[FieldError]) -> str | None:
    text = members.get(name)
    if name not in members or isinstance(text, str):
        return text
    errors.append(FieldError(f"/{name}", "must be a string"))
    return None


def _holds(name: str, problem: str | None, errors: list[FieldError]) -> bool:
    if problem is not None:
        errors.append(FieldError(f"/{name}", problem))
    return problem is None


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise Problem(INVALID_FIELDS, "errors names each field and what is wrong with it", errors=errors)
