"""The todos over HTTP: the list, one todo, and the commands that create, change and delete."""

import re
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

import falcon
from falcon import Request, Response

from todo_api.auth import Verifier
from todo_api.core.command_log import Position
from todo_api.core.commands import Kind
from todo_api.core.store import State
from todo_api.cursors import CursorSigner, InvalidCursor
from todo_api.if_applied import IfApplied
from todo_api.intake import CREATED, FAILED, CommandIntake, new_command
from todo_api.page_answer import PRIVATE, PageAnswers, matches
from todo_api.pages import PageKey, Pages
from todo_api.problems import INVALID_PARAMETER, NOT_FOUND, Problem
from todo_api.request_body import read_json
from todo_api.todo_fields import NO_FIELDS, changed_fields, new_todo, parse_todo_id
from todo_api.write_headers import idempotency_key, if_match, refuse_if_match

LIMIT_MAX: Final = 1000
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,3}")


class TodoReader(Protocol):
    """Reads one todo (``core.store.ReadStore``)."""

    def read_todo(self, todo_id: UUID, applied: Sequence[Position] = ()) -> tuple[bytes, str] | None:
        """Return the todo as JSON and its version tag, or None; not older than ``applied``.

        Blocks at most about 1.5 s. Raises StoreUnavailable, NotYetApplied.
        """

    def state_with(self, applied: Sequence[Position]) -> State:
        """Return a state that includes the commands at these positions. Blocks and raises as ``read_todo``."""


class TodoCollection:
    """``/todos``"""

    def __init__(
        self,
        *,
        pages: Pages,
        todos: TodoReader,
        cursors: CursorSigner,
        verifier: Verifier,
        if_applied: IfApplied,
        intake: CommandIntake,
    ) -> None:
        self._pages = pages
        self._todos = todos
        self._if_applied = if_applied
        self._cursors = cursors
        self._verifier = verifier
        self._intake = intake

    def on_get(self, req: Request, resp: Response) -> None:
        key = self._key(req)
        applied = self._if_applied.positions(req)
        page = self._pages.get(key, self._todos.state_with(applied) if applied else None)
        answer = PageAnswers(page).choose(req.get_header("If-None-Match"), req.get_header("Accept-Encoding"))
        resp.status = answer.status
        resp.set_headers(answer.headers)
        if applied:
            resp.set_header("Cache-Control", PRIVATE)
        resp.data = answer.body

    on_head = on_get

    def on_post(self, req: Request, resp: Response) -> None:
        failed: Exception | None = req.env.get(FAILED)
        if failed is not None:
            raise failed
        user_id = self._verifier.verify(req.auth)
        key = idempotency_key(req)
        refuse_if_match(req)
        command = self._intake.new_todo(user_id, new_todo(read_json(req)), key)
        self._intake.accept(resp, command, CREATED)
        resp.set_header("Location", f"/todos/{command.todo_id}")

    def _key(self, req: Request) -> PageKey:
        limit, after = _parameter(req, "limit"), _parameter(req, "after")
        completed, user = _parameter(req, "completed"), _parameter(req, "user")
        if limit is not None and (not _LIMIT.fullmatch(limit) or int(limit) > LIMIT_MAX):
            raise _invalid("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
        if completed not in (None, "true", "false"):
            raise _invalid("completed", "must be true or false")
        if user not in (None, "me"):
            raise _invalid("user", "must be me: the user of the token")
        key = PageKey(
            None if limit is None else int(limit),
            completed=None if completed is None else completed == "true",
            user_id=None if user is None else self._verifier.verify(req.auth),
        )
        return key if after is None else self._at(key, after)

    def _at(self, key: PageKey, after: str) -> PageKey:
        if key.limit is None:
            raise _invalid("after", "needs a limit beside it")
        try:
            # The text is canonical: a cursor has one spelling.
            self._cursors.decode(after, key.filters)
        except InvalidCursor as ex:
            detail = (
                "must be a cursor from the Link header of an earlier answer, with the filters of that answer; "
                "begin again without it"
            )
            raise _invalid("after", detail) from ex
        return key._replace(after=after)


class TodoItem:
    """``/todos/{id}``"""

    def __init__(
        self, *, todos: TodoReader, verifier: Verifier, if_applied: IfApplied, intake: CommandIntake
    ) -> None:
        self._todos = todos
        self._if_applied = if_applied
        self._verifier = verifier
        self._intake = intake

    def on_get(self, req: Request, resp: Response, todo_id: str) -> None:
        found = self._todos.read_todo(_todo_id(todo_id), self._if_applied.positions(req))
        if found is None:
            raise _no_such_todo()
        body, version = found
        etag = f'"{version}"'
        resp.set_header("ETag", etag)
        resp.set_header("Cache-Control", "no-cache")
        if_none_match = req.get_header("If-None-Match")
        if if_none_match is not None and matches(if_none_match, etag):
            resp.status = falcon.HTTP_304
        else:
            resp.data = body

    on_head = on_get

    def on_put(self, req: Request, resp: Response, todo_id: str) -> None:
        self._change(req, resp, Kind.UPDATE, todo_id, "todo update queued")

    # What is left out keeps its value in both: PUT has always worked like this here.
    on_patch = on_put

    def on_delete(self, req: Request, resp: Response, todo_id: str) -> None:
        self._change(req, resp, Kind.DELETE, todo_id, "todo deletion queued")

    def _change(self, req: Request, resp: Response, kind: Kind, todo_id: str, message: str) -> None:
        user_id = self._verifier.verify(req.auth)
        target = _todo_id(todo_id)
        key, versions = idempotency_key(req), if_match(req)
        fields = changed_fields(read_json(req)) if kind is Kind.UPDATE else NO_FIELDS
        command = new_command(kind, user_id, fields, todo_id=target, idempotency_key=key, if_match=versions)
        self._intake.accept(resp, command, message)


def _todo_id(text: str) -> UUID:
    todo_id = parse_todo_id(text)
    if todo_id is None:
        raise _no_such_todo()
    return todo_id


def _parameter(req: Request, name: str) -> str | None:
    value = req.params.get(name)
    if isinstance(value, list):
        raise _invalid(name, "must be given once")
    return value


def _invalid(name: str, what: str) -> Problem:
    return Problem(INVALID_PARAMETER, f"{name} {what}", members={"parameter": name})


def _no_such_todo() -> Problem:
    return Problem(NOT_FOUND, "there is no todo with this id, or not yet")
