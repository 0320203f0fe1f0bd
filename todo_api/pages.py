"""Pages: the finished bytes of one list answer at one generation."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from todo_api.core.store import State


class PageKey(NamedTuple):
    """Which list.

    ``limit`` None is the whole list (up to LIST_MAX); ``after`` is the cursor, verified and canonical, or ''.
    """

    limit: int | None
    after: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Immutable: the same key, epoch and generation give the same bytes whoever builds it.

    ``etag`` is quoted. ``next_after`` is the cursor of the page that follows, None at the end of the list.
    ``age_s`` is above 0 while neither Redis nor PostgreSQL can say whether there is a newer one.
    """

    key: PageKey
    epoch: str
    generation: int
    body: bytes
    gzip_body: bytes
    etag: str
    next_after: str | None
    age_s: int = 0

    @property
    def state(self) -> State:
        return State(self.epoch, self.generation)


class Pages(Protocol):
    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        """Return the page at the newest generation this process knows, and not older than ``at_least``.

        Blocks at most about 1.5 s, on a miss. Raises StoreUnavailable when neither cache nor store has it.
        """
