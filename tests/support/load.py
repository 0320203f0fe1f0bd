"""A load of writes and reads at a given rate, by several users, every answer in a ledger."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple

from scripts.stack.server import wait_until
from tests.support.http_client import LOST, Client, Reply
from tests.support.ledger import FORBIDDEN, OVERLOADED, Ledger, Write, title_of

Kind = Literal["create", "update", "delete", "refused", "foreign"]
# Of a hundred writes. The last two must have no effect.
MIX: Final[dict[Kind, int]] = {"create": 35, "update": 52, "delete": 9, "refused": 2, "foreign": 2}
# A user goes on with so many of the todos that he made last, so that one page shows them all.
_KEPT: Final = 40
_IN_A_ROW: Final = 20


class Read(NamedTuple):
    """One GET /todos; ``status`` is 0 when no answer came."""

    sent_at: float
    took_s: float
    status: int


class Load:
    """``users`` threads that write and ``readers`` that read, each new connections, at the rates given in all.

    ``write_as`` and ``read_as`` return a client; a todo belongs to one user's thread, which waits for each answer, so
    that its writes have an order. Who is late does not catch up: an outage is not followed by a burst.
    """

    def __init__(
        self,
        name: str,
        write_as: Callable[[str], Client],
        *,
        writes_per_s: float = 50.0,
        reads_per_s: float = 10.0,
        users: int = 8,
        readers: int = 4,
    ) -> None:
        self.ledger = Ledger(name)
        self.reads: list[Read] = []
        self._client = write_as
        self.users = users
        self._readers = readers
        self._write_interval_s = users / writes_per_s
        self._read_interval_s = readers / reads_per_s
        self._stop = threading.Event()
        # Ids of todos of others that may be attacked, by user.
        self._ids: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run during the body of ``with`` and stop after it; raises what a thread raised."""
        with ThreadPoolExecutor(self.users + self._readers) as pool:
            runs = [pool.submit(self._write_until_stopped, number) for number in range(self.users)]
            runs += [pool.submit(self._read_until_stopped, number) for number in range(self._readers)]
            try:
                yield
            finally:
                self._stop.set()
            for run in runs:
                run.result()

    @property
    def answers(self) -> int:
        """How many requests are over, whatever came of them."""
        return len(self.reads) + len(self.ledger.writes)

    def go_on(self, seconds: float) -> None:
        """Let it run for so long."""
        self._stop.wait(seconds)

    def go_on_for_writes(self, acked: int, timeout_s: float = 60.0) -> None:
        """Let it run until so many more writes were acknowledged."""
        before = self.ledger.counts()["acked"]
        wait_until(
            lambda: self.ledger.counts()["acked"] >= before + acked, timeout_s, f"{acked} acknowledged"
        )

    def recovered_at(self, healed_at: float) -> float | None:
        """Return when the first of 20 writes in a row was acknowledged, of those sent after ``healed_at``."""
        run: list[Write] = []
        for write in list(self.ledger.writes):
            if write.sent_at < healed_at or write.outcome == "refused":
                continue
            run = [*run, write] if write.outcome == "acked" else []
            if len(run) == _IN_A_ROW:
                return run[0].answered_at
        return None

    def _ticks(self, interval_s: float, number: int, of: int) -> Iterator[None]:
        due = time.monotonic() + interval_s * number / of
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            yield
            due = max(due + interval_s, time.monotonic())

    def _read_until_stopped(self, number: int) -> None:
        client = self._client(f"reader{number}")
        for _ in self._ticks(self._read_interval_s, number, self._readers):
            began = time.monotonic()
            try:
                status = client.get("/todos?limit=100").status
            except LOST:
                status = 0
            self.reads.append(Read(began, time.monotonic() - began, status))

    def _write_until_stopped(self, number: int) -> None:
        user = f"{self.ledger.name}-user{number}"
        author = _Author(user, self._client(user), self.ledger, self._ids, random.Random(user))
        for _ in self._ticks(self._write_interval_s, number, self.users):
            author.write()


class _Author:
    """One user, who remembers the todos that he has."""

    def __init__(
        self, user: str, client: Client, ledger: Ledger, ids: dict[str, str], choices: random.Random
    ) -> None:
        self._user = user
        self._client = client
        self._ledger = ledger
        self._ids = ids
        self._choices = choices
        self._count = 0
        # tag, id, number of the next write
        self._mine: list[tuple[str, str, int]] = []

    def write(self) -> None:
        [kind] = self._choices.choices([*MIX], [*MIX.values()])
        if kind == "foreign":
            self._attack()
        elif kind == "create" or not self._mine:
            self._create()
        else:
            self._change(kind)

    def _create(self) -> None:
        tag = f"{self._ledger.name}:{self._user}:{self._count}"
        self._count += 1
        contents = {"title": title_of(tag, 0), "description": tag}
        status, todo_id = self._send("create", tag, 0, "POST", "/todos", contents)
        if status == 202:
            self._mine = [*self._mine, (tag, todo_id, 1)][-_KEPT:]
            self._ids[self._user] = todo_id

    def _change(self, kind: Kind) -> None:
        index = self._choices.randrange(len(self._mine))
        tag, todo_id, number = self._mine[index]
        path = f"/todos/{todo_id}"
        if kind == "delete":
            # Nothing more is sent, whatever the answer: after an unknown one nobody could say what it should do.
            del self._mine[index]
            self._send(kind, tag, number, "DELETE", path, None)
            return
        self._mine[index] = (tag, todo_id, number + 1)
        contents = {"title": title_of(tag, number)}
        if kind == "refused":
            contents = {"title": "", "description": FORBIDDEN}
        self._send(kind, tag, number, "PATCH", path, contents)

    def _attack(self) -> None:
        """Write to a todo of somebody else: accepted, and without effect."""
        others = [todo_id for user, todo_id in list(self._ids.items()) if user != self._user]
        if others:
            path = f"/todos/{self._choices.choice(others)}"
            self._send("foreign", f"{self._ledger.name}:foreign", 0, "PATCH", path, {"title": FORBIDDEN})

    def _send(
        self, kind: Kind, tag: str, number: int, method: str, path: str, contents: object
    ) -> tuple[int, str]:
        began = time.monotonic()
        todo_id = why = ""
        try:
            reply = self._client.request(method, path, contents)
            status = reply.status
            if status == 202:
                todo_id = reply.json()["id"]
            else:
                why = _why(reply)
            if status == 503:
                assert int(reply.headers["Retry-After"]) >= 1, reply
                if reply.json()["type"] == "/problems/overloaded":
                    status = OVERLOADED
        except LOST as ex:
            status, why = 0, repr(ex)
        self._ledger.note(self._user, Write(kind, tag, number, began, time.monotonic(), status, why))
        return status, todo_id


def _why(reply: Reply) -> str:
    """Return what an answer says of itself: nginx has no detail, and leaves no line with its id in a log of ours."""
    problem = reply.json() if "json" in reply.headers.get("Content-Type", "") else {}
    said = problem.get("detail", "no detail") if problem else reply.body[:100].decode(errors="replace")
    return f"{problem.get('type', 'no problem')}, {said}, {reply.headers['X-Request-Id']}"
