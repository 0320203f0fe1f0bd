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
