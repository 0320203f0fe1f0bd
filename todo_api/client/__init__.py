"""A Python client for the API: ``pip install 'todo-api[client]'``. It loads nothing of the server.

See docs/client.md. Every name that is here may be relied on; the modules beside it may not.
"""

from todo_api.client.client import Operation, Todo, TodoClient, Write
from todo_api.client.errors import (
    ApiProblem,
    FieldProblem,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    Rejected,
    StillPending,
    TodoClientError,
    Unavailable,
    Unreachable,
)

__all__ = [
    "ApiProblem",
    "FieldProblem",
    "InvalidRequest",
    "NotAuthorized",
    "NotFound",
    "Operation",
    "Rejected",
    "StillPending",
    "Todo",
    "TodoClient",
    "TodoClientError",
    "Unavailable",
    "Unreachable",
    "Write",
]
