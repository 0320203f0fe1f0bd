"""Plans as tables, as JSON and as values for the Helm chart."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from scripts.bench.tables import Table
from scripts.plan.figures import FIGURES
from scripts.plan.limits import first, limits
from scripts.plan.model import Needs


def _nearest(needs: Needs) -> str:
    limit = first(limits(needs))
    return f"{limit.name}, {_share(limit.used)}"


_ROWS: Final[Sequence[tuple[str, Callable[[Needs], str]]]] = (
    ("writes/s", lambda it: _number(it.load.writes)),
    ("reads/s that reach the API", lambda it: _number(it.load.api_rps)),
    ("API: cores", lambda it: _number(it.api.cores)),
    ("API: processes for reads", lambda it: _number(it.api.read_processes)),
    ("API: processes for writes", lambda it: _number(it.api.write_processes)),
    ("API: pods", lambda it: f"{it.api.pods:,} of {it.load.processes_per_pod} processes"),
    ("API: network", lambda it: f"{_number(it.network.api_gbit)} Gbit/s"),
    ("API: network, if nobody took gzip", lambda it: f"{_number(it.network.api_plain_gbit)} Gbit/s"),
    ("API: network cards", lambda it: f"{it.network.cards:,} of {it.load.nic_gbit:g} Gbit/s"),
    ("clients: network, from caches too", lambda it: f"{_number(it.network.clients_gbit)} Gbit/s"),
    ("nginx: cores, if its microcache answers", lambda it: _number(it.network.nginx_cores)),
    ("Redis: operations/s, about", lambda it: _number(it.redis.operations_per_s)),
    ("Redis: pages to the API, at most", lambda it: f"{_number(it.redis.pages_gbit_max)} Gbit/s"),
    ("Redis: one new page to every process", lambda it: f"{_number(it.redis.page_to_all_ms)} ms"),
    ("workers", lambda it: _number(it.workers.pods)),
    ("workers: cores", lambda it: _number(it.workers.cores)),
    ("Kafka: partitions", lambda it: _number(it.kafka.partitions)),
    ("Kafka: cores, on one broker", lambda it: _number(it.kafka.cores)),
    ("Kafka: into the topic", lambda it: f"{_number(it.kafka.in_mbit)} Mbit/s"),
    ("Kafka: disk for 7 days, each replica", lambda it: f"{_number(it.kafka.disk_gb)} GB"),
    ("PostgreSQL: connections", lambda it: _number(it.postgres.connections)),
    ("PostgreSQL: DB_POOL_SIZE of a pod", lambda it: _number(it.postgres.pool_size)),
    ("PostgreSQL: pages built/s, at most", lambda it: _number(it.postgres.pages_built_max)),
    ("PostgreSQL: rows written/s", lambda it: _number(it.postgres.rows_per_s)),
    (
        "PostgreSQL: commits/s",
        lambda it: f"{_number(it.postgres.commits_min)} to {_number(it.postgres.commits_max)}",
    ),
    ("PostgreSQL: cores, for the worker", lambda it: _number(it.postgres.cores)),
    ("nearest limit", _nearest),
)


def needs_table(plans: Sequence[Needs]) -> Table:
    """Return a column for each plan."""
    columns = ("", *(f"{_number(each.load.rps)} reads/s" for each in plans))
    return Table(columns, [[name, *(show(each) for each in plans)] for name, show in _ROWS])


def limits_table(plans: Sequence[Needs]) -> Table:
    """Return how much of each limit the plans use, and the way out of it."""
    columns = ("limit", "way out", *(f"{_number(each.load.rps)} reads/s" for each in plans))
    rows = []
    for same in zip(*(limits(each) for each in plans), strict=True):
        ofs = list(dict.fromkeys(limit.of for limit in same))
        name = f"{same[0].name}: {' or '.join(ofs)}"
        rows.append([name, same[0].way_out, *(_share(limit.used) for limit in same)])
    return Table(columns, rows, names=2)


def figures_table() -> Table:
    """Return every measured figure with the command that measures it."""
    rows = [
        [
            figure.what,
            figure.unit,
            f"`{figure.run.command}`",
            figure.run.date,
            figure.run.machine,
            figure.quoted,
        ]
        for figure in FIGURES
    ]
    return Table(("measured", "unit", "command", "date", "machine", "figure"), rows, names=5)


def as_json(needs: Needs) -> dict[str, Any]:
    """Return the plan with all its numbers, rounded to 3 digits behind the point, and its limits."""
    found = limits(needs)
    values = asdict(needs) | {
        "nearest_limit": first(found).name,
        "limits": [asdict(limit) for limit in found],
    }
    rounded = _rounded(values)
    assert isinstance(rounded, dict)
    return rounded


def values_file(needs: Needs) -> str:
    """Return values for helm/todo-api that this plan makes; credentials and addresses are not its business."""
    load = needs.load
    return f"""\
# {_number(load.rps)} reads/s of {load.payload.name}, {_number(load.writes)} writes/s: todo plan --values
database:
  # PostgreSQL must really allow so many.
  maxConnections: {max(load.max_connections, needs.postgres.connections)}
  poolSize: {needs.postgres.pool_size}
kafka:
  # For ever: choose it before the topic is created.
  partitions: {needs.kafka.partitions}
  client: {load.client}
api:
  replicas: {needs.api.pods}
  # So many are for the peak that was planned; on CPU time autoscaling would take them away before it.
  autoscaling: {{enabled: false}}
  processes: {load.processes_per_pod}
  resources:
    requests: {{cpu: {max(100, round(1000 * needs.api.cores / needs.api.pods))}m}}
  relay:
    enabled: {str(load.relay).lower()}
worker:
  replicas: {needs.workers.pods}
  keda:
    enabled: true
    minReplicas: {needs.workers.pods}
    maxReplicas: {needs.workers.pods_max}
"""


def _number(value: float) -> str:
    """Return two or three digits; more would promise too much."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _share(used: float) -> str:
    return f"{used:.1f} x" if used >= 1 else f"{used * 100:.0f} %"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
