"""Where a page comes from when the process does not have it: Redis, else PostgreSQL by one filler in the fleet."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Final

from isal import isal_zlib

from todo_api.core.cache import CachedPage, PageCache
from todo_api.core.errors import CacheUnavailable
from todo_api.core.store import Cursor, ListRows, PageRows, ReadStore, State
from todo_api.cursors import CursorSigner
from todo_api.pages import Page, PageKey

# Longer than a fill of LIST_MAX rows takes; a filler that died holds the others up no longer than this.
_FILL_LOCK_MS: Final = 1_000
# A request waits this long for another process to fill before it fills itself.
_PATIENCE_S: Final = 0.3
_LOOK_AGAIN_S: Final = 0.01
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

    def fetch(self, key: PageKey, wanted: State | None) -> Page:
        """Return the page at ``wanted`` or newer (None: as it is now).

        Blocks at most about 2 s. Raises StoreUnavailable when Redis does not have it and PostgreSQL does not answer.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while wanted is not None and time.monotonic() < deadline:
            page, someone_fills = self._try(key, wanted, self.build)
            if page is not None:
                return page
            if not someone_fills:
                break
            time.sleep(_LOOK_AGAIN_S)
        return self.build(key)

    def refresh(self, key: PageKey, wanted: State) -> Page | None:
        """Return the page at ``wanted`` or newer, or None while another process is building it.

        Blocks at most about 2 s. Raises StoreUnavailable.
        """
        page, someone_fills = self._try(key, wanted, self._rebuild)
        if page is not None or someone_fills:
            return page
        return self._rebuild(key)

    def forget(self, key: PageKey) -> None:
        """Give back what is kept for refreshing the page."""
        if key == _WHOLE_LIST:
            self._list = None

    def _try(self, key: PageKey, wanted: State, build: Callable[[PageKey], Page]) -> tuple[Page | None, bool]:
        """Return the page from Redis or, as the one filler, from PostgreSQL; and whether another one is filling.

        (None, False): Redis is away or not for this page, each process fills for itself.
        """
        if key.after:
            # Whoever walks through a long list would leave 300 s of pages in Redis that nobody asks for again.
            return None, False
        name = f"{key.limit or 'all'}:{key.filters}"
        try:
            cached = self._cache.read_page(name, wanted)
            if cached is not None:
                # PERF: 2 MB are inflated in 1.6 ms, without the GIL; written and read again they would take 7 ms.
                body = isal_zlib.decompress(cached.gzip_body, _GZIP_WINDOW_BITS)
                return _page(key, wanted.epoch, body, cached), False
            token = self._cache.try_lock(name, _FILL_LOCK_MS)
            if token is None:
                return None, True
        except CacheUnavailable:
            return None, False
        try:
            page = build(key)
            cached = CachedPage(page.generation, page.gzip_body, page.next_after)
            with contextlib.suppress(CacheUnavailable):
                self._cache.write_page(name, page.epoch, cached)
            return page, False
        finally:
            with contextlib.suppress(CacheUnavailable):
                self._cache.unlock(name, token)

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
