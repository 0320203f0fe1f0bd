"""Where a page comes from when the process does not have it: Redis, else PostgreSQL by one filler in the fleet."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Final

from isal import isal_zlib

from todo_api.core.cache import CachedPage, PageCache, Turn
from todo_api.core.errors import CacheUnavailable
from todo_api.core.store import Cursor, ListRows, PageRows, ReadStore, State
from todo_api.cursors import CursorSigner
from todo_api.pages import Page, PageKey, Refresh

# Longer than a fill of LIST_MAX rows takes; a filler that died holds the others up no longer than this.
_FILL_LOCK_MS: Final = 1_000
# A request waits this long for another process to fill before it fills itself.
_PATIENCE_S: Final = 0.3
_LOOK_AGAIN_S: Final = 0.01
# How soon it is looked for another process that may begin to build a page when this one shall not.
_LOOK_AROUND_S: Final = 0.025
# Refreshing one page takes a process at most a tenth of a core, and is under way in the fleet at most half of the time,
# ten times a second at most: see docs/adr/0018-what-a-refresh-may-take.md.
_CPU_SHARE: Final = 10
_TIME_SHARE: Final = 2
REFRESH_EVERY_S: Final = 0.1
# 31: a gzip header, whose time stamp isal leaves 0, so that every process makes the same bytes.
# PERF: a list of 10,000 todos (2.4 MB) takes 2.5 ms and becomes 323 kB; zlib level 1 takes 12.7 ms and makes 379 kB,
# zlib-ng level 3 takes 11.3 ms and makes 329 kB.
_GZIP_LEVEL: Final = 1
_GZIP_WINDOW_BITS: Final = 31
_WHOLE_LIST: Final = PageKey(None)


class PageSource:
    """Finds or builds pages. Used by request threads and the watcher of one process alike."""

    def __init__(self, cache: PageCache, store: ReadStore, cursors: CursorSigner, *, list_max: int) -> None:
        self._cache = cache
        self._store = store
        self._cursors = cursors
        self._list_max = list_max
        # Of the last refresh of the whole list. 4 MB for 10,000 todos, as long as the list is in use.
        self._list: ListRows | None = None
        # When this process may build a page again for its refresh.
        self._may_build_at: dict[PageKey, float] = {}

    def fetch(self, key: PageKey, wanted: State | None) -> Page:
        """Return the page at ``wanted`` or newer (None: as it is now).

        Blocks at most about 2 s. Raises StoreUnavailable when Redis does not have it and PostgreSQL does not answer.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while wanted is not None and time.monotonic() < deadline:
            # Nothing older than wanted, and no waiting while the page rests: a request is answered with what is true.
            turn = self._take_turn(key, wanted, held=wanted.generation - 1, may_fill=True, may_rest=False)
            if turn is None:
                break
            if turn.token is not None:
                return self._fill(key, turn.token, self.build)[0]
            if turn.page is not None:
                return _unpacked(key, wanted.epoch, turn.page)
            time.sleep(_LOOK_AGAIN_S)
        return self.build(key)

    def refresh(self, key: PageKey, wanted: State, held: State) -> Refresh:
        """Return a page that is newer than the one held, and may be older than ``wanted`` if it was built just now.

        Blocks at most about 2 s. Raises StoreUnavailable. Rationed: see the constants above.
        """
        began, cpu_began = time.monotonic(), time.thread_time()
        own_rest_s = self._may_build_at.get(key, 0.0) - began
        held_generation = held.generation if held.epoch == wanted.epoch else -1
        turn = self._take_turn(key, wanted, held=held_generation, may_fill=own_rest_s <= 0, may_rest=True)
        page, again_s = None, own_rest_s
        if turn is None:
            if own_rest_s <= 0:
                page = self._rebuild(key)
                again_s = _rest_s(began)
        elif turn.token is not None:
            page, again_s = self._fill(key, turn.token, self._rebuild, rests=True)
        else:
            if turn.page is not None:
                page = _unpacked(key, wanted.epoch, turn.page)
            again_s = _LOOK_AGAIN_S if turn.is_filling else turn.rest_s or _LOOK_AROUND_S
        cost_s = _CPU_SHARE * (time.thread_time() - cpu_began)
        self._may_build_at[key] = began + max(own_rest_s, 0.0) + cost_s
        return Refresh(page, again_s)

    def forget(self, key: PageKey) -> None:
        """Give back what is kept for refreshing the page."""
        self._may_build_at.pop(key, None)
        if key == _WHOLE_LIST:
            self._list = None

    def _take_turn(
        self, key: PageKey, wanted: State, *, held: int, may_fill: bool, may_rest: bool
    ) -> Turn | None:
        """Return None when each process builds the page for itself: Redis is away or not for this page."""
        if key.after:
            # Whoever walks through a long list would leave 300 s of pages in Redis that nobody asks for again.
            return None
        try:
            return self._cache.take_turn(
                _name(key), wanted, held=held, life_ms=_FILL_LOCK_MS, may_fill=may_fill, may_rest=may_rest
            )
        except CacheUnavailable:
            return None

    def _fill(
        self, key: PageKey, token: str, build: Callable[[PageKey], Page], *, rests: bool = False
    ) -> tuple[Page, float]:
        """Build the page and leave it in Redis; return it, and how long it rests then."""
        began, rest_s = time.monotonic(), 0.0
        try:
            page = build(key)
            with contextlib.suppress(CacheUnavailable):
                cached = CachedPage(page.generation, page.gzip_body, page.next_after)
                self._cache.write_page(_name(key), page.epoch, cached)
            rest_s = _rest_s(began) if rests else 0.0
            return page, rest_s
        finally:
            with contextlib.suppress(CacheUnavailable):
                self._cache.end_turn(_name(key), token, rest_s)

    def build(self, key: PageKey) -> Page:
        """Return the page as it is now, from PostgreSQL. Blocks at most about 1.5 s. Raises StoreUnavailable."""
        after: Cursor | None = self._cursors.decode(key.after, key.filters) if key.after else None
        rows = self._store.read_page(
            key.limit or self._list_max, after, user_id=key.user_id, completed=key.completed
        )
        return self._finish(key, rows)

    def _rebuild(self, key: PageKey) -> Page:
        """Do what ``build`` does. Of the whole list only the todos that changed since the last time are read."""
        if key != _WHOLE_LIST:
            return self.build(key)
        self._list = known = self._store.read_list(self._list_max, self._list)
        rows = list(known.rows.values()) or [b""]
        # PERF: joined with the brackets; around the finished list they would cost another copy of 2 MB.
        rows[0] = b"[" + rows[0]
        rows[-1] += b"]"
        return self._finish(key, PageRows(known.state, b",".join(rows), known.next_cursor))

    def _finish(self, key: PageKey, rows: PageRows) -> Page:
        next_after = self._cursors.encode(rows.next_cursor, key.filters) if rows.next_cursor else None
        gzip_body = isal_zlib.compress(rows.body, _GZIP_LEVEL, _GZIP_WINDOW_BITS)
        cached = CachedPage(rows.state.generation, gzip_body, next_after)
        return _page(key, rows.state.epoch, rows.body, cached)


