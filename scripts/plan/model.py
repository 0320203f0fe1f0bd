"""The arithmetic of ``todo plan``. Pure: a load in, what it needs out. docs/scaling.md explains every step."""

from dataclasses import dataclass
from math import ceil
from typing import Final

from scripts.plan.figures import POSTGRES_CPU, WORKER_COMMANDS, WORKER_CPU, WRITE_COSTS
from scripts.plan.payload import Payload, api_us, nginx_us

# As in todo_api/page_source.py: refreshing a page takes a process a tenth of a core at most, and the
# fleet builds it ten times a second.
_REFRESH_SHARE: Final = 1 / 10
_REFRESHES_MAX: Final = 10
# Asks for the page or its turn to build it, which another has, and again a moment later, with a look at the generation;
# whoever builds it also writes it and ends the turn.
_REFRESH_OPERATIONS: Final = 3
_FILL_OPERATIONS: Final = 2
# The todo, and the command's id in seen or idempotency_keys. A delete has one more.
_ROWS_PER_WRITE: Final = 2
# One may fail, or be replaced, without anybody noticing.
_PODS_MIN: Final = 3
_WORKERS_MIN: Final = 2
_PARTITIONS_MIN: Final = 16
# Room to grow, as partitions cannot be added to a live topic.
_PARTITIONS_PER_WORKER: Final = 4
# Hot pages do not use PostgreSQL: more per process would only wait.
_POOL_PER_PROCESS_MAX: Final = 10
# As the chart counts them: a rollout has one pod and one worker more, a worker has two, and four go to the server
# itself and a Job.
_CONNECTIONS_PER_WORKER: Final = 2
_CONNECTIONS_RESERVED: Final = 4
# A create with a title of 30 characters, its key, its headers and Kafka's framing, not compressed.
RECORD_BYTES: Final = 400
# As in todo_worker/worker.py: a worker that has no backlog applies a batch at most so often.
_BATCHES_PER_S: Final = 40
_RETENTION_S: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of the system, and what it is made of.

    ``rps`` are reads a second, of which ``cached_share`` are answered by a cache in front; ``writes`` are a second too.
    ``headroom`` is the share of every core, worker and network card that is left free.
    """

    rps: float
    writes: float
    payload: Payload
    gzip_share: float = 1.0
    cached_share: float = 0.0
    client: str = "librdkafka"
    relay: bool = False
    processes_per_pod: int = 2
    headroom: float = 0.3
    nic_gbit: float = 10.0
    max_connections: int = 100
    poll_ms: int = 50
    batch_max: int = 2000

    @property
    def usable(self) -> float:
        return 1 - self.headroom

    @property
    def api_rps(self) -> float:
        """Reads a second that reach the API."""
        return self.rps * (1 - self.cached_share)

    @property
    def refreshes_max(self) -> float:
        """How often a second a page is made anew, however many writes there were."""
        return min(self.writes, 1000 / self.poll_ms, _REFRESHES_MAX)


@dataclass(frozen=True, slots=True)
class Api:
    """``write_processes``: as many as the CPU time of the writes takes, as a write that waits makes room for others."""

    cores: float
    read_processes: int
    write_processes: int
    pods: int
    processes: int


@dataclass(frozen=True, slots=True)
class Network:
    """``api_plain_gbit``: as ``api_gbit`` if nobody took gzip. ``clients_gbit`` has what caches answer in it."""

    api_gbit: float
    api_plain_gbit: float
    cards: int
    clients_gbit: float
    nginx_cores: float


@dataclass(frozen=True, slots=True)
class Redis:
    """For one hot page. ``page_to_all_ms``: for how long one new page for every process fills a network card."""

    operations_per_s: float
    pages_gbit_max: float
    page_to_all_ms: float


@dataclass(frozen=True, slots=True)
class Workers:
    """``pods_max``: as many as autoscaling may start to catch up."""

    pods: int
    pods_max: int
    cores: float


@dataclass(frozen=True, slots=True)
class Kafka:
    """``disk_gb`` is what 7 days take on each replica; ``cores`` are those of one broker."""

    partitions: int
    cores: float
    in_mbit: float
    disk_gb: float


@dataclass(frozen=True, slots=True)
class Postgres:
    """``pool_size`` is DB_POOL_SIZE of a pod; ``connections_min`` are those with one for each process.

    ``cores`` are for the worker's statements; ``pages_built_max`` is for one hot page.
    """

    pool_size: int
    connections: int
    connections_min: int
    pages_built_max: float
    rows_per_s: float
    commits_min: float
    commits_max: float
    cores: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load needs. Cores are those that are busy and the headroom; what ends in ``_max`` is never more."""

    load: Load
    api: Api
    network: Network
    redis: Redis
    workers: Workers
    kafka: Kafka
    postgres: Postgres


