"""Redis (or Valkey): the published generation and the bytes of pages. Losing all of it costs time, never truth.

So nothing of it needs to outlive the server or to be on its replicas, and every script says so (``REPL_NONE``): an old
generation or page could only mislead, and on a server that keeps a log of commands each write would be fsynced first.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple, cast
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from todo_api.core.errors import CacheUnavailable
from todo_api.core.store import State

_GENERATION_KEY: Final = "todos:generation"
# The worker publishes every second. A key that ran out says that nobody does: ask PostgreSQL instead.
_GENERATION_TTL_MS: Final = 5_000
_PROGRESS_KEY: Final = "todos:progress"
_PROGRESS_BELIEVED_S: Final = 5
# No clock that issues commands is further ahead of the server's.
_AHEAD_MAX_S: Final = 3_600
_PROGRESS: Final = re.compile(rb"(\d{1,18}):(\d{1,18})", re.ASCII)
# Without a bound and with its 10 retries redis-py blocks for a minute on a frozen server.
_TIMEOUT_S: Final = 0.25
# After a failure nobody waits for Redis again for this long, so that a hung one costs a request 0.25 s at most once.
_REST_S: Final = 1.0

# PERF: on a server with ``appendfsync always`` a page of 10,000 todos is written in 0.3 ms of its CPU, and a lock taken
# in 0.1 ms; with the append-only file each takes 5 ms or more, during which the server answers nobody.
_NOT_KEPT: Final = "redis.set_repl(redis.REPL_NONE)\n"

# Within an epoch the generation only rises, whatever arrives late. Another epoch replaces it.
_PUBLISH: Final = f"""{_NOT_KEPT}
local epoch, generation = string.match(redis.call('GET', KEYS[1]) or '', '^(.*):(%d+)$')
if epoch == ARGV[1] and tonumber(generation) > tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
"""

# One key a page, whose value only gets newer: a key a generation would leave 300 s of dead pages behind.
_WRITE_PAGE: Final = f"""{_NOT_KEPT}
local old = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
if old[1] == ARGV[1] and tonumber(old[2]) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[2], 'gzip', ARGV[3], 'next', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
"""

# What a process that wants a page does, in one round trip: take it, build it, or wait. It is sent only when it is newer
# than what the process holds: an old one is not worth its way.
_RESTS: Final = "rests"
_TAKE_TURN: Final = f"""{_NOT_KEPT}
local epoch, held, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
local has = now[1] == epoch and tonumber(now[2]) or -1
local function page()
    return has > held and redis.call('HMGET', KEYS[1], 'generation', 'gzip', 'next')
end
if has >= wanted then return {{'', 0, page()}} end
local filler = redis.call('GET', KEYS[2])
local is_free = not filler or (filler == '{_RESTS}' and ARGV[6] == '')
if is_free and ARGV[4] ~= '' then
    redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
    return {{'fill', 0, false}}
end
local rests = filler == '{_RESTS}'
return {{filler and not rests and 'wait' or '', rests and redis.call('PTTL', KEYS[2]) or 0, page()}}
"""
_END_TURN: Final = f"""{_NOT_KEPT}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], '{_RESTS}', 'PX', ARGV[2])
return 1
"""

# By the server's clock: those of the workers and of the API may differ. The newest command only gets newer, whichever
# worker applied it. What is there and cannot be is replaced: an error here would keep the worker from Redis altogether.
_PUBLISH_PROGRESS: Final = f"""{_NOT_KEPT}
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local now = redis.call('TIME')[1]
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], now .. ':' .. ARGV[i + 1]) end
local newest = tonumber(string.match(redis.call('HGET', KEYS[1], 'newest') or '', '^(%d+):%d+$'))
local most = (tonumber(now) + {_AHEAD_MAX_S}) * 1000000
if ARGV[1] ~= '0' and (not newest or newest < tonumber(ARGV[1]) or newest > most) then
    redis.call('HSET', KEYS[1], 'newest', ARGV[1] .. ':' .. ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], 86400000)