class StateSource:
    """Learns the current state: from Redis, where the worker publishes it, else from PostgreSQL, less often."""

    def __init__(
        self,
        cache: PageCache,
        store: ReadStore,
        *,
        store_poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._store = store
        self._store_poll_s = store_poll_s
        self._clock = clock
        self._next_store_poll = 0.0

    def learn(self, known: State | None) -> State | None:
        """Return the current state, or None when it could not be learned now (or it is too early to ask again).

        Blocks at most about 2 s. Raises StoreUnavailable when both are away.
        """
        with contextlib.suppress(CacheUnavailable):
            published = self._cache.state()
            # Another epoch may be true, or an old snapshot that Redis was restored from: only PostgreSQL knows.
            if published is not None and known is not None and published.epoch == known.epoch:
                return published
        if self._clock() < self._next_store_poll:
            return None
        self._next_store_poll = self._clock() + self._store_poll_s
        return self._store.state()


def _rest_s(began: float) -> float:
    """Return how long a page rests whose building began then, and is over."""
    took_s = time.monotonic() - began
    return max(_TIME_SHARE * took_s, REFRESH_EVERY_S) - took_s


def _name(key: PageKey) -> str:
    return f"{key.limit or 'all'}:{key.filters}"


def _unpacked(key: PageKey, epoch: str, cached: CachedPage) -> Page:
    # PERF: 2 MB are inflated in 1.6 ms, without the GIL; written and read again they would take 7 ms.
    return _page(key, epoch, isal_zlib.decompress(cached.gzip_body, _GZIP_WINDOW_BITS), cached)


def _page(key: PageKey, epoch: str, body: bytes, cached: CachedPage) -> Page:
    return Page(
        key=key,
        epoch=epoch,
        generation=cached.generation,
        body=body,
        gzip_body=cached.gzip_body,
        etag=_etag(key, epoch, body, cached),
        next_after=cached.next_after,
    )


def _etag(key: PageKey, epoch: str, body: bytes, cached: CachedPage) -> str:
    if key.user_id is not None:
        # Read anew each time: what others write must not make it look new to its user.
        contents = hashlib.blake2b(body + (cached.next_after or "").encode(), digest_size=12)
        return f'"{contents.hexdigest()}"'
    which = f"{key.limit}:{key.after}:{key.filters}" if key.filters else f"{key.limit}:{key.after}"
    return f'"{epoch}.{cached.generation}.{hashlib.blake2b(which.encode(), digest_size=6).hexdigest()}"'
