"""The app over collaborators in memory: what HTTP does with a request, without any server."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import falcon
import jwt
from falcon.testing import Result, TestClient
from isal import isal_zlib

from todo_api.app import Collaborators, create_app
from todo_api.auth import TokenVerifier
from todo_api.core.command_log import Position, Record
from todo_api.core.commands import Command, decode
from todo_api.core.errors import NotYetApplied, TodoError
from todo_api.core.operation_id import OperationIds
from todo_api.core.store import Fate, State
from todo_api.core.tracing import NoTracing, Tracing
from todo_api.cursors import CursorSigner
from todo_api.health import Monitor, Readiness
from todo_api.intake import CommandIntake
from todo_api.pages import Page, PageKey
from todo_api.problems import PROBLEM_TYPES
from todo_api.telemetry import Telemetry
from todo_api.write_path import WritePath

SECRET = "0123456789abcdef-0123456789abcdef"
CURSORS = CursorSigner(b"c" * 32)
OPERATION_IDS = OperationIds(b"o" * 32)
PROBLEM = "application/problem+json"
ALICE = "alice"


class MemoryPublisher:
    """Keeps the records, each at the next offset of one partition. ``failure``, when set, is raised instead."""

    log = "memory:todo-commands"

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failure: Exception | None = None

    def start(self) -> None: ...

    def publish(self, record: Record) -> Position:
        if self.failure is not None:
            raise self.failure
        self.records.append(record)
        return Position(self.log, 0, len(self.records) - 1)

    def publish_many(self, records: Sequence[Record]) -> list[Position | TodoError]:
        return [self.publish(record) for record in records]

    def probe(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    @property
    def commands(self) -> list[Command]:
        """What the worker would read."""
        return [decode(record.value) for record in self.records]


class MemoryPages:
    """Answers every key with a page whose body names it."""

    def __init__(self) -> None:
        self.asked: list[PageKey] = []
        self.asked_at_least: list[State | None] = []
        self.next_after: str | None = None
        self.failure: Exception | None = None

    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        self.asked.append(key)
        self.asked_at_least.append(at_least)
        if self.failure is not None:
            raise self.failure
        return page(key=key, next_after=self.next_after)


class MemoryTodos:
    """Todos by id, as (body, version tag). Commands below ``next_offset`` are applied."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.todos: dict[UUID, tuple[bytes, str]] = {}
        self.failure: Exception | None = None

    def read_todo(self, todo_id: UUID, applied: Sequence[Position] = ()) -> tuple[bytes, str] | None:
        self.state_with(applied)
        return self.todos.get(todo_id)

    def state_with(self, applied: Sequence[Position]) -> State:
        if self.failure is not None:
            raise self.failure
        if any(position.offset >= self.next_offset for position in applied):
            raise NotYetApplied
        return State("e", self.next_offset)


class MemoryFates:
    """Fates by offset; a command without one is pending."""

    def __init__(self) -> None:
        self.fates: dict[int, Fate] = {}
        self.failure: Exception | None = None

    def read_fate(self, position: Position) -> Fate:
        if self.failure is not None:
            raise self.failure
        return self.fates.get(position.offset, Fate(False, None))


@dataclass
class Api:
    """The app, its collaborators, and requests that carry Alice's token unless they bring headers of their own."""

    pages: MemoryPages = field(default_factory=MemoryPages)
    todos: MemoryTodos = field(default_factory=MemoryTodos)
    fates: MemoryFates = field(default_factory=MemoryFates)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    readiness: Readiness = field(default_factory=lambda: Readiness(Monitor({}), (), lambda: "closed"))
    verifier: TokenVerifier = field(
        default_factory=lambda: TokenVerifier(algorithms=("HS256",), secret=SECRET)
    )

    telemetry: Telemetry = field(default_factory=Telemetry)
    tracing: Tracing = field(default_factory=NoTracing)

    def __post_init__(self) -> None:
        self.collaborators = Collaborators(
            pages=self.pages,
            todos=self.todos,
            fates=self.fates,
            publisher=self.publisher,
            verifier=self.verifier,
            readiness=self.readiness,
            cursors=CURSORS,
            operation_ids=OPERATION_IDS,
            telemetry=self.telemetry,
            tracing=self.tracing,
        )
        self.app: falcon.App[Any, Any] = create_app(self.collaborators)
        intake = CommandIntake(self.publisher, OPERATION_IDS)
        self.write_path = WritePath(self.app, verifier=self.verifier, intake=intake, telemetry=self.telemetry)
        # As in a process that makes no spans.
        self.client = TestClient(self.app if self.tracing.is_on else self.write_path)

    def request(self, method: str, path: str, **options: Any) -> Result:
        return self.client.simulate_request(method, path, **options)

    def get(self, path: str, **headers: str) -> Result:
        return self.request("GET", path, headers=_header_names(headers))

    def send(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Result:
        """Send a body as JSON with Alice's token; ``headers`` (``content_type=...``) replace those."""
        standard = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
        return self.request(method, path, body=body, headers=standard | _header_names(headers))


def _header_names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}


def token(sub: object = ALICE, *, key: str = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    """Return a token that is good for an hour; a claim that is None is left out."""
    everything = {"sub": sub, "exp": int(time.time()) + 3600} | claims
    present = {name: value for name, value in everything.items() if value is not None}
    return jwt.PyJWS().encode(json.dumps(present).encode(), key, algorithm=algorithm)


TEN = PageKey(10)


def page(
    key: PageKey = TEN, body: bytes | None = None, next_after: str | None = None, age_s: int = 0
) -> Page:
    body = f'[{{"limit":"{key.limit}","padding":"{"x" * 500}"}}]'.encode() if body is None else body
    return Page(
        key=key,
        epoch="e",
        generation=7,
        body=body,
        gzip_body=isal_zlib.compress(body, 1, 31),
        etag='"e.7.abc"',
        next_after=next_after,
        age_s=age_s,
    )


def assert_problem(result: Result, status: int, name: str | None = None) -> dict[str, Any]:
    """Check that an answer is a complete problem of this status and return its members."""
    assert result.status_code == status, result.text
    assert result.headers["content-type"] == PROBLEM
    assert result.headers["cache-control"] == "no-store"
    members: dict[str, Any] = result.json
    assert members["status"] == status
    assert members["title"]
    assert members["detail"]
    assert members["request_id"] == result.headers["x-request-id"]
    if members["type"] == "about:blank":
        assert name is None
    else:
        kind = PROBLEM_TYPES[members["type"].removeprefix("/problems/")]
        assert (kind.status, kind.title) == (status, members["title"])
        assert name in (None, kind.name)
    return members