"""


class Progress(NamedTuple):
    """How far the workers are, all of them.

    ``lag_commands`` is None unless each partition's was published within 5 s. ``issued_at_us`` is when the newest of
    all applied commands was accepted (microseconds of the epoch), ``delay_us`` how long it took to be applied.
    """

    lag_commands: int | None
    issued_at_us: int | None
    delay_us: int | None


class CachedPage(NamedTuple):
    """``next_after`` is the cursor of the following page, None on the last."""

    generation: int
    gzip_body: bytes
    next_after: str | None


class Turn(NamedTuple):
    """What a process may do about a page, see ``PageCache.take_turn``.

    ``page`` is newer than the one held, None when there is no such page. With ``token`` it is ours to build the page
    and to ``end_turn``. While ``is_filling`` another process builds it; for ``rest_s`` none shall.
    """

    page: CachedPage | None
    token: str | None
    is_filling: bool
    rest_s: float


class PageCache:
    """Redis as this process uses it, through a pool of its own. Connects when first used.

    Every call blocks at most 0.25 s a wait and raises CacheUnavailable when Redis is away; for a second after that
    it raises at once.
    """

    def __init__(self, redis_url: str, *, pool_size: int, ttl_s: int) -> None:
        self._ttl_ms = ttl_s * 1000
        self._resting_until = 0.0
        self._redis = redis.Redis.from_url(
            redis_url,
            max_connections=max(2, pool_size),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._publish = self._redis.register_script(_PUBLISH)
        self._write_page = self._redis.register_script(_WRITE_PAGE)
        self._take_turn = self._redis.register_script(_TAKE_TURN)
        self._end_turn = self._redis.register_script(_END_TURN)
        self._publish_progress = self._redis.register_script(_PUBLISH_PROGRESS)

    def close(self) -> None:
        self._redis.close()

    def publish(self, epoch: str, generation: int) -> None:
        """Make (epoch, generation) known to every API process, unless a newer one of the epoch is."""
        with self._translated():
            self._publish(keys=[_GENERATION_KEY], args=[epoch, generation, _GENERATION_TTL_MS])

    def state(self) -> State | None:
        """Return the published state, or None when nobody has published one for 5 s."""
        with self._translated():
            value = cast("bytes | None", self._redis.get(_GENERATION_KEY))
        epoch, separator, generation = (value or b"").decode(errors="replace").rpartition(":")
        return State(epoch, int(generation)) if separator and generation.isdecimal() else None

    def publish_progress(self, lag_commands: Mapping[int, int], newest: tuple[int, int] | None) -> None:
        """Make known how many commands each of these partitions still has to apply, and the newest applied command:
        when it was issued and how long it took (see Progress)."""
        with self._translated():
            pairs = [text for pair in lag_commands.items() for text in pair]
            self._publish_progress(keys=[_PROGRESS_KEY], args=[*(newest or (0, 0)), *pairs])

    def progress(self, partitions: int) -> Progress:
        """Return what the workers published; ``partitions`` is how many the log has.

        Values that no worker of ours can have published, or not lately, count as unknown.
        """
        with self._translated(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(_PROGRESS_KEY)
            # A key of another kind is an error of Redis's, and no reason to leave Redis alone for a second.
            moment, fields = pipeline.execute(raise_on_error=False)
            if isinstance(moment, Exception):
                raise moment
        if not isinstance(fields, dict):
            return Progress(None, None, None)
        now_s = moment[0]
        # Others may be there: of a log that had more partitions.
        told = [_two_numbers(fields.get(b"%d" % partition)) for partition in range(partitions)]
        fresh = [pair[1] for pair in told if pair and 0 <= now_s - pair[0] <= _PROGRESS_BELIEVED_S]
        newest = _two_numbers(fields.get(b"newest"))
        if newest and not 0 < newest[0] <= (now_s + _AHEAD_MAX_S) * 1_000_000:
            newest = None
        return Progress(sum(fresh) if len(fresh) == partitions else None, *(newest or (None, None)))

    def take_turn(
        self, name: str, wanted: State, *, held: int, life_ms: int, may_fill: bool, may_rest: bool
    ) -> Turn:
        """Return the page, if one of the wanted epoch is there that is newer than the generation ``held`` (-1: none).

        Unless it is of the wanted generation, or a newer one, this process becomes the one in the fleet that builds
        it, for ``life_ms`` at most: when no other does, it ``may_fill``, and the page does not rest or it may not.
        """
        token = uuid4().hex if may_fill else ""
        with self._translated():
            what, rest_ms, row = cast(
                "tuple[bytes, int, list[bytes | None] | None]",
                self._take_turn(
                    keys=[f"todos:page:{name}", f"todos:fill:{name}"],
                    args=[wanted.epoch, held, wanted.generation, token, life_ms, "may" if may_rest else ""],
                ),
            )
        page = None
        if row:
            generation, gzip_body, next_after = row
            if generation is not None and gzip_body is not None and next_after is not None:
                page = CachedPage(int(generation), gzip_body, next_after.decode() or None)
        return Turn(page, token if what == b"fill" else None, what == b"wait", max(rest_ms, 0) / 1000)

    def end_turn(self, name: str, token: str, rest_s: float = 0.0) -> None:
        """Let others build the page, ``rest_s`` from now."""
        with self._translated():
            self._end_turn(keys=[f"todos:fill:{name}"], args=[token, int(rest_s * 1000)])

    def write_page(self, name: str, epoch: str, page: CachedPage) -> None:
        """Keep the page for the others, unless a newer one is there."""
        with self._translated():
            self._write_page(
                keys=[f"todos:page:{name}"],
                args=[epoch, page.generation, page.gzip_body, page.next_after or "", self._ttl_ms],
            )

    def ping(self) -> None:
        """Return if Redis answers."""
        with self._translated():
            self._redis.ping()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if time.monotonic() < self._resting_until:
            raise CacheUnavailable("Redis failed a moment ago")
        try:
            yield
        except (redis.RedisError, OSError) as ex:
            self._resting_until = time.monotonic() + _REST_S
            raise CacheUnavailable(f"Redis: {ex}") from ex


def _two_numbers(value: bytes | None) -> tuple[int, int] | None:
    found = _PROGRESS.fullmatch(value or b"")
    return (int(found[1]), int(found[2])) if found else None
