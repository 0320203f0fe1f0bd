"""Looks at one API process as a client does, again and again: when does it show a write, does it ever go back?"""

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from tests.support.background import beside
from tests.support.http_client import LOST, Client, Todo
from tests.support.ledger import Ledger, number_in

_INTERVAL_S: Final = 0.1
_LIMIT: Final = 500


class Observer:
    """Reads the newest todos from one process and keeps when it first saw each number of each tag."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._prefix = f"{name}:"
        self._stop = threading.Event()
        # By tag: the numbers seen, rising, and when.
        self._numbers: dict[str, list[int]] = {}
        self._times: dict[str, list[float]] = {}
        self._created: dict[str, tuple[str, str]] = {}
        self._gone: set[str] = set()
        self.backwards: list[str] = []
        """A line for every item that went back to an older number, or came back after it was gone."""
        self.reads = 0

    def running(self) -> AbstractContextManager[None]:
        """Look during the body of ``with``."""
        return beside(self._run, self._stop)

    def seen_at(self, tag: str, number: int) -> float | None:
        """Return when it first saw this number of the tag or a later one; None when it never did."""
        numbers = self._numbers.get(tag, [])
        index = bisect_left(numbers, number)
        return self._times[tag][index] if index < len(numbers) else None

    def _run(self) -> None:
        etag = ""
        while not self._stop.wait(_INTERVAL_S):
            try:
                reply = self._client.get(f"/todos?limit={_LIMIT}", if_none_match=etag)
            except LOST:
                continue
            if reply.status == 200:
                etag = reply.headers["ETag"]
                self.reads += 1
                self.look_at(reply.json(), time.monotonic())

    def look_at(self, todos: list[Todo], now: float) -> None:
        """Note what a page shows that was read at ``now``."""
        shown: set[str] = set()
        for todo in todos:
            tag, number = number_in(todo["title"])
            if not tag.startswith(self._prefix):
                continue
            shown.add(tag)
            numbers = self._numbers.setdefault(tag, [])
            if tag in self._gone or (numbers and number < numbers[-1]):
                self.backwards.append(f"{tag} showed {numbers[-1:]} and then {number}")
            elif not numbers or number > numbers[-1]:
                numbers.append(number)
                self._times.setdefault(tag, []).append(now)
                self._created[tag] = (todo["created_at"], todo["id"])
        # What is missing between others was deleted; what is older than the last one was only pushed out.
        oldest = (todos[-1]["created_at"], todos[-1]["id"]) if len(todos) == _LIMIT else ("", "")
        missing = {tag for tag, at in self._created.items() if tag not in shown and at > oldest}
        self._gone |= missing


def visible_after_s(ledger: Ledger, observers: Sequence[Observer]) -> list[float]:
    """Return for every acknowledged create and update how long after its answer some observer saw it.

    Sorted. Writes that nobody saw are left out: those before a deletion, and those to todos that were pushed out of the
    page by newer ones.
    """
    waits = []
    for write in ledger.writes:
        if write.kind in ("create", "update") and write.outcome == "acked":
            seen = [
                at for observer in observers if (at := observer.seen_at(write.tag, write.number)) is not None
            ]
            waits += [max(0.0, min(seen) - write.answered_at)] if seen else []
    return sorted(waits)
