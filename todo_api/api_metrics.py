"""What the API exports at ``/metrics``. docs/telemetry.md has a table of the same."""

from typing import Final

from todo_api.core.metrics import Kind, Merge, Metric

_FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

REQUESTS: Final = Metric(
    Kind.COUNTER, "todo_api_http_requests_total", "Requests answered, those of the hit path included",
    ("route", "method", "status"),
)  # fmt: skip
REQUEST_SECONDS: Final = Metric(
    Kind.HISTOGRAM, "todo_api_http_request_duration_seconds",
    "Time to answer, but for the hit path, which has no time for a clock", ("route", "method"), _FAST_S,
)  # fmt: skip
ACTIVE_REQUESTS: Final = Metric(
    Kind.GAUGE,
    "todo_api_http_active_requests",
    "Requests being answered, but for the hit path's",
    ("method",),
)
PAGE_HITS: Final = Metric(
    Kind.COUNTER, "todo_api_page_hits_total", "List requests answered from the page table"
)
PAGE_OVERDUE: Final = Metric(
    Kind.COUNTER, "todo_api_page_overdue_total", "Hits while neither Redis nor PostgreSQL could be asked"
)
PAGE_WAITS: Final = Metric(
    Kind.COUNTER, "todo_api_page_waits_total", "Requests that waited for a page that another one fetched"
)
PAGE_MISSES: Final = Metric(
    Kind.COUNTER, "todo_api_page_misses_total", "Pages fetched because a request asked"
)
PAGE_REFRESHES: Final = Metric(
    Kind.COUNTER,
    "todo_api_page_refreshes_total",
    "Pages replaced by the watcher because the generation moved",
)
PAGE_FAILURES: Final = Metric(
    Kind.COUNTER, "todo_api_page_failures_total", "Pages that could not be fetched or replaced"
)
PAGE_BYPASSES: Final = Metric(
    Kind.COUNTER,
    "todo_api_page_bypasses_total",
    "List requests for which a page that is there may not do: If-Applied, user=me",
)
PAGE_FETCH_SECONDS: Final = Metric(
    Kind.HISTOGRAM, "todo_api_page_fetch_duration_seconds", "Time to fetch a page from Redis or PostgreSQL",
    ("reason",), _FAST_S,
)  # fmt: skip
PAGES: Final = Metric(Kind.GAUGE, "todo_api_page_table_pages", "Pages in the page tables of all processes")
PAGE_BYTES: Final = Metric(
    Kind.GAUGE, "todo_api_page_table_bytes", "Bytes of the bodies in the page tables of all processes"
)
GENERATION: Final = Metric(
    Kind.GAUGE, "todo_api_generation", "The generation known, of the process that is furthest behind",
    merge=Merge.MIN,
)  # fmt: skip
STATE_AGE: Final = Metric(
    Kind.GAUGE, "todo_api_generation_age_seconds", "Time since the generation was last learned, the longest",
    merge=Merge.MAX,
)  # fmt: skip
POOL_CONNECTIONS: Final = Metric(
    Kind.GAUGE, "todo_api_pool_connections", "Connections to PostgreSQL", ("state",)
)
POOL_MAX: Final = Metric(Kind.GAUGE, "todo_api_pool_connections_max", "Most connections the pools may open")
POOL_WAITING: Final = Metric(
    Kind.GAUGE, "todo_api_pool_requests_waiting", "Requests that wait for a connection"
)
POOL_TIMEOUTS: Final = Metric(
    Kind.COUNTER, "todo_api_pool_timeouts_total", "Requests that got no connection, in time or at all"
)
PUBLISH_SECONDS: Final = Metric(
    Kind.HISTOGRAM, "todo_api_publish_duration_seconds", "Time until the command log acknowledged or failed",
    ("outcome",), _FAST_S,
)  # fmt: skip
PUBLISH_WAITING: Final = Metric(
    Kind.GAUGE, "todo_api_publish_records_waiting", "Records sent and not yet acknowledged"
)
BREAKERS: Final = Metric(
    Kind.GAUGE, "todo_api_breaker_processes", "Processes by the state of their circuit breaker", ("state",)
)
DEPENDENCY_UP: Final = Metric(
    Kind.GAUGE, "todo_api_dependency_up", "1 when every process reaches it, else 0", ("dependency",),
    merge=Merge.MIN,
)  # fmt: skip
REFUSED: Final = Metric(
    Kind.COUNTER, "todo_api_overload_refusals_total", "Requests refused because they had waited too long"
)
PROCESS_STARTS: Final = Metric(
    Kind.COUNTER, "todo_api_process_starts_total", "Processes of this instance that started"
)
CPU_SECONDS: Final = Metric(Kind.COUNTER, "todo_api_cpu_seconds_total", "CPU time of all processes")
MEMORY_BYTES: Final = Metric(Kind.GAUGE, "todo_api_resident_memory_bytes", "Memory of all processes")
BUILD: Final = Metric(
    Kind.GAUGE, "todo_api_build_info", "The number of processes with this version", ("version", "python")
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
