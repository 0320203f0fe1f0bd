"""What became of a write: ``/operations/{id}``, from its position alone, for its owner alone."""

from typing import Any, Final, Protocol

import falcon
import ujson
from falcon import Request, Response

from todo_api.auth import Verifier
from todo_api.core.command_log import Position
from todo_api.core.operation_id import InvalidOperationId, OperationIds
from todo_api.core.store import Fate
from todo_api.problems import (
    COMMAND_ID_REUSED,
    IDEMPOTENCY_KEY_REUSED,
    NO_SUCH_TODO,
    NOT_FOUND,
    NOT_OWNER,
    PRECONDITION_FAILED,
    Problem,
    ProblemType,
)

_RETRY_AFTER_S: Final = 1
# The worker's reasons (todo_worker.fold.Reason), as the problem a synchronous answer would have been.
_PROBLEMS: Final[dict[str, ProblemType]] = {
    "no_such_todo": NO_SUCH_TODO,
    "not_owner": NOT_OWNER,
    "command_id_reused": COMMAND_ID_REUSED,
    "idempotency_key_reused": IDEMPOTENCY_KEY_REUSED,
    "precondition_failed": PRECONDITION_FAILED,
}


class FateReader(Protocol):
    """Knows what became of a command (``core.store.ReadStore``)."""

    def read_fate(self, position: Position) -> Fate:
        """Return its fate. Blocks at most about 1.5 s. Raises StoreUnavailable."""


class OperationItem:
    """``/operations/{operation_id}``: pending, applied, or rejected with the reason as a problem.

    Rejections are remembered for two days at least; after that a rejected operation reads as applied.
    """

    def __init__(self, *, fates: FateReader, verifier: Verifier, operation_ids: OperationIds) -> None:
        self._fates = fates
        self._verifier = verifier
        self._operation_ids = operation_ids

    def on_get(self, req: Request, resp: Response, operation_id: str) -> None:
        user_id = self._verifier.verify(req.auth)
        try:
            position = self._operation_ids.decode(operation_id, user_id)
        except InvalidOperationId as ex:
            # APPSEC: another user's operation looks exactly like one that never was.
            raise Problem(NOT_FOUND, "you have no operation with this id") from ex
        fate = self._fates.read_fate(position)
        body: dict[str, Any] = {"operation": operation_id, "status": _status(fate)}
        if fate.rejected_because is not None:
            kind = _PROBLEMS[fate.rejected_because]
            body["problem"] = {"type": kind.uri, "title": kind.title, "status": kind.status}
        if not fate.is_done:
            resp.set_header("Retry-After", str(_RETRY_AFTER_S))
        resp.set_header("Cache-Control", "no-store")
        resp.status = falcon.HTTP_200
        resp.data = ujson.dumps(body, escape_forward_slashes=False).encode()

    on_head = on_get


def _status(fate: Fate) -> str:
    if not fate.is_done:
        return "pending"
    return "applied" if fate.rejected_because is None else "rejected"
