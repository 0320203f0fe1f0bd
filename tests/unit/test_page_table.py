"""The page table without servers: in which order and how soon the watcher refreshes. The rest is in integration/."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from scripts.stack.server import wait_until
from todo_api.core.errors import StoreUnavailable
from todo_api.core.store import State
from todo_api.page_table import PageTable
from todo_api.pages import Page, PageKey, Refresh

SMALL, MIDDLE, LARGE = PageKey(1), PageKey(100), PageKey(None)


class Todos:
    """The state and pages of it. For ``busy_looks`` looks at a page another process is building it.

    After each refresh a page rests for ``rest_s``.
    """

    def __init__(self) -> None:
        self.generation = 1
        self.busy_looks = 0
        self.rest_s = 0.0
        self.is_away = False
        # Fetches wait for it.
        self.is_there = threading.Event()
        self.is_there.set()
        self.fetches = 0
        self.refreshed: list[PageKey] = []
        self.forgotten: list[PageKey] = []

    def learn(self, _known: State | None) -> State:
        if self.is_away:
            raise StoreUnavailable("away")
        return State("e", self.generation)

    def fetch(self, key: PageKey, _wanted: State | None) -> Page:
        self.fetches += 1
        assert self.is_there.wait(10)
        if self.is_away:
            raise StoreUnavailable("away")
        return self.build(key)

    def refresh(self, key: PageKey, wanted: State, held: State) -> Refresh:
        assert not held.includes(wanted)
        if self.busy_looks > 0:
            self.busy_looks -= 1
            return Refresh(None, 0.01)
        self.refreshed.append(key)
        return Refresh(self.build(key), self.rest_s)

    def forget(self, key: PageKey) -> None:
        self.forgotten.append(key)

    def build(self, key: PageKey) -> Page:
        return Page(key, "e", self.generation, b" " * (key.limit or 1000), b"", '"tag"', None)


@contextmanager
def watched(todos: Todos, *, poll_s: float = 0.01, pages_max: int = 8) -> Iterator[PageTable]:
    table = PageTable(todos, todos, poll_s=poll_s, pages_max=pages_max, bytes_max=10_000, stale_max_s=300.0)
    table.start()
    try:
        yield table
    finally:
        table.stop(5)


def test_small_pages_are_refreshed_before_large_ones() -> None:
    todos = Todos()
    with watched(todos) as table:
        for key in (LARGE, SMALL, MIDDLE):
            table.get(key)
        todos.generation += 1
        wait_until(lambda: len(todos.refreshed) == 3, 5, "three refreshes")
    assert todos.refreshed == [SMALL, MIDDLE, LARGE]


def test_a_page_rests_between_refreshes_however_often_the_state_moves() -> None:
    todos = Todos()
    todos.rest_s = 0.1
    began = time.monotonic()

    def has_six_refreshes() -> bool:
        todos.generation += 1
        table.get(SMALL)
        return len(todos.refreshed) >= 6

    with watched(todos) as table:
        wait_until(has_six_refreshes, 30, "six refreshes")
    # A busy machine makes them fewer, never more.
    assert time.monotonic() - began >= 5 * todos.rest_s


def test_a_page_that_another_process_is_building_is_looked_for_more_often_than_the_state() -> None:
    todos = Todos()
    with watched(todos, poll_s=0.5) as table:
        table.get(SMALL)
        wait_until(lambda: table.state is not None, 5, "the watcher's first news")
        todos.busy_looks = 50
        todos.generation += 1
        # With a look at each poll it would take 25 s.
        wait_until(lambda: table.get(SMALL).generation == 2, 15, "the page of the other process")
    assert todos.busy_looks == 0


def test_a_page_that_nobody_asks_for_is_not_refreshed_for_ever_while_the_state_moves() -> None:
    todos = Todos()

    def is_gone() -> bool:
        todos.generation += 1
        table.get(SMALL)
        return table.figures().pages == 1

    with watched(todos) as table:
        table.get(LARGE)
        wait_until(is_gone, 30, "the page that nobody asked for is dropped")
    assert LARGE in todos.refreshed
    assert todos.forgotten == [LARGE]


def test_what_is_kept_for_a_page_goes_with_it() -> None:
    todos = Todos()
    with watched(todos, pages_max=2) as table:
        for key in (LARGE, SMALL, MIDDLE):
            table.get(key)
    assert todos.forgotten == [LARGE]


def test_requests_that_wait_for_the_fetch_of_another_are_counted_and_fetch_nothing() -> None:
    todos = Todos()
    with watched(todos) as table, ThreadPoolExecutor(3) as pool:
        wait_until(lambda: table.state is not None, 5, "the watcher's first news")
        todos.is_there.clear()
        answers = [pool.submit(table.get, SMALL)]
        wait_until(lambda: todos.fetches == 1, 5, "the first is fetching")
        answers += [pool.submit(table.get, SMALL) for _ in range(2)]
        wait_until(lambda: table.figures().waits == 2, 5, "two wait")
        todos.is_there.set()
        assert [answer.result(5).key for answer in answers] == [SMALL] * 3
        figures = table.figures()
    assert (todos.fetches, figures.waits, figures.misses, figures.failures) == (1, 2, 1, 0)
    assert figures.fetching_s > 0


def test_what_could_not_be_had_and_what_is_overdue_is_counted() -> None:
    todos = Todos()
    with watched(todos) as table:
        table.get(SMALL)
        wait_until(lambda: table.state is not None, 5, "the watcher's first news")
        before = table.figures()
        todos.is_away = True
        with pytest.raises(StoreUnavailable):
            table.get(MIDDLE)
        assert table.figures().failures == before.failures + 1
        wait_until(lambda: table.get(SMALL).age_s > 0, 10, "the page is overdue")
        after = table.figures()
    assert after.overdue > before.overdue == 0
    assert after.misses == before.misses
    assert after.fetching_s > before.fetching_s
