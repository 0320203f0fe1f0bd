"""The page table against a real Redis (Valkey) and PostgreSQL, whole and broken."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from scripts.stack.server import wait_until
from tests.support.commands import create
from todo_api.core.cache import CachedPage, PageCache, Turn
from todo_api.core.command_log import Position
from todo_api.core.errors import NotYetApplied, StoreUnavailable
from todo_api.core.store import Cursor, PageRows, ReadStore, State
from todo_api.cursors import CursorSigner
from todo_api.page_source import REFRESH_EVERY_S, PageSource, StateSource
from todo_api.page_table import PageTable
from todo_api.pages import PageKey
from todo_worker.applier import Applier, PartitionBatch, Progress

FIRST = PageKey(10)
SIGNER = CursorSigner(b"k" * 32)


class CountingStore(ReadStore):
    page_reads = 0

    def read_page(self, limit: int, after: Cursor | None, **filters: Any) -> PageRows:
        self.page_reads += 1
        return super().read_page(limit, after, **filters)


class Process:
    """What one API process has, and the worker beside it."""

    def __init__(self, database_url: str, redis_url: str, **options: Any) -> None:
        self.store = CountingStore(database_url, pool_size=2)
        self.cache = PageCache(redis_url, pool_size=4, ttl_s=60)
        self.applier = Applier(database_url, log="test", idempotency_hours=24)
        settings = {"poll_s": 0.01, "pages_max": 8, "bytes_max": 1_000_000, "stale_max_s": 300.0} | options
        self.table = PageTable(
            StateSource(self.cache, self.store, store_poll_s=0.05),
            PageSource(self.cache, self.store, SIGNER, list_max=1000),
            **settings,
        )

    def write(self, title: str, *, user: str = "ann", publish: bool = True) -> None:
        """Do what the worker does with one command."""
        start = self.applier.progress([0])[0]
        end = Progress(start.next_offset + 1, 0)
        command = create(title=title, user=user, at_s=start.next_offset)
        self.applier.apply([PartitionBatch(0, start, end, [(start.next_offset, command)])])
        if publish:
            self.cache.publish(*self.applier.state())

    def titles(self, key: PageKey = FIRST) -> list[str]:
        return [todo["title"] for todo in json.loads(self.table.get(key).body)]

    def knows_the_state(self) -> bool:
        return bool(self.table.hot)

    def shows(self, *titles: str) -> Callable[[], bool]:
        return lambda: self.titles() == list(titles)


@contextmanager
def running(database_url: str, redis_url: str, **options: Any) -> Iterator[Process]:
    process = Process(database_url, redis_url, **options)
    process.store.start()
    process.table.start()
    try:
        yield process
    finally:
        process.table.stop(5)
        process.store.stop(1)
        process.cache.close()
        process.applier.close()


@contextmanager
def two_settled(database_url: str, redis_url: str) -> Iterator[tuple[Process, Process]]:
    """Two processes that show the one todo there is, whose title is ``first``."""
    with running(database_url, redis_url) as one, running(database_url, redis_url) as other:
        one.write("first")
        for process in (one, other):
            wait_until(process.shows("first"), 5, "first todo")
            wait_until(process.knows_the_state, 5, "the watcher's first news")
        yield one, other


def test_a_page_follows_the_table_and_is_read_from_postgresql_once_per_state(
    database_url: str, redis_url: str
) -> None:
    with two_settled(database_url, redis_url) as (one, other):
        settled = one.store.page_reads + other.store.page_reads
        one.write("b")
        for process in (one, other):
            wait_until(process.shows("b", "first"), 5, "second todo")
        assert one.store.page_reads + other.store.page_reads == settled + 1


def test_while_writes_never_end_a_page_is_built_ten_times_a_second_at_most_by_all_processes_together(
    database_url: str, redis_url: str
) -> None:
    with two_settled(database_url, redis_url) as (one, other):
        began, reads = time.monotonic(), one.store.page_reads + other.store.page_reads
        shown: dict[Process, set[int]] = {one: set(), other: set()}

        def have_shown_six() -> bool:
            one.write("another")
            for process, generations in shown.items():
                generations.add(process.table.get(FIRST).generation)
            return all(len(generations) > 6 for generations in shown.values())

        wait_until(have_shown_six, 30, "six pages in each process")
        built = one.store.page_reads + other.store.page_reads - reads
    # One may be under way, and a busy machine makes them fewer, never more.
    assert built <= (time.monotonic() - began) / REFRESH_EVERY_S + 1


def test_while_redis_is_away_a_process_builds_a_page_ten_times_a_second_at_most(database_url: str) -> None:
    with running(database_url, "redis://127.0.0.1:1") as process:
        process.write("first", publish=False)
        wait_until(process.shows("first"), 5, "first todo")
        began, reads = time.monotonic(), process.store.page_reads
        shown: set[int] = set()

        def has_shown_six() -> bool:
            process.write("another", publish=False)
            shown.add(process.table.get(FIRST).generation)
            return len(shown) > 6

        wait_until(has_shown_six, 30, "six pages")
        built = process.store.page_reads - reads
    assert built <= (time.monotonic() - began) / REFRESH_EVERY_S + 1


def test_who_may_build_a_page_is_one_at_a_time_and_nobody_while_it_rests(redis_url: str) -> None:
    cache = PageCache(redis_url, pool_size=2, ttl_s=60)
    state = State("epoch", 7)

    def turn(*, held: int = 5, may_fill: bool = True, may_rest: bool = True) -> Turn:
        return cache.take_turn("10:", state, held=held, life_ms=5_000, may_fill=may_fill, may_rest=may_rest)

    assert turn(may_fill=False) == Turn(None, None, False, 0.0), "nobody is at it"
    mine = turn().token
    assert mine is not None
    assert turn() == turn(may_fill=False) == turn(may_rest=False) == Turn(None, None, True, 0.0)
    cache.end_turn("10:", "another's token")
    assert turn().is_filling
    old = CachedPage(6, b"zipped", "next")
    cache.write_page("10:", "epoch", old)
    cache.end_turn("10:", mine, rest_s=60.0)
    resting = turn()
    assert resting[:3] == (old, None, False)
    assert 0 < resting.rest_s <= 60.0
    assert turn(held=6).page is None, "held already"
    second = turn(held=6, may_rest=False).token
    assert second is not None, "who cannot wait builds it"
    cache.end_turn("10:", second)
    third = turn(held=6)
    assert third.token is not None, "no rest after a turn that ends without"
    cache.write_page("10:", "epoch", CachedPage(7, b"zipped again", None))
    assert turn() == Turn(CachedPage(7, b"zipped again", None), None, False, 0.0), "as new as can be"
    other_epoch = cache.take_turn("10:", State("other", 1), held=-1, life_ms=1, may_fill=False, may_rest=True)
    assert other_epoch.page is None
    cache.close()


def test_a_page_in_use_is_answered_from_memory(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        wait_until(process.knows_the_state, 5, "the watcher's first news")
        reads = process.store.page_reads
        assert {process.table.get(FIRST).etag for _ in range(100)} == {process.table.get(FIRST).etag}
        assert process.store.page_reads == reads


def test_pages_go_on_where_the_cursor_says(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as process:
        for title in "abcde":
            process.write(title)
        wait_until(process.shows("e", "d", "c", "b", "a"), 5, "five todos")
        seen, key = [], PageKey(2)
        while True:
            seen += process.titles(key)
            after = process.table.get(key).next_after
            if after is None:
                break
            key = PageKey(2, after)
        assert seen == ["e", "d", "c", "b", "a"]


def test_a_filtered_page_is_kept_current_like_any_other(database_url: str, redis_url: str) -> None:
    open_ones, done = PageKey(10, completed=False), PageKey(10, completed=True)
    with running(database_url, redis_url) as process:
        process.write("a")
        wait_until(lambda: process.titles(open_ones) == ["a"], 5, "first todo")
        assert process.titles(done) == []
        wait_until(process.knows_the_state, 5, "the watcher's first news")
        assert "limit=10&completed=false" in process.table.hot
        process.write("b")
        wait_until(lambda: process.titles(open_ones) == ["b", "a"], 5, "second todo")
        assert process.table.get(open_ones).etag != process.table.get(FIRST).etag


@pytest.mark.parametrize("missing_max", [0, 1], ids=["all is read again", "what changed is read"])
def test_the_whole_list_is_refreshed_to_the_bytes_that_it_is_built_of(
    database_url: str, redis_url: str, missing_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("todo_api.core.store._MISSING_MAX", missing_max)
    everything = PageKey(None)
    with running(database_url, redis_url) as process:
        expected: list[str] = []
        for title in ("a", "b \u2028 \U0001f600", 'c "quoted"'):
            process.write(title)
            expected.insert(0, title)
            wait_until(lambda: process.titles(everything) == expected, 5, "the todo")
        process.write("d")
        wait_until(lambda: len(process.titles(everything)) == 4, 5, "the last todo")
        shown = process.table.get(everything)
        assert shown == process.table._source.build(everything)
        reads = process.store.page_reads
        process.write("e")
        wait_until(lambda: len(process.titles(everything)) == 5, 5, "a todo more")
        assert process.store.page_reads == reads, "the watcher read what changed, not the page"


def test_the_page_of_one_user_is_read_each_time_and_kept_nowhere(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as process:
        process.write("hers")
        process.write("his", user="bob")
        hers = PageKey(10, user_id="ann")
        page = process.table.get(hers)
        assert json.loads(page.body)[0]["title"] == "hers"
        process.write("his again", user="bob")
        assert process.table.get(hers).etag == page.etag, "what others write does not change it"
        process.write("hers again", publish=False)
        assert process.titles(hers) == ["hers again", "hers"]
        assert process.table.get(hers).etag != page.etag
        assert hers not in process.table._entries
        with redis.Redis.from_url(redis_url) as client:
            assert [key for key in client.keys("*") if b"ann" in key or b"me" in key] == []


def test_a_walk_leaves_nothing_in_redis(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as process:
        for title in "abc":
            process.write(title)
        wait_until(process.shows("c", "b", "a"), 5, "three todos")
        second = PageKey(1).following(process.table.get(PageKey(1)).next_after or "")
        assert process.titles(second) == ["b"]
        with redis.Redis.from_url(redis_url) as client:
            assert {key for key in client.keys("todos:page:*") if second.after.encode() in key} == set()


def test_every_process_makes_the_same_bytes_for_the_same_state(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as one:
        one.write("a")
        wait_until(one.shows("a"), 5, "first todo")
        first = one.table.get(FIRST)
        redis.Redis.from_url(redis_url).flushall()
        with running(database_url, redis_url) as other:
            assert other.table.get(FIRST) == first


def test_without_a_published_state_postgresql_is_asked(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url) as process:
        process.write("a", publish=False)
        wait_until(process.shows("a"), 5, "first todo")
        process.write("b", publish=False)
        wait_until(process.shows("b", "a"), 5, "second todo")


def test_a_page_that_must_include_a_write_is_read_again_when_it_is_older(
    database_url: str, redis_url: str
) -> None:
    # The watcher learns nothing here: what the table holds is as old as a page can be.
    with running(database_url, redis_url, poll_s=60.0) as process:
        process.write("a", publish=False)
        old = process.table.get(FIRST)
        process.table._learned_at = time.monotonic()
        process.write("b", publish=False)
        assert process.table.get(FIRST) is old
        position = Position("test", 0, 1)
        state = process.store.state_with([position])
        assert not old.state.includes(state)
        new = process.table.get(FIRST, state)
        assert [todo["title"] for todo in json.loads(new.body)] == ["b", "a"]
        assert process.table.get(FIRST, state) is process.table.get(FIRST) is new


def test_a_state_includes_a_command_only_when_its_own_partition_got_there(database_url: str) -> None:
    store = ReadStore(database_url, pool_size=1)
    store.start()
    applier = Applier(database_url, log="test", idempotency_hours=24)
    start = applier.progress([0, 1])
    commands = [(offset, create(at_s=offset)) for offset in range(3)]
    applier.apply([PartitionBatch(1, start[1], Progress(3, 0), commands)])
    todo_id = commands[0][1].todo_id
    try:
        assert store.state_with([Position("test", 1, 2)]) == store.state()
        assert store.read_todo(todo_id, [Position("test", 1, 0)]) is not None
        # Three commands are applied, none of them here.
        for missing in (
            Position("test", 1, 3),
            Position("test", 0, 0),
            Position("other", 1, 0),
            Position("test", 9, 0),
        ):
            for named in ([missing], [Position("test", 1, 0), missing]):
                with pytest.raises(NotYetApplied):
                    store.state_with(named)
                with pytest.raises(NotYetApplied):
                    store.read_todo(todo_id, named)
    finally:
        applier.close()
        store.stop(1)


@pytest.mark.faults
def test_with_redis_stopped_and_started_pages_stay_current(database_url: str, own_valkey: Any) -> None:
    with running(database_url, own_valkey.url) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        own_valkey.process.kill()
        process.write("b", publish=False)
        wait_until(process.shows("b", "a"), 5, "second todo")
        own_valkey.process.start()
        process.write("c", publish=False)
        wait_until(process.shows("c", "b", "a"), 5, "third todo")


@pytest.mark.faults
def test_a_redis_that_was_started_anew_remembers_no_page_and_no_state(own_valkey: Any) -> None:
    cache = PageCache(own_valkey.url, pool_size=2, ttl_s=60)
    cache.publish("epoch", 7)
    cache.write_page("10:", "epoch", CachedPage(7, b"zipped", None))
    assert cache.state() == State("epoch", 7)
    wanted = State("epoch", 7)
    turn = cache.take_turn("10:", wanted, held=6, life_ms=1_000, may_fill=True, may_rest=True)
    assert turn == Turn(CachedPage(7, b"zipped", None), None, False, 0.0)
    with redis.Redis.from_url(own_valkey.url) as client:
        client.set("a log", "is kept")
        own_valkey.process.kill()
        own_valkey.process.start()
        assert client.keys("*") == [b"a log"]
    cache.close()


@pytest.mark.faults
def test_with_redis_hung_pages_stay_current_and_no_late_write_takes_them_back(
    database_url: str, own_valkey: Any
) -> None:
    with running(database_url, own_valkey.url) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        own_valkey.process.freeze()
        process.write("b", publish=False)
        wait_until(process.shows("b", "a"), 10, "second todo")
        own_valkey.process.resume()
        for _ in range(50):
            assert process.titles() == ["b", "a"]


def test_an_old_snapshot_of_redis_does_not_take_a_page_back(database_url: str, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    with running(database_url, redis_url) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        old = {key: client.dump(key) or b"" for key in client.keys("todos:*")}
        process.write("b")
        wait_until(process.shows("b", "a"), 5, "second todo")
        for key, value in old.items():
            client.restore(key, 0, value, replace=True)
        learned = threading.Event()
        for _ in range(50):
            assert process.titles() == ["b", "a"]
            learned.wait(0.01)


def test_a_restored_database_with_a_new_epoch_replaces_pages_even_at_a_lower_generation(
    database_url: str, redis_url: str
) -> None:
    import psycopg

    with running(database_url, redis_url) as process:
        process.write("a")
        process.write("b")
        wait_until(process.shows("b", "a"), 5, "two todos")
        with psycopg.connect(database_url) as connection:
            connection.execute("update epoch set id = 'restored'")
            connection.execute("delete from todos where title = 'b'")
            connection.execute("update applied set next_offset = next_offset - 1")
        process.cache.publish(*process.applier.state())
        wait_until(process.shows("a"), 5, "the restored table")


@pytest.mark.faults
def test_with_postgresql_away_pages_in_use_are_served_and_others_are_unavailable(
    own_postgres: Any, redis_url: str
) -> None:
    with running(own_postgres.url, redis_url) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        own_postgres.process.kill()
        assert process.titles() == ["a"]
        with pytest.raises(StoreUnavailable):
            process.table.get(PageKey(7))
        own_postgres.process.start()

        def answers() -> bool:
            try:
                return process.titles(PageKey(7)) == ["a"]
            except StoreUnavailable:
                return False  # the pool tries again after 1, 2, 4 s

        wait_until(answers, 20, "the other page")


@pytest.mark.faults
def test_with_both_away_the_last_page_is_served_with_its_age_and_then_refused(
    own_postgres: Any, own_valkey: Any
) -> None:
    with running(own_postgres.url, own_valkey.url, stale_max_s=4.0) as process:
        process.write("a")
        wait_until(process.shows("a"), 5, "first todo")
        own_valkey.process.kill()
        own_postgres.process.kill()
        wait_until(lambda: process.table.get(FIRST).age_s >= 2, 10, "an age")
        assert process.titles() == ["a"]
        process.table.ping()

        def refused() -> bool:
            try:
                process.table.get(FIRST)
            except StoreUnavailable:
                return True
            return False

        wait_until(refused, 15, "refusal")
        with pytest.raises(StoreUnavailable, match="nothing learned about the todos for"):
            process.table.ping()
        own_postgres.process.start()
        wait_until(lambda: not refused() and process.table.get(FIRST).age_s == 0, 15, "recovery")


def test_no_pages_can_be_answered_before_the_first_news(database_url: str, redis_url: str) -> None:
    process = Process(database_url, redis_url)
    with pytest.raises(StoreUnavailable, match="yet"):
        process.table.ping()
    with running(database_url, redis_url) as process:
        wait_until(lambda: process.table.state is not None, 5, "the watcher's first news")
        process.table.ping()


def test_a_scan_of_limits_keeps_the_table_within_its_bounds(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url, pages_max=4) as process:
        process.write("a")
        for limit in range(1, 30):
            process.table.get(PageKey(limit))
        assert len(process.table._entries) <= 4
    with running(database_url, redis_url, bytes_max=3_000) as process:
        for limit in range(1, 30):
            process.table.get(PageKey(limit))
        sizes = [len(e.page.body) + len(e.page.gzip_body) for e in process.table._entries.values()]
        assert 0 < sum(sizes) <= 3_000
