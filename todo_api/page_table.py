"""The page table: the pages this process answers from, kept current by one background thread, the watcher.

A request for a page in the table touches nothing but a dict. The watcher learns the current state every
``poll_s``; when it moved, it replaces the pages that are in use and drops those that are not, so a page in the
table is never older than the last state learned, but for the time one refresh takes and is rationed to.
"""

import logging
import math
import threading
import time
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import State
from todo_api.page_answer import PageAnswers
from todo_api.pages import Page, PageKey, Refresh
from todo_api.shortcut import held_bytes

log = logging.getLogger(__name__)

# A page that nobody asked for this long is dropped, not refreshed, when the state moves.
_IN_USE_S: Final = 2.0
# However soon a page is due.
_PAUSE_MIN_S: Final = 0.002
# How long a check waits for a process that has just started.
_FIRST_NEWS_S: Final = 1.0
# Without news for this long, answers say how old they are.
_FRESH_S: Final = 2.0


class Learns(Protocol):
    """See StateSource.learn."""

    def learn(self, known: State | None) -> State | None: ...


class Fetches(Protocol):
    """See PageSource."""

    def fetch(self, key: PageKey, wanted: State | None) -> Page: ...
    def refresh(self, key: PageKey, wanted: State, held: State) -> Refresh: ...
    def build(self, key: PageKey) -> Page: ...
    def forget(self, key: PageKey) -> None: ...


class Entry:
    """One page in the table. ``hits`` is counted by requests, everything else is set under the table's lock."""

    __slots__ = ("answers", "hits", "hits_noted", "next_refresh", "not_modified_before", "page", "used_at")

    def __init__(self, page: Page, now: float) -> None:
        self.not_modified_before = 0
        self.page = page
        self.answers = PageAnswers(page)
        self.hits = 1
        self.hits_noted = 0
        self.used_at = now
        self.next_refresh = 0.0

    def show(self, page: Page) -> None:
        self.not_modified_before += self.answers.not_modified_count
        self.page = page
        self.answers = PageAnswers(page)


class Figures(NamedTuple):
    """What the table did since it was made, and what it holds now.

    ``hits`` counts answers from the table, ``unrouted`` those of them that the hit path gave, of which
    ``unrouted_not_modified`` were 304, and ``overdue`` those given while nothing could be learned. ``waits`` counts
    requests that waited for a page while another request fetched it, ``failures`` the pages that could not be had.
    ``fetching_s`` is what misses, refreshes and failures took. ``age_s`` is the time since a state was last learned.
    """

    hits: int
    unrouted: int
    unrouted_not_modified: int
    overdue: int
    waits: int
    misses: int
    refreshes: int
    failures: int
    fetching_s: float
    pages: int
    page_bytes: int
    state: State | None
    age_s: float


