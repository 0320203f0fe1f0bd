"""The bodies that the API takes and gives, as JSON Schema. The limits are the constants that the code checks with."""

from collections.abc import Mapping
from typing import Any, Final

from todo_api.core.todo import DESCRIPTION_MAX_CHARS, TITLE_MAX_CHARS, USER_ID_MAX_CHARS
from todo_api.openapi import Schema, reference

# todo_api/batch.py holds requests to it.
BATCH_ITEMS_MAX: Final = 500
# What JSON allows and PostgreSQL cannot store is refused.
_NO_NUL: Final = "^[^\\u0000]*$"
_TITLE: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": TITLE_MAX_CHARS,
    # Not blank. White space around it is cut off before its characters are counted.
    "pattern": "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$",
    "examples": ["Buy milk"],
}
_TEXT: Final = {"type": "string", "maxLength": DESCRIPTION_MAX_CHARS, "pattern": _NO_NUL}
UUID: Final = {"type": "string", "format": "uuid"}
_MOMENT: Final = {"type": "string", "format": "date-time"}
OPERATION_ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]{40,512}$"}
_PROBLEM_PATH: Final = {"type": "string", "format": "uri-reference"}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


_KIND: Final = _object({"type": _PROBLEM_PATH, "title": {"type": "string"}, "status": {"type": "integer"}})
_READINESS: Final = _object(
    {
        "ready": {"type": "boolean"},
        "draining": {"type": "boolean"},
        "missing": {"type": "array", "items": {"type": "string"}},
        "dependencies": {
            "type": "object",
            "additionalProperties": _object(
                {"state": {"enum": ["up", "down", "unknown"]}, "required": {"type": "boolean"}},
                {"breaker": {"type": "string"}},
            ),
        },
    }
)
_IF_MATCH: Final = {
    "type": "string",
    "description": "As the header If-Match.",
    "examples": ['"3-1702"'],
}
_CHANGES: Final[dict[str, Schema]] = {"title": _TITLE, "description": _TEXT, "completed": {"type": "boolean"}}
SCHEMAS: Final[dict[str, Schema]] = {
    "Todo": _object(
        {
            "id": UUID,
            **_CHANGES,
            "user_id": {"type": "string", "minLength": 1, "maxLength": USER_ID_MAX_CHARS},
            "created_at": _MOMENT,
            "updated_at": _MOMENT,
        }
    ),
    "NewTodo": _object({"title": _TITLE}, {"description": _TEXT}),
    "TodoChanges": _object({}, _CHANGES) | {"anyOf": [{"required": [name]} for name in _CHANGES]},
    "Accepted": _object({"id": UUID, "message": {"type": "string"}, "operation": OPERATION_ID}),
    "Batch": _object(
        {
            "items": {
                "type": "array",
                "minItems": 1,
                "maxItems": BATCH_ITEMS_MAX,
                "items": {
                    "anyOf": [
                        _object({"action": {"const": "create"}, "title": _TITLE}, {"description": _TEXT}),
                        _object(
                            {"action": {"const": "update"}, "id": UUID}, {**_CHANGES, "if_match": _IF_MATCH}
                        )
                        | {"anyOf": [{"required": [name]} for name in _CHANGES]},
                        _object({"action": {"const": "delete"}, "id": UUID}, {"if_match": _IF_MATCH}),
                    ]
                },
            }
        }
    ),
    "BatchResults": _object(
        {
            "results": {
                "type": "array",
                "items": {
                    "anyOf": [
                        _object({"status": {"const": 202}, "id": UUID, "operation": OPERATION_ID}),
                        _object({"status": {"type": "integer", "minimum": 400}, "problem": _KIND}),
                    ]
                },
            }
        }
    ),
    "OperationStatus": _object(
        {"operation": OPERATION_ID, "status": {"enum": ["pending", "applied", "rejected"]}},
        {"problem": _KIND | {"description": "Why it was rejected."}},
    ),
    "Problem": _KIND
    | {
        "required": ["type", "title", "status", "detail", "request_id"],
        "properties": {
            **_KIND["properties"],
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
            "parameter": {"type": "string", "description": "The query parameter at fault."},
            "header": {"type": "string", "description": "The request header at fault."},
            "errors": {
                "type": "array",
                "items": _object(
                    {"pointer": {"type": "string", "format": "json-pointer"}, "detail": {"type": "string"}}
                ),
            },
        },
    },
    "ProblemType": _KIND
    | {
        "required": ["type", "title", "status", "meaning", "fix"],
        "properties": {**_KIND["properties"], "meaning": {"type": "string"}, "fix": {"type": "string"}},
    },
    "Readiness": _READINESS,
    "Status": _object(
        {
            "time_s": {"type": "number"},
            "epoch": {"type": ["string", "null"]},
            "generation": {"type": ["integer", "null"]},
            "processes": {"type": "integer"},
            "requests_total": {"type": "integer"},
            "list_requests_total": {"type": "integer"},
            "page_hits_total": {"type": "integer"},
            "lag_commands": {"type": ["integer", "null"]},
            "applied_age_s": {"type": ["number", "null"]},
            "applied_delay_s": {"type": ["number", "null"]},
            "breaker": {"type": ["string", "null"]},
            "ready": reference("Readiness"),
        }
    ),
    "Version": _object(
        {"name": {"type": "string"}, "version": {"type": "string"}, "python": {"type": "string"}}
    ),
}
