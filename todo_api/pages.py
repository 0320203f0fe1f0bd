"""Pages: the finished bytes of one list answer at one generation."""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from todo_api.core.store import State

# What follows a list without a limit, which is cut off at LIST_MAX, comes in pages of this size.
_NEXT_LIMIT: Final = 1000


class PageKey(NamedTuple):
    """Which list.

    ``limit`` None is the whole list (up to LIST_MAX); ``after`` is the cursor, verified and canonical, or ''.
    ``completed`` and ``user_id`` are filters, None without. A page with a ``user_id`` is that user's alone.
    """

    limit: int | None
    after: str = ""
    completed: bool | None = None
    user_id: str | None = None

    @property
    def filters(self) -> str:
        """The filters as one text; a cursor is good for the list with the same filters only."""
        parts = [] if self.completed is None else [f"completed={self.completed}"]
        return "&".join(parts if self.user_id is None else [*parts, f"user={self.user_id}"])

    @property
    def query(self) -> str:
        """The query string that asks for this page in its plainest form."""
        parts = [] if self.limit is None else [f"limit={self.limit}"]
        if self.after:
            parts.append(f"after={self.after}")
        if self.completed is not None:
            parts.append(f"completed={str(self.completed).lower()}")
        if self.user_id is not None:
            parts.append("user=me")
        return "&".join(parts)

    def following(self, next_after: str) -> "PageKey":
        """Return the key of the page that begins at ``next_after``."""
        return self._replace(limit=self.limit or _NEXT_LIMIT, after=next_after)


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


class Refresh(NamedTuple):
    """The page, None when there is none yet that is newer; and in how many seconds to ask again, at the earliest."""

    page: Page | None
    again_s: float


class Pages(Protocol):
    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        """Return the page at the newest generation this process knows, and not older than ``at_least``.

        Blocks at most about 1.5 s, on a miss. Raises StoreUnavailable when neither cache nor store has it.
        """
