"""How far the workers are, as the API learns it from a real Redis (Valkey)."""

from collections.abc import Iterator

import pytest
import redis

from todo_api.core.cache import PageCache, Progress


@pytest.fixture
def cache(redis_url: str) -> Iterator[PageCache]:
    cache = PageCache(redis_url, pool_size=2, ttl_s=60)
    yield cache
    cache.close()


def test_nothing_is_known_before_a_worker_says_it(cache: PageCache) -> None:
    assert cache.progress(2) == Progress(None, None, None)


def test_the_lag_is_that_of_all_workers_once_each_partition_is_known(cache: PageCache) -> None:
    cache.publish_progress({0: 3}, (1_000_000, 50))
    assert cache.progress(2) == Progress(None, 1_000_000, 50)
    cache.publish_progress({1: 4}, None)
    assert cache.progress(2) == Progress(7, 1_000_000, 50)
    cache.publish_progress({0: 0}, None)
    assert cache.progress(2) == Progress(4, 1_000_000, 50)


def test_the_newest_command_of_any_worker_counts(cache: PageCache) -> None:
    cache.publish_progress({0: 0}, (2_000_000, 20))
    cache.publish_progress({1: 0}, (1_000_000, 10))
    assert cache.progress(2) == Progress(0, 2_000_000, 20)


def test_a_partition_that_nobody_has_told_of_for_a_while_is_not_known(
    cache: PageCache, redis_url: str
) -> None:
    cache.publish_progress({0: 1, 1: 2}, None)
    with redis.Redis.from_url(redis_url) as client:
        now_s, _ = client.time()
        client.hset("todos:progress", "1", f"{now_s - 6}:2")
    assert cache.progress(2).lag_commands is None


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


GARBAGE = [
    "",
    ":",
    "7",
    "7:",
    "x:y",
    "-1:2",
    "1:2:3",
    "9" * 40 + ":1",
    "\u0663:1",
    "1.5:2",
    "nan:1",
    b"\xff\xfe",
]


@pytest.mark.parametrize("value", GARBAGE)
def test_what_no_worker_published_is_unknown_and_harms_nothing(
    cache: PageCache, client: redis.Redis, value: str | bytes
) -> None:
    cache.publish_progress({0: 1}, None)
    client.hset("todos:progress", "1", value)
    client.hset("todos:progress", "newest", value)
    assert cache.progress(2) == Progress(None, None, None)
    cache.publish_progress({0: 1, 1: 2}, (1_000_000, 50))
    assert cache.progress(2) == Progress(3, 1_000_000, 50)
    # Nor does the cache rest, as it does when Redis is away.
    cache.ping()


def test_a_key_of_another_kind_is_unknown_and_is_replaced(cache: PageCache, client: redis.Redis) -> None:
    client.set("todos:progress", "no hash")
    assert cache.progress(1) == Progress(None, None, None)
    cache.ping()
    cache.publish_progress({0: 1}, (1_000_000, 50))
    assert cache.progress(1) == Progress(1, 1_000_000, 50)


def test_an_old_snapshot_is_not_believed_and_is_soon_overwritten(
    cache: PageCache, client: redis.Redis
) -> None:
    now_s, _ = client.time()
    client.hset(
        "todos:progress", mapping={"0": f"{now_s - 60}:9", "1": f"{now_s - 60}:9", "newest": "1000000:50"}
    )
    # The time of the last command is true, though not the last one any more; the lag is not known.
    assert cache.progress(2) == Progress(None, 1_000_000, 50)
    cache.publish_progress({0: 0, 1: 0}, (2_000_000, 60))
    assert cache.progress(2) == Progress(0, 2_000_000, 60)


def test_what_was_published_in_the_future_is_not_known(cache: PageCache, client: redis.Redis) -> None:
    now_s, _ = client.time()
    client.hset(
        "todos:progress", mapping={"0": f"{now_s + 60}:9", "newest": f"{(now_s + 86_400) * 1_000_000}:1"}
    )
    assert cache.progress(1) == Progress(None, None, None)
    cache.publish_progress({0: 3}, (1_000_000, 50))
    assert cache.progress(1) == Progress(3, 1_000_000, 50)


def test_partitions_that_the_log_does_not_have_do_not_count(cache: PageCache) -> None:
    cache.publish_progress({0: 1, 2: 10, 3: 10}, None)
    assert cache.progress(2).lag_commands is None
    cache.publish_progress({1: 2}, None)
    assert cache.progress(2).lag_commands == 3
