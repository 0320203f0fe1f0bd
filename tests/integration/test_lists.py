"""Filtered and unfiltered lists from a real PostgreSQL: what they hold, and how little they look at."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import psycopg
import pytest

from scripts.verbs.seed import insert_seed
from todo_api.core.ids import uuid7
from todo_api.core.store import Cursor, ReadStore

USERS = ("ann", "bob", "carol")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Lists(NamedTuple):
    """A store, and the todos in it, newest first, as (id, user, completed)."""

    store: ReadStore
    todos: list[tuple[str, str, bool]]
    database_url: str

    def walk(self, limit: int, **filters: Any) -> Iterator[list[str]]:
        """Yield the ids on each page, to the last."""
        after: Cursor | None = None
        while True:
            rows = self.store.read_page(limit, after, **filters)
            yield [todo["id"] for todo in json.loads(rows.body)]
            after = rows.next_cursor
            if after is None:
                return

    def expected(self, user_id: str | None, completed: bool | None) -> list[str]:
        return [
            todo_id
            for todo_id, user, done in self.todos
            if user_id in (None, user) and completed in (None, done)
        ]


@pytest.fixture(scope="module")
def lists(module_database_url: str) -> Iterator[Lists]:
    """4,000 todos, the newest 3,000 completed; some made at the same moment."""
    chance = random.Random(7)
    rows = [
        (uuid7(), chance.choice(USERS), number >= 1_000, START + timedelta(seconds=number // 3))
        for number in range(4_000)
    ]
    with psycopg.connect(module_database_url) as connection:
        with connection.cursor().copy(
            "copy todos (id, user_id, title, description, completed, created_at, updated_at, source, source_offset)"
            " from stdin"
        ) as copy:
            for todo_id, user, done, at in rows:
                copy.write_row((todo_id, user, "milk", "", done, at, at, 1, 1))
        connection.execute("analyze todos")
    rows.sort(key=lambda row: (row[3], row[0]), reverse=True)
    store = ReadStore(module_database_url, pool_size=1)
    store.start()
    yield Lists(store, [(str(row[0]), row[1], row[2]) for row in rows], module_database_url)
    store.stop(1)


FILTERS = [
    {"user_id": user_id, "completed": completed}
    for user_id, completed in product((None, "ann", "nobody"), (None, True, False))
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_the_pages_of_a_list_together_are_the_list(
    lists: Lists, filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todo_api.core.store._EXAMINED", 1_100)
    for limit in (1_000, 137):
        pages = list(lists.walk(limit, **filters))
        assert [todo_id for page in pages for todo_id in page] == lists.expected(**filters)
        assert all(len(page) <= limit for page in pages)


def test_a_filtered_page_looks_at_so_many_todos_and_the_next_goes_on_behind_them(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todo_api.core.store._EXAMINED", 1_100)
    pages = list(lists.walk(100, completed=False))
    # 3,000 completed ones come first: two pages are empty, the third ends 300 todos behind them.
    assert [len(page) for page in pages] == [0, 0, *[100] * 10]


def test_without_a_filter_only_the_last_page_may_be_short(lists: Lists) -> None:
    assert [len(page) for page in lists.walk(999)] == [999, 999, 999, 999, 4]
    assert [len(page) for page in lists.walk(1_000)] == [1_000] * 4


def scanned(node: dict[str, Any]) -> int:
    """How many rows of tables the plan looked at, beyond the two tiny ones."""
    own = 0
    if node.get("Relation Name") == "todos":
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(scanned(child) for child in node.get("Plans", []))


@pytest.mark.parametrize("depth", [0, 3_500])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_page_looks_at_few_rows_however_deep_it_is(
    lists: Lists, filters: dict[str, Any], depth: int
) -> None:
    todo_id = lists.todos[depth][0]
    with psycopg.connect(lists.database_url) as connection:
        found = connection.execute("select created_at, id from todos where id = %s", (todo_id,)).fetchone()
        assert found is not None
        parameters = filters | {"rows": 10, "after_at": found[0], "after_id": found[1], "examined": 50}
        explain = b"explain (analyze, format json) " + lists.store._read_page
        # As often as it takes a server to prefer one plan for all parameters, if it may.
        for _ in range(7):
            plan = connection.execute(explain, parameters, prepare=False).fetchone()
        assert plan is not None
    assert scanned(plan[0][0]["Plan"]) <= 300, "of 4,000; every third is one user's"


class ExplainingStore(ReadStore):
    """Keeps the plan of each statement it runs."""

    plan: dict[str, Any]

    def _row(self, statement: bytes, parameters: dict[str, Any], *, prepare: bool = True) -> Any:
        explained = super()._row(b"explain (analyze, format json) " + statement, parameters, prepare=prepare)
        self.plan = explained[0][0]["Plan"]
        return super()._row(statement, parameters, prepare=prepare)


def test_a_page_looks_at_few_rows_before_there_are_statistics(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        insert_seed(connection, "ann", range(3_000))
    store = ExplainingStore(database_url, pool_size=1)
    store.start()
    try:
        assert len(json.loads(store.read_page(10, None).body)) == 10
        assert scanned(store.plan) <= 11, "of 3,000"
    finally:
        store.stop(1)


def test_a_list_that_is_known_is_read_again_where_it_changed(database_url: str) -> None:
    store = ReadStore(database_url, pool_size=1)
    store.start()
    newest = "select id from todos order by created_at desc, id desc limit"
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            known = store.read_list(40, None)
            assert not known.rows

            def read_after(statement: str) -> list[str]:
                """Return the titles of the todos that were read for the list after this."""
                nonlocal known
                connection.execute(statement)
                before, known = known, store.read_list(40, known)
                page = store.read_page(40, None)
                assert b"[" + b",".join(known.rows.values()) + b"]" == page.body
                assert (known.state, known.next_cursor) == (page.state, page.next_cursor)
                kept = set(map(id, before.rows.values()))
                return [json.loads(row)["title"] for row in known.rows.values() if id(row) not in kept]

            insert_seed(connection, "ann", range(50))
            assert len(read_after("select")) == 40
            assert read_after("select") == []
            assert read_after(f"update todos set title = 'new' where id = ({newest} 1)") == ["new"]
            assert len(read_after(f"delete from todos where id = ({newest} 1)")) == 1, "one that moved up"
            assert known.next_cursor is not None
            assert read_after(f"update todos set title = 'new' where id not in ({newest} 40)") == []
            assert len(read_after("update epoch set id = 'restored'")) == 40, (
                "versions of another history say nothing"
            )
            assert len(read_after(f"delete from todos where id in ({newest} 15)")) == 9
            assert known.next_cursor is None
            assert read_after("delete from todos") == []
    finally:
        store.stop(1)
