"""What pages cost and who asks past them: both sides of the page table, measured."""

import time
from typing import Final

from todo_api import api_metrics as metrics
from todo_api.core.store import State
from todo_api.page_table import Fetches
from todo_api.pages import Page, PageKey, Pages, Refresh
from todo_api.telemetry import Telemetry

# Values of the label of PAGE_FETCH_SECONDS.
_MISS: Final = "miss"
_REFRESH: Final = "refresh"
_OWN: Final = "own"


class InstrumentedPages:
    """``Pages`` that count the requests for which a page that is there may not do."""

    def __init__(self, pages: Pages, telemetry: Telemetry) -> None:
        self._pages = pages
        self._telemetry = telemetry

    def get(self, key: PageKey, at_least: State | None = None) -> Page:
        if at_least is not None or key.user_id is not None:
            self._telemetry.slot.add(metrics.PAGE_BYPASSES)
        return self._pages.get(key, at_least)


class InstrumentedSource:
    """A source of pages that tells how long each took, and why it was fetched."""

    def __init__(self, source: Fetches, telemetry: Telemetry) -> None:
        self._source = source
        self._telemetry = telemetry

    def fetch(self, key: PageKey, wanted: State | None) -> Page:
        began = time.perf_counter()
        try:
            return self._source.fetch(key, wanted)
        finally:
            self._took(_MISS, began)

    def refresh(self, key: PageKey, wanted: State, held: State) -> Refresh:
        began = time.perf_counter()
        refresh = self._source.refresh(key, wanted, held)
        # None: there is no newer one yet, and it is looked for again in a moment.
        if refresh.page is not None:
            self._took(_REFRESH, began)
        return refresh

    def build(self, key: PageKey) -> Page:
        began = time.perf_counter()
        try:
            return self._source.build(key)
        finally:
            self._took(_OWN, began)

    def forget(self, key: PageKey) -> None:
        self._source.forget(key)

    def _took(self, reason: str, began: float) -> None:
        self._telemetry.slot.observe(
            metrics.PAGE_FETCH_SECONDS, reason, values=(time.perf_counter() - began,)
        )
