"""Redis or Valkey: there, with room for our connections, keeping what it must keep, and a clock that agrees."""

from collections.abc import Iterator
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from config.settings import Settings
from scripts.doctor.checked import CONNECT_TIMEOUT_S, Checked, Clock, check_clock, ok, problem

# The page cache and the log's reader.
_WORKER_CONNECTIONS: Final = 4


def check_redis(settings: Settings, *, instances: int, workers: int, clock: Clock) -> Iterator[Checked]:
    """Check all of it. Blocks at most a few seconds a check. Raises nothing of redis-py's."""
    client: Any = Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    options = client.connection_pool.connection_kwargs
    place = f"Redis at {options.get('host') or options.get('path')}:{options.get('port', '')}".rstrip(":")
    try:
        info = client.info()
        yield ok("redis", f"{place} answers")
        yield from _check_memory(settings, info)
        if settings.command_log == "streams":
            yield from _check_durability(client, info)
        yield from _check_connections(settings, info, instances, workers)
        yield from check_clock("clock of Redis", place, lambda: _time(client), clock)
    except RedisError as ex:
        yield problem(
            "redis",
            f"{place} does not serve us: {ex}",
            "Start Redis or Valkey, or correct REDIS_URL: host, port, user, password.",
        )
    finally:
        client.close()


def _check_memory(settings: Settings, info: dict[str, Any]) -> Iterator[Checked]:
    policy, limit = str(info["maxmemory_policy"]), int(info["maxmemory"])
    said = f"maxmemory is {limit or 'not set'}, the policy {policy}"
    if settings.command_log == "streams" and policy != "noeviction":
        yield problem(
            "memory of Redis",
            f"{said}: commands that were answered 202 may be evicted before they are applied",
            "Set maxmemory-policy to noeviction on the server that holds the command log.",
        )
    elif settings.command_log == "kafka" and limit and policy == "noeviction":
        yield problem(
            "memory of Redis",
            f"{said}: once it is full, no page and no generation can be written, and every process asks PostgreSQL",
            "Set maxmemory-policy to allkeys-lru: everything in this Redis can be made again.",
        )
    else:
        yield ok("memory of Redis", said)


def _check_durability(client: Any, info: dict[str, Any]) -> Iterator[Checked]:
    append_only = bool(int(info["aof_enabled"]))
    try:
        fsync = str(client.config_get("appendfsync").get("appendfsync", "not told"))
    except RedisError:
        # Managed servers do not let everybody read it.
        fsync = "not told"
    said = f"appendonly is {'yes' if append_only else 'no'}, appendfsync {fsync}"
    if append_only and fsync in ("always", "not told"):
        yield ok("durability of the log", said)
        return
    yield problem(
        "durability of the log",
        f"{said}: a command may be lost after its 202 when the server or its machine dies",
        "Set appendonly yes and appendfsync always on the server that holds the command log.",
    )


def _check_connections(
    settings: Settings, info: dict[str, Any], instances: int, workers: int
) -> Iterator[Checked]:
    # As in todo_api/app.py.
    per_instance = settings.processes * max(2, settings.redis_pool_size // settings.processes)
    wanted, room = instances * per_instance + workers * _WORKER_CONNECTIONS, int(info["maxclients"])
    said = f"{instances} API instance(s) and {workers} worker(s) may open {wanted} connections, Redis takes {room}"
    if wanted <= room:
        yield ok("connections to Redis", said)
    else:
        yield problem("connections to Redis", said, "Lower REDIS_POOL_SIZE, or raise maxclients.")


def _time(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6