class PageTable:
    """Pages by key, bounded in number and bytes: the least recently used goes first.

    Implements ``todo_api.pages.Pages``. ``hot`` holds the same entries by the query string that asks for them, as
    long as they may be served without looking at the clock: it is empty when nothing was learned for a while.
    ``stale_max_s`` bounds how old a page may get while neither Redis nor PostgreSQL can be asked.
    """

    def __init__(
        self,
        states: Learns,
        source: Fetches,
        *,
        poll_s: float,
        pages_max: int,
        bytes_max: int,
        stale_max_s: float,
    ) -> None:
        self._states = states
        self._source = source
        self._poll_s = poll_s
        self._pages_max = pages_max
        self._bytes_max = bytes_max
        self._stale_max_s = stale_max_s
        self.hot: dict[str, Entry] = {}
        self._entries: dict[PageKey, Entry] = {}
        self._filling: dict[PageKey, threading.Lock] = {}
        self._lock = threading.Lock()
        self._state: State | None = None
        self._learned_at = float("-inf")
        self._routed_hits = 0
        self._overdue = 0
        self._waits = 0
        self._misses = 0
        self._refreshes = 0
        self._failures = 0
        self._fetching_s = 0.0
        # Of entries that are gone: their hits, and their 304s.
        self._gone = (0, 0)
        self._has_learned = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the watcher and return at once. Call it after the fork, once."""
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        """Return the page; see ``Pages.get``. Its ``age_s`` is above 0 when nothing could be learned for a while."""
        if key.user_id is not None:
            return _new_enough(self._source.build(key), at_least)
        age_s = time.monotonic() - self._learned_at
        entry = self._entries.get(key)
        if entry is not None and _is_new_enough(entry.page, at_least):
            entry.hits += 1
            self._routed_hits += 1
            if age_s <= _FRESH_S:
                return entry.page
            if self._state is not None and age_s <= self._stale_max_s:
                self._overdue += 1
                return replace(entry.page, age_s=int(age_s))
        return self._fill(key, at_least)

    @property
    def state(self) -> State | None:
        """The newest state learned."""
        return self._state

    def ping(self) -> None:
        """Return if pages can be answered; of servers that are away, those in memory may be all there is.

        Waits up to a second for the first news. Raises StoreUnavailable when there are none, or none recent enough.
        """
        self._has_learned.wait(_FIRST_NEWS_S)
        age_s = time.monotonic() - self._learned_at
        if age_s > self._stale_max_s:
            raise StoreUnavailable(
                f"nothing learned about the todos for {age_s:.0f} s"
                if self._has_learned.is_set()
                else "nothing learned about the todos yet"
            )

    def figures(self) -> Figures:
        """Return what there is to tell, without waiting for anything. Costs about 0.2 us a page.

        Counts that requests make at the same moment may be missing, and come with the next call.
        """
        with self._lock:
            hits, not_modified = self._gone
            page_bytes = 0
            for entry in self._entries.values():
                hits += entry.hits - 1
                not_modified += entry.not_modified_before + entry.answers.not_modified_count
                page_bytes += _held_bytes(entry.page)
            return Figures(
                hits=hits,
                unrouted=hits - self._routed_hits,
                unrouted_not_modified=not_modified,
                overdue=self._overdue,
                waits=self._waits,
                misses=self._misses,
                refreshes=self._refreshes,
                failures=self._failures,
                fetching_s=self._fetching_s,
                pages=len(self._entries),
                page_bytes=page_bytes,
                state=self._state,
                age_s=time.monotonic() - self._learned_at,
            )

    def _fill(self, key: PageKey, at_least: State | None) -> Page:
        with self._lock:
            self._waits += key in self._filling
            filling = self._filling.setdefault(key, threading.Lock())
        with filling:
            entry = self._entries.get(key)
            fresh = self._is_fresh(time.monotonic())
            if entry is not None and fresh and _is_new_enough(entry.page, at_least):
                return entry.page
            wanted = self._state if fresh else None
            if at_least is not None and (wanted is None or not wanted.includes(at_least)):
                wanted = at_least
            began = time.monotonic()
            page = None
            try:
                page = self._source.fetch(key, wanted)
            finally:
                with self._lock:
                    self._filling.pop(key, None)
                    self._failures += page is None
                    self._fetching_s += time.monotonic() - began
            with self._lock:
                self._misses += 1
                kept = self._keep(_new_enough(page, at_least))
                self._entries[key].used_at = time.monotonic()
                return kept

    def _keep(self, page: Page) -> Page:
        """Put the page into the table unless a newer one is there; return the one that is there then."""
        now = time.monotonic()
        entry = self._entries.get(page.key)
        if entry is None:
            self._make_room(_held_bytes(page))
            self._entries[page.key] = entry = Entry(page, now)
            if self._is_fresh(now):
                self.hot[page.key.query] = entry
        elif entry.page.epoch == page.epoch and entry.page.generation > page.generation:
            return entry.page
        else:
            # No use of the page: while writes never end it would be refreshed for ever, for nobody.
            entry.show(page)
        return page

    def _make_room(self, size_bytes: int) -> None:
        total = sum(_held_bytes(entry.page) for entry in self._entries.values())
        for key, entry in sorted(self._entries.items(), key=lambda item: item[1].used_at):
            if len(self._entries) < self._pages_max and total + size_bytes <= self._bytes_max:
                return
            total -= _held_bytes(entry.page)
            self._drop(key)

    def _drop(self, key: PageKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            hits, not_modified = self._gone
            not_modified += entry.not_modified_before + entry.answers.not_modified_count
            self._gone = (hits + entry.hits - 1, not_modified)
            self._source.forget(key)
        self.hot.pop(key.query, None)

    def _is_fresh(self, now: float) -> bool:
        return now - self._learned_at <= _FRESH_S

    def _run(self) -> None:
        pause_s = self._poll_s
        while not self._stopping.wait(pause_s):
            pause_s = self._poll_s
            try:
                pause_s = min(pause_s, max(self._watch(), _PAUSE_MIN_S))
            except StoreUnavailable as ex:
                log.debug("nothing learned: %s", ex, extra={"event": "watcher.unavailable"})
            except Exception:
                # The watcher must outlive a bug in it: without it every page is refused after stale_max_s.
                log.exception("watcher failed", extra={"event": "watcher.failed"})
            with self._lock:
                self._set_hot()

    def _set_hot(self) -> None:
        if not self._is_fresh(time.monotonic()):
            self.hot.clear()
        elif len(self.hot) != len(self._entries):
            self.hot.update((key.query, entry) for key, entry in self._entries.items())

    def _watch(self) -> float:
        """Learn the state and refresh what is due. Return how soon the next page is due, infinity when none is."""
        state = self._states.learn(self._state)
        now = time.monotonic()
        with self._lock:
            for entry in self._entries.values():
                if entry.hits != entry.hits_noted:
                    entry.hits_noted, entry.used_at = entry.hits, now
        if state is None:
            return math.inf
        self._learned_at = now
        self._has_learned.set()
        if (
            self._state is None
            or state.epoch != self._state.epoch
            or state.generation > self._state.generation
        ):
            self._state = state
        return self._refresh(self._state, now)

    def _refresh(self, state: State, now: float) -> float:
        next_due = math.inf
        # Small ones first: they do not wait for a large one.
        for key, entry in sorted(self._entries.items(), key=lambda item: len(item[1].page.body)):
            if entry.page.state.includes(state):
                continue
            if now - entry.used_at > _IN_USE_S:
                with self._lock:
                    self._drop(key)
                continue
            if now >= entry.next_refresh:
                self._refresh_one(key, entry, state)
            if not entry.page.state.includes(state):
                next_due = min(next_due, entry.next_refresh)
        return next_due - time.monotonic()

    def _refresh_one(self, key: PageKey, entry: Entry, state: State) -> None:
        began = time.monotonic()
        try:
            page, again_s = self._source.refresh(key, state, entry.page.state)
        except StoreUnavailable:
            # The old page is the best there is; it is looked at again soon.
            entry.next_refresh = began + _FRESH_S
            with self._lock:
                self._failures += 1
                self._fetching_s += time.monotonic() - began
            return
        ended = time.monotonic()
        entry.next_refresh = ended + again_s
        if page is not None:
            with self._lock:
                self._refreshes += 1
                self._fetching_s += ended - began
                self._keep(page)


def _held_bytes(page: Page) -> int:
    return held_bytes(page.body) + held_bytes(page.gzip_body)


def _is_new_enough(page: Page, at_least: State | None) -> bool:
    return at_least is None or page.state.includes(at_least)


def _new_enough(page: Page, at_least: State | None) -> Page:
    if not _is_new_enough(page, at_least):
        # A replica behind the server that told the state, or a backup restored in between.
        raise StoreUnavailable("the page that was read is older than the state that was learned")
    return page
