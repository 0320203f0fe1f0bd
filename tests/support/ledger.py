"""A load of writes that keeps book: what the API acknowledged, and which contents each todo may therefore have."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.http_client import LOST, Client


@dataclass
class Entry:
    """One todo and what was acknowledged about it.

    ``title`` is None once its deletion was acknowledged. After an unknown outcome nothing more is sent for
    it, and ``unknown`` holds what the last command would have made of it.
    """

    title: str | None
    updates: int = 0
    unknown: list[str | None] = field(default_factory=list)

    def allows(self, title: str | None) -> bool:
        return title == self.title or title in self.unknown


class Load:
    """Threads that create, update and delete todos, ``commands`` in all, each todo always by the same thread.

    So its commands have an order, and what it must be at the end is known.
    """

    def __init__(self, client: Client, *, threads: int, commands: int) -> None:
        self._client = client
        self._threads = threads
        self._commands_each = commands // threads
        self._lock = threading.Lock()
        self.acknowledged = 0
        self.unknown = 0
        self.entries: dict[str, Entry] = {}
        # Titles of creates without an answer: no id is known for them, and they may be there or not.
        self.titles_unknown: set[str] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the load during the body of ``with``, and wait for its end after it; raises what a thread raised."""
        with ThreadPoolExecutor(self._threads) as pool:
            runs = [pool.submit(self._run, number) for number in range(self._threads)]
            yield
            for run in runs:
                run.result()

    def _run(self, thread: int) -> None:
        choices = random.Random(thread)
        mine: list[str] = []
        for number in range(self._commands_each):
            title = f"{thread}.{number}"
            what = choices.choice(["create", "create", "update", "update", "update", "delete"])
            if what == "create" or not mine:
                todo_id = self._create(title)
                if todo_id is not None:
                    mine.append(todo_id)
                continue
            todo_id = choices.choice(mine)
            is_known = self._change(todo_id, title if what == "update" else None)
            if what == "delete" or not is_known:
                mine.remove(todo_id)

    def _create(self, title: str) -> str | None:
        todo_id = self._send("POST", "/todos", {"title": title})
        with self._lock:
            if todo_id is None:
                self.titles_unknown.add(title)
            else:
                self.entries[todo_id] = Entry(title)
        return todo_id

    def _change(self, todo_id: str, title: str | None) -> bool:
        path, entry = f"/todos/{todo_id}", self.entries[todo_id]
        if title is None:
            is_known = self._send("DELETE", path, None) is not None
        else:
            is_known = self._send("PATCH", path, {"title": title}) is not None
        if is_known:
            entry.title = title
            entry.updates += 1
        else:
            entry.unknown.append(title)
        return is_known

    def _send(self, method: str, path: str, contents: object) -> str | None:
        """Return the id in an acknowledgement, or None when the outcome is unknown."""
        try:
            reply = self._client.request(method, path, contents)
        except LOST:
            reply = None
        assert reply is None or reply.status in (202, 503), reply
        with self._lock:
            if reply is None or reply.status == 503:
                self.unknown += 1
                return None
            self.acknowledged += 1
        todo_id: str = reply.json()["id"]
        return todo_id

    def differences(self, rows: list[dict[str, object]]) -> list[str]:
        """Return a line for everything in which the rows of the table differ from what was acknowledged."""
        found = {str(row["id"]): row for row in rows}
        lines = []
        if len(found) != len(rows):
            lines.append("an id is there twice")
        for todo_id, entry in self.entries.items():
            row = found.get(todo_id)
            title = None if row is None else str(row["title"])
            if not entry.allows(title):
                lines.append(f"{todo_id} is {title}, may be {[entry.title, *entry.unknown]}")
            # The version counts the commands that took effect: each once.
            elif row is not None and title == entry.title and row["version"] != 1 + entry.updates:
                lines.append(f"{todo_id} has version {row['version']} after {entry.updates} updates")
        strangers = [row["title"] for todo_id, row in found.items() if todo_id not in self.entries]
        lines += [f"{title} was never sent" for title in strangers if title not in self.titles_unknown]
        if len(set(strangers)) != len(strangers):
            lines.append(f"a create took effect twice: {strangers}")
        return lines
