"""The book that a load keeps of every answer, and what it says about the table afterwards.

The words are those of docs/reliability.md. *Unknown* is a write that was answered 5xx or not at all: it may take effect
now, later or never, in its place among the others of its todo.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Outcome = Literal["acked", "refused", "unknown"]
_TITLE = re.compile(r"(.+)#(\d+)")
# What is written where it must have no effect: in a request that is refused, or to another user's todo.
FORBIDDEN = "must never be seen"
# The status noted for a 503 that says that nothing was done because too many requests were waiting.
OVERLOADED = 429


class Write(NamedTuple):
    """One write and its answer. Times are ``time.monotonic`` values; ``status`` is 0 when no answer came.

    ``tag`` names the todo from before its id is known: it is the description of the todo for ever. The title holds
    the tag and ``number``, which counts the writes to this todo from 0. ``why`` is what is known of an answer that is
    no 202: the problem, or the error of the connection.
    """

    kind: Literal["create", "update", "delete", "refused", "foreign"]
    tag: str
    number: int
    sent_at: float
    answered_at: float
    status: int
    why: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.status == 202:
            return "acked"
        return "refused" if 400 <= self.status < 500 else "unknown"

    @property
    def took_s(self) -> float:
        return self.answered_at - self.sent_at


def title_of(tag: str, number: int) -> str:
    return f"{tag}#{number}"


def number_in(title: str) -> tuple[str, int]:
    """Return tag and number of a title that ``title_of`` made; (title, -1) for any other."""
    found = _TITLE.fullmatch(title)
    return (found[1], int(found[2])) if found else (title, -1)


@dataclass
class Book:
    """The writes to one todo, in the order in which they were sent and answered."""

    user: str
    writes: list[Write] = field(default_factory=list)

    def numbers(self, outcome: Outcome) -> list[int]:
        return [w.number for w in self.writes if w.outcome == outcome and w.kind in ("create", "update")]

    def was_deleted(self, outcome: Outcome) -> bool:
        return any(write.kind == "delete" and write.outcome == outcome for write in self.writes)


class Ledger:
    """All writes of one load. ``name`` begins every tag, so that loads can share a table."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self.books: dict[str, Book] = {}
        self.writes: list[Write] = []

    def note(self, user: str, write: Write) -> None:
        with self._lock:
            self.writes.append(write)
            self.books.setdefault(write.tag, Book(user)).writes.append(write)

    def counts(self) -> Counter[Outcome]:
        return Counter(write.outcome for write in list(self.writes))

    def unknown(self) -> list[Write]:
        """Return the writes of which nobody can say what became of them."""
        return [write for write in list(self.writes) if write.outcome == "unknown"]

    def faults(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Return what is wrong with the rows of the table (title, description, user_id, version), by kind of fault."""
        found: dict[str, list[str]] = {}
        by_tag: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if FORBIDDEN in (row["title"], row["description"]):
                found.setdefault("refused-applied", []).append(f"{row}")
            if str(row["description"]).startswith(f"{self.name}:"):
                by_tag.setdefault(str(row["description"]), []).append(row)
        for tag, same in by_tag.items():
            if tag not in self.books:
                found.setdefault("corrupt", []).append(f"{tag} was never written")
            if len(same) > 1:
                found.setdefault("duplicate", []).append(f"{tag} is there {len(same)} times")
        for tag, book in self.books.items():
            fault = _fault(tag, book, by_tag.get(tag, ()))
            if fault is not None:
                kind, line = fault
                found.setdefault(kind, []).append(f"{tag} {line}; {_history(book)}")
        return found


def _fault(tag: str, book: Book, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    acked, unknown = book.numbers("acked"), book.numbers("unknown")
    if not rows:
        is_gone_by_right = book.was_deleted("acked") or book.was_deleted("unknown")
        # Only a create whose answer was lost may have come to nothing.
        return None if is_gone_by_right or 0 not in acked else ("lost", "has no row")
    row = rows[0]
    title_tag, number = number_in(str(row["title"]))
    if title_tag != tag or row["user_id"] != book.user:
        return "corrupt", f"is {row}"
    if book.was_deleted("acked"):
        return "resurrected", f"is there again: {row}"
    last = max(acked, default=-1)
    if number in unknown:
        if number < last:
            return "late-unknown", f"shows {number}, which overtook {last}"
    elif number not in acked:
        return "corrupt", f"shows {number}, which was never sent"
    elif number != last:
        return "misordered", f"shows {number}, not {last}"
    # The version counts the commands that took effect: each once.
    least, most = max(len(acked), 1), len(acked) + len(unknown)
    if not least <= row["version"] <= most:
        return "duplicate", f"has version {row['version']}, not {least} to {most}"
    return None


def _history(book: Book) -> str:
    return " ".join(f"{write.kind} {write.number} {write.status}" for write in book.writes)
