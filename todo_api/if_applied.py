"""``If-Applied``: a read that is not older than the writes it names.

A client puts the operation ids of its own writes into the header, separated by commas, and gets an answer that shows
them, or 425 with ``Retry-After``; never an older one.
"""

from typing import Final

from falcon import Request

from todo_api.auth import Verifier
from todo_api.core.command_log import Position
from todo_api.core.operation_id import InvalidOperationId, OperationIds
from todo_api.problems import INVALID_HEADER, Problem

HEADER: Final = "If-Applied"
OPERATIONS_MAX: Final = 32


class IfApplied:
    """Reads the header. Whose operation an id is can only be checked with a token, so the header needs one."""

    def __init__(self, verifier: Verifier, operation_ids: OperationIds) -> None:
        self._verifier = verifier
        self._operation_ids = operation_ids

    def positions(self, req: Request) -> tuple[Position, ...]:
        """Return the positions that the header names; none without it.

        Raises Unauthenticated, and Problem (400) for what is no operation of this user's. Not 404: that would say
        that the todo is not there.
        """
        value = req.get_header(HEADER)
        if value is None:
            return ()
        user_id = self._verifier.verify(req.auth)
        names = [name.strip() for name in value.split(",")]
        if len(names) > OPERATIONS_MAX:
            raise _invalid(f"must name at most {OPERATIONS_MAX} operations; the last of each todo is enough")
        try:
            return tuple(self._operation_ids.decode(name, user_id) for name in names)
        except InvalidOperationId as ex:
            # APPSEC: another user's operation looks exactly like one that never was.
            raise _invalid("must be ids of operations of your own, separated by commas") from ex


def _invalid(what: str) -> Problem:
    return Problem(INVALID_HEADER, f"{HEADER} {what}", members={"header": HEADER})