def needs(load: Load) -> Needs:
    """Return what the load needs."""
    api = _api(load)
    workers = max(_WORKERS_MIN, ceil(load.writes / (WORKER_COMMANDS.value * load.usable)))
    partitions = max(_PARTITIONS_MIN, _power_of_two(_PARTITIONS_PER_WORKER * workers))
    workers_max = min(partitions, 2 * workers)
    return Needs(
        load=load,
        api=api,
        network=_network(load),
        redis=_redis(load, api.processes),
        workers=Workers(workers, workers_max, _cores(load, load.writes * WORKER_CPU[load.client].value)),
        kafka=_kafka(load, partitions),
        postgres=_postgres(load, api.pods, workers, workers_max),
    )


def _api(load: Load) -> Api:
    read_us = load.api_rps * load.payload.mean(load.gzip_share, api_us)
    if load.writes:
        read_us /= 1 - _REFRESH_SHARE
    cost = WRITE_COSTS[load.client, load.relay]
    relay_us = cost.relay.value if cost.relay else 0.0
    read_processes = ceil(_cores(load, read_us))
    write_processes = ceil(_cores(load, load.writes * cost.api.value))
    pods = max(_PODS_MIN, ceil((read_processes + write_processes) / load.processes_per_pod))
    return Api(
        cores=_cores(load, read_us + load.writes * (cost.api.value + relay_us)),
        read_processes=read_processes,
        write_processes=write_processes,
        pods=pods,
        processes=pods * load.processes_per_pod,
    )


def _network(load: Load) -> Network:
    answer_bytes = load.payload.mean(load.gzip_share)
    api_gbit = _gbit(load.api_rps * answer_bytes)
    return Network(
        api_gbit=api_gbit,
        api_plain_gbit=_gbit(load.api_rps * load.payload.plain_bytes),
        cards=ceil(api_gbit / (load.nic_gbit * load.usable)),
        clients_gbit=_gbit(load.rps * answer_bytes),
        nginx_cores=_cores(load, load.rps * load.payload.mean(load.gzip_share, nginx_us)),
    )


def _redis(load: Load, processes: int) -> Redis:
    polls, refreshes = 1000 / load.poll_ms, load.refreshes_max
    return Redis(
        operations_per_s=processes * (polls + _REFRESH_OPERATIONS * refreshes) + _FILL_OPERATIONS * refreshes,
        pages_gbit_max=_gbit(processes * refreshes * load.payload.stored_bytes),
        page_to_all_ms=_gbit(processes * load.payload.stored_bytes) / load.nic_gbit * 1000,
    )


def _kafka(load: Load, partitions: int) -> Kafka:
    bytes_per_s = load.writes * RECORD_BYTES
    return Kafka(
        partitions=partitions,
        cores=_cores(load, load.writes * WRITE_COSTS[load.client, load.relay].broker.value),
        in_mbit=_gbit(bytes_per_s) * 1000,
        disk_gb=bytes_per_s * _RETENTION_S / 1e9,
    )


def _postgres(load: Load, pods: int, workers: int, workers_max: int) -> Postgres:
    others = (workers_max + 1) * _CONNECTIONS_PER_WORKER + _CONNECTIONS_RESERVED
    processes = (pods + 1) * load.processes_per_pod
    per_process = min(_POOL_PER_PROCESS_MAX, max(1, (load.max_connections - others) // processes))
    return Postgres(
        pool_size=load.processes_per_pod * per_process,
        connections=processes * per_process + others,
        connections_min=processes + others,
        pages_built_max=load.refreshes_max,
        rows_per_s=load.writes * _ROWS_PER_WRITE,
        commits_min=load.writes / load.batch_max,
        commits_max=min(load.writes, max(workers * _BATCHES_PER_S, load.writes / load.batch_max)),
        cores=_cores(load, load.writes * POSTGRES_CPU.value),
    )


def _cores(load: Load, us_per_s: float) -> float:
    """Return how many cores (or processes) so many microseconds a second keep busy, headroom included."""
    return us_per_s / 1e6 / load.usable


def _gbit(bytes_per_s: float) -> float:
    return bytes_per_s * 8 / 1e9


def _power_of_two(least: int) -> int:
    """Return the smallest power of two that is not below ``least``."""
    return 1 << (least - 1).bit_length()
